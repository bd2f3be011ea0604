"""What client and server share."""

from __future__ import annotations

import copy
import pickle

import pytest

from sentimill.types import Prediction, Probs

PROBS = Probs((0.1, 0.2, 0.7), ("negative", "neutral", "positive"))


def test_probs_are_a_tuple_that_knows_its_labels() -> None:
    """Programs that use a tuple keep working, and a name is an index too."""
    assert isinstance(PROBS, tuple)
    assert tuple(PROBS) == (0.1, 0.2, 0.7)
    assert (PROBS[2], PROBS[-1], PROBS[:2], max(PROBS)) == (0.7, 0.7, (0.1, 0.2), 0.7)
    assert PROBS["positive"] == 0.7
    assert dict(PROBS) == {"negative": 0.1, "neutral": 0.2, "positive": 0.7}
    assert repr(PROBS) == "{'negative': 0.1, 'neutral': 0.2, 'positive': 0.7}"


def test_an_unknown_label_is_named_with_the_known_ones() -> None:
    """A typo is found at once."""
    with pytest.raises(KeyError, match="'Positive' is not one of the labels: negative, neutral"):
        PROBS["Positive"]
    with pytest.raises(KeyError, match="none"):
        Probs((0.4, 0.6))["negative"]


def test_a_prediction_survives_pickle_and_copy() -> None:
    """A worker may return it, labels included."""
    made = Prediction("positive", PROBS, 0.6, 0.7, False, False, 4, model_digest="00")

    for again in (pickle.loads(pickle.dumps(made)), copy.copy(made), copy.deepcopy(made)):
        assert again == made
        assert again.probs["positive"] == 0.7
