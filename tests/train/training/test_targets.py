"""Whose label a row learns, which shares, and how much it counts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import softmax

from sentimill.errors import UsageError
from sentimill_train.data.schema import Example
from sentimill_train.data.tokenized import NO_LABEL
from sentimill_train.training.targets import (
    human_labels,
    mix_shares,
    weigh_classes,
)
from train_parts import TWO, reviews, rows_of


def row(label: str | None, share: float, *, given: str | None = None, source: str = "a") -> Example:
    """Return a row whose teacher gives *share* to positive."""
    return Example(
        id="x", text="x", label=label, probs=(1 - share, share), given=given, source=source
    )


def test_the_label_of_a_teacher_is_not_learnt_besides_its_shares() -> None:
    """It is the largest share of every row of its file."""
    taught = [row("positive", 0.7), row("negative", 0.2), row(None, 0.6)]

    assert [e.label for e in human_labels(taught, TWO)] == [None, None, None]


def test_the_label_of_a_person_is_learnt_besides_the_shares() -> None:
    """Where the row names it, and where a file has labels that differ from the largest share."""
    named = [row("positive", 0.7, given="negative"), row("negative", 0.2)]
    own = [row("positive", 0.7, source="b"), row("positive", 0.2, source="b")]

    assert [e.label for e in human_labels([*named, *own], TWO)] == [
        *("negative", None),
        *("positive", "positive"),
    ]


def test_a_label_without_shares_is_always_learnt() -> None:
    """There is nothing else to learn."""
    bare = reviews(3)

    assert human_labels(bare, TWO) == bare


def test_the_answers_of_a_teacher_mix_with_shares_that_are_there() -> None:
    """A row without shares learns the answers alone, a row without answers its shares."""
    rows = rows_of([*reviews(2, shares=True), *reviews(1)])
    logits = np.array([[2.0, 0.0], [np.nan, np.nan], [0.0, 1.0]], dtype=np.float32)

    found = mix_shares(rows, logits, 0.25).soft

    answers = softmax(logits[[0, 2]], axis=1)
    np.testing.assert_allclose(found[0], 0.25 * answers[0] + 0.75 * rows.soft[0], rtol=1e-6)
    np.testing.assert_allclose(found[1], rows.soft[1])
    np.testing.assert_allclose(found[2], answers[1], rtol=1e-6)


def test_balanced_weights_give_each_label_as_much() -> None:
    """Three rows of one label weigh as much as one of the other, and the sum stays."""
    labels = ["positive", "positive", "positive", "negative"]
    rows = rows_of([replace(e, label=name) for e, name in zip(reviews(4), labels, strict=True)])

    found = weigh_classes(rows, "balanced", TWO)

    assert found.weight.tolist() == pytest.approx([2 / 3] * 3 + [2.0])


def test_weights_can_be_given_by_label() -> None:
    """A row without a label is weighed by its shares; a label that is not named keeps 1."""
    rows = rows_of(reviews(2, shares=True))
    rows.gold[:] = [1, NO_LABEL]
    rows.soft[1] = (0.5, 0.5)

    found = weigh_classes(rows, "positive=3", TWO)

    assert found.weight.tolist() == [3.0, 2.0]


@pytest.mark.parametrize("given", ["neutral=2", "positive", "positive=-1", "positive=x", ""])
def test_weights_of_nothing_are_refused(given: str) -> None:
    """With what can be written."""
    with pytest.raises(UsageError, match="balanced") as caught:
        weigh_classes(rows_of(reviews(2)), given, TWO)

    assert caught.value.reason == "BAD_CLASS_WEIGHTS"
