"""Plain models on the same rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from sentimill.errors import InputError
from sentimill.text.tokenizer import TextEncoder
from sentimill_train.data.schema import Example
from sentimill_train.evaluation.baselines import (
    Features,
    baseline_contenders,
    fit_baseline,
    static_features,
    tfidf_features,
    word_table,
)
from tiny_bundle import WORDS, tokenizer_json

LABELS = ("negative", "neutral", "positive")


def reviews(rows: int, labels: tuple[str, ...] = LABELS) -> list[Example]:
    """Return reviews whose words tell their label."""
    words = {"negative": "bad", "neutral": "fine", "positive": "good"}
    return [
        Example(id=str(i), text=f"the {words[label]} battery {i % 5}", label=label, source="made")
        for i, label in zip(range(rows), labels * rows, strict=False)
    ]


def encoder() -> TextEncoder:
    """Return the tiny tokenizer."""
    return TextEncoder(tokenizer_json(), max_tokens=16, truncation="head")


def features() -> list[Features]:
    """Return each kind of features."""
    table = np.random.default_rng(0).normal(size=(len(WORDS), 8)).astype(np.float32)
    return [
        tfidf_features(),
        tfidf_features(characters=False),
        static_features(table, encoder()),
    ]


@pytest.mark.parametrize("kind", range(3))
def test_a_baseline_learns_what_words_tell(kind: int) -> None:
    """It separates three words, its probs sum to one, and a text that is empty gets an answer."""
    baseline = fit_baseline("b", features()[kind], reviews(90), reviews(30), LABELS)
    probs = baseline.probs(["a bad battery", "fine", "so good!", "  "])
    assert probs.argmax(axis=1)[:3].tolist() == [0, 1, 2]
    assert probs.sum(axis=1) == pytest.approx(1.0)
    assert baseline.strength > 0


def test_a_label_that_training_lacks_gets_no_probability() -> None:
    """The columns keep the bundle's order."""
    two = reviews(60, ("negative", "positive"))
    probs = fit_baseline("b", tfidf_features(), two, two, LABELS).probs(["bad", "good"])
    assert probs[:, 1].tolist() == [0.0, 0.0]
    assert probs.argmax(axis=1).tolist() == [0, 2]


def test_contenders_say_what_they_are_and_how_many_rows_they_saw(tmp_path: Path) -> None:
    """Rows without a label are not counted; without an encoder there is one baseline."""
    table = np.random.default_rng(0).normal(size=(len(WORDS), 8)).astype(np.float32)
    save_file({"embeddings.word_embeddings.weight": table}, tmp_path / "model.safetensors")
    rows = [*reviews(60), Example(id="x", text="no label", source="made")]
    found = baseline_contenders(
        rows, [], LABELS, encoder=encoder(), weights=tmp_path / "model.safetensors"
    )
    assert [c.name for c in found] == ["TF-IDF", "static vectors"]
    assert all("60 rows" in c.note for c in found)
    assert found[1].probs(["bad", "good"]).shape == (2, 3)
    assert len(baseline_contenders(rows, [], LABELS)) == 1


def test_one_label_cannot_be_learned() -> None:
    """It is said before anything is fitted."""
    with pytest.raises(InputError, match="two labels"):
        baseline_contenders(reviews(5, ("neutral",)), [], LABELS)


def test_a_base_without_word_vectors_has_no_static_baseline(tmp_path: Path) -> None:
    """The other baseline is still there: a whole training must not fail for it."""
    weights = tmp_path / "m.safetensors"
    save_file({"other": np.zeros((2, 2), dtype=np.float32)}, weights)

    found = baseline_contenders(reviews(60), [], LABELS, encoder=encoder(), weights=weights)

    assert word_table(weights) is None
    assert [c.name for c in found] == ["TF-IDF"]
