"""Baselines: plain models, trained on the same rows, that a student must beat.

A distilled encoder earns its cost only where it is better than word counts with a logistic
regression (Wang and Manning 2012 show how strong those are), or than the average of the base
encoder's own word vectors, which costs one table look-up a word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from sentimill.errors import TextError
from sentimill.text.cleaning import clean
from sentimill.text.tokenizer import TextEncoder
from sentimill_train.data.schema import Example
from sentimill_train.metrics.classification import Floats, Ints, macro_f1_of

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

_STRENGTHS: Final = (1.0, 4.0, 16.0, 64.0)  # inverse regularisation; the best is kept
_TEXTS_AT_ONCE: Final = 4096
_MOST_FEATURES: Final = 300_000


class Features(Protocol):
    """Turns texts into rows that a linear model takes."""

    def fit_transform(self, texts: Sequence[str]) -> object:
        """Learn from the training texts and return their features (rows, features)."""

    def transform(self, texts: Sequence[str]) -> object:
        """Return the features (rows, features) of any texts."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """A fitted baseline. strength: the inverse regularisation that did best on validation."""

    name: str
    labels: tuple[str, ...]
    strength: float
    features: Features
    model: LogisticRegression

    def probs(self, texts: Sequence[str]) -> Floats:
        """Return probs (rows, labels); a label that training never showed has 0."""
        return self._probs(self.features.transform([_cleaned(text) for text in texts]))

    def _probs(self, rows: object) -> Floats:
        found = self.model.predict_proba(rows)
        probs = np.zeros((len(found), len(self.labels)))
        probs[:, self.model.classes_] = found
        return probs


def fit_baseline(
    name: str,
    features: Features,
    train: Sequence[Example],
    validation: Sequence[Example],
    labels: tuple[str, ...],
) -> Baseline:
    """Fit a logistic regression on *features* of the labelled *train* rows.

    Its one setting is chosen by macro-F1 on *validation*, so that the comparison is fair.
    """
    from sklearn.linear_model import LogisticRegression

    rows = features.fit_transform([_cleaned(example.text) for example in train])
    held = features.transform([_cleaned(example.text) for example in validation])
    gold, held_gold = _gold(train, labels), _gold(validation, labels)
    best = Baseline(name, labels, 0.0, features, None)
    best_score = -1.0
    for strength in _STRENGTHS:
        model = LogisticRegression(C=strength, max_iter=1000, tol=1e-3, random_state=0)
        model.fit(rows, gold)
        fitted = Baseline(name, labels, strength, features, model)
        score = macro_f1_of(fitted._probs(held).argmax(axis=1), held_gold)
        if score > best_score:
            best, best_score = fitted, score
    return best


def _gold(examples: Sequence[Example], labels: tuple[str, ...]) -> Ints:
    place = {label: i for i, label in enumerate(labels)}
    return np.array([place[str(example.label)] for example in examples], dtype=np.int64)


def _cleaned(text: str) -> str:
    """Return the text as the student reads it; one that it refuses has no words."""
    try:
        return clean(text)
    except TextError:
        return ""


def tfidf_features(*, characters: bool = True) -> Features:
    """Return TF-IDF of words and word pairs, and with *characters* of 3 to 5 letters in a word.

    Counts are logarithmic. `!` and `?` count as words, because they carry sentiment. The letters
    take most of the time, and help with misspellings.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_union

    words = TfidfVectorizer(
        ngram_range=(1, 2),
        min_df=2,
        sublinear_tf=True,
        max_features=_MOST_FEATURES,
        token_pattern=r"(?u)\b\w+(?:['\u2019]\w+)?|[!?]",
        dtype=np.float32,
    )
    letters = TfidfVectorizer(
        analyzer="char_wb",
        ngram_range=(3, 5),
        min_df=3,
        sublinear_tf=True,
        max_features=_MOST_FEATURES,
        dtype=np.float32,
    )
    found: Features = make_union(words, letters) if characters else words
    return found


def static_features(table: NDArray[np.float32], encoder: TextEncoder) -> Features:
    """Return the mean of word vectors over the tokens that the student reads, standardised.

    table: (vocabulary, width), the word embeddings of the base encoder before any training. The
    pooled static vectors of Wieting et al. 2016; model2vec is their descendant.
    """
    return _Static(table, encoder)


class _Static:
    def __init__(self, table: NDArray[np.float32], encoder: TextEncoder) -> None:
        self._table = table
        self._encoder = encoder
        self._mean = np.zeros(table.shape[1])
        self._spread = np.ones(table.shape[1])

    def fit_transform(self, texts: Sequence[str]) -> Floats:
        vectors = self._vectors(texts)
        self._mean = vectors.mean(axis=0)
        self._spread = np.maximum(vectors.std(axis=0), 1e-6)
        return self._scaled(vectors)

    def transform(self, texts: Sequence[str]) -> Floats:
        return self._scaled(self._vectors(texts))

    def _scaled(self, vectors: Floats) -> Floats:
        return (vectors - self._mean) / self._spread

    def _vectors(self, texts: Sequence[str]) -> Floats:
        found = np.zeros((len(texts), self._table.shape[1]))
        for start in range(0, len(texts), _TEXTS_AT_ONCE):
            encoded = self._encoder.encode(texts[start : start + _TEXTS_AT_ONCE])
            for row, text in enumerate(encoded, start=start):
                if not isinstance(text, TextError):
                    found[row] = self._table[text.ids].mean(axis=0)
        return found


def word_table(weights: Path) -> NDArray[np.float32] | None:
    """Return the word embeddings (vocabulary, width) in a BERT-family model.safetensors.

    None when the file has none under a known name.
    """
    from safetensors import safe_open

    with safe_open(weights, framework="numpy") as opened:
        names: list[str] = list(opened.keys())
        for name in names:
            if name.endswith(("word_embeddings.weight", "tok_embeddings.weight")):
                table: NDArray[np.float32] = opened.get_tensor(name).astype(np.float32)
                return table
    return None
