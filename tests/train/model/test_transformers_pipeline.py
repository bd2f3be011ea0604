"""A bundle as a pipeline of transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sentimill import Classifier, Prediction, TextError
from sentimill.bundle.reader import open_bundle
from sentimill.classifier import encoder_of
from sentimill.errors import UsageError
from sentimill.text.tokenizer import Encoded, pad
from sentimill_train import to_transformers
from sentimill_train.model.student import load_student
from tiny_bundle import LABELS
from tiny_bundle_with_weights import write_weighted_bundle

TEXTS = [
    "The battery died in a week.",
    "It is a kettle.",
    "Works as promised &amp; looks great<br>😍😍",
    "Long. " * 400 + "And I love it.",
]


@pytest.fixture(autouse=True)
def _tokenizers_in_this_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the variable that a pipeline sets where it is missing, and take it back."""
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")


def test_the_labels_are_those_of_the_bundle() -> None:
    """In one batch and one by one, after the same cleaning and cuts; int8 rounds the probs."""
    ask = to_transformers()
    expected = Classifier.load().classify(TEXTS)

    answers: list[Any] = [ask(TEXTS, top_k=None), ask(TEXTS, top_k=None, batch_size=3)]
    for found in answers:
        for scores, one in zip(found, expected, strict=True):
            assert isinstance(one, Prediction)
            assert scores[0]["label"] == one.label
            probs = {each["label"]: each["score"] for each in scores}
            assert probs == pytest.approx(dict(one.probs), abs=0.05)


def test_the_probs_are_those_of_the_weights(tmp_path: Path) -> None:
    """Softmax of the logits over the temperature."""
    path = write_weighted_bundle(tmp_path / "tiny")
    opened = open_bundle(path)
    encoder = encoder_of(opened.manifest, opened.read("tokenizer.json"))
    (encoded,) = encoder.encode(["good bad battery"])
    assert isinstance(encoded, Encoded)
    logits = load_student(path)(*map(torch.from_numpy, pad([encoded.ids], 0)))

    scores: Any = to_transformers(path)("good bad battery", top_k=None)

    found = [each["score"] for each in sorted(scores, key=lambda each: LABELS.index(each["label"]))]
    assert found == pytest.approx(logits.softmax(dim=1)[0].tolist(), abs=1e-6)


def test_a_text_that_cannot_be_classified_raises_its_error() -> None:
    """A pipeline has no place for an error beside its answers."""
    with pytest.raises(TextError, match="at least one visible character"):
        to_transformers()("")


def test_a_bundle_without_weights_is_refused(bundle: Path) -> None:
    """A bundle that is made to ship has the graph alone."""
    with pytest.raises(UsageError, match=r"has no model\.safetensors"):
        to_transformers(bundle)
