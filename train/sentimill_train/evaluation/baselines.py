"""Baselines: simple models, trained on the same rows, that a student must beat.

A distilled encoder is worth its cost only if it is better than a logistic regression on word counts
(Wang and Manning 2012 show how strong those are), and than one on the mean of the base encoder's
word vectors, which costs one table look-up a word.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from sentimill.errors import InputError, TextError
from sentimill.text.tokenizer import TextEncoder
from sentimill_train.data.schema import Example
from sentimill_train.data.splits import cleaned, sample_rows
from sentimill_train.evaluation.result import Contender
from sentimill_train.metrics.classification import Floats, macro_f1_of

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

BASELINE_ROWS: Final = 50_000
"""The baselines are fitted on a sample of at most this many rows, since features fill memory."""

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
    """A fitted baseline. strength: the inverse regularisation that was best on validation."""

    name: str
    labels: tuple[str, ...]
    strength: float
    features: Features
    model: LogisticRegression

    def probs(self, texts: Sequence[str]) -> Floats:
        """Return probs (rows, labels); a label that is not in the training rows has 0."""
        found = self.model.predict_proba(self.features.transform(_as_read(texts)))
        probs = np.zeros((len(found), len(self.labels)))
        probs[:, self.model.classes_] = found
        return probs


def baseline_contenders(
    train: Sequence[Example],
    validation: Sequence[Example],
    labels: tuple[str, ...],
    *,
    encoder: TextEncoder | None = None,
    weights: Path | None = None,
) -> list[Contender]:
    """Fit the baselines on the labelled rows of *train* and return them as contenders.

    encoder, weights: the tokenizer and model.safetensors of the base encoder; without them, or
    without word vectors in the weights, there is no static baseline. The baselines learn only from
    hard labels: soft labels are an advantage of the student.
    """
    labelled = [example for example in train if example.label in labels]
    fit_on = sample_rows(labelled, BASELINE_ROWS)
    choose_on = sample_rows([e for e in validation if e.label in labels], BASELINE_ROWS)
    if len({example.label for example in fit_on}) < 2:
        raise InputError(
            f"the baselines have {len(fit_on)} training rows, but need two labels: give the files"
            " that the bundle was trained on",
            reason="TOO_FEW_ROWS",
        )
    kinds = [
        ("TF-IDF", "Words, word pairs and 3 to 5 letters, weighed by TF-IDF", tfidf_features())
    ]
    table = None if weights is None else word_table(weights)
    if encoder is not None and table is not None:
        what = "The mean of the base encoder's word embeddings over a text"
        kinds.append(("static vectors", what, static_features(table, encoder)))
    part = "" if len(fit_on) == len(labelled) else f" a sample of {len(fit_on):,} of"
    contenders = []
    for name, what, features in kinds:
        fitted = fit_baseline(name, features, fit_on, choose_on or fit_on, labels)
        contenders.append(
            Contender(
                name=name,
                kind="baseline",
                note=f"{what}, with a logistic regression (C = {fitted.strength:g}) fitted on{part}"
                f" the {len(labelled):,} rows that the student learned from, by their hard labels.",
                probs=fitted.probs,
            )
        )
    return contenders


def fit_baseline(
    name: str,
    features: Features,
    train: Sequence[Example],
    validation: Sequence[Example],
    labels: tuple[str, ...],
) -> Baseline:
    """Fit a logistic regression on *features* of the labelled *train* rows.

    The regularisation is chosen by macro-F1 on *validation*, so that the comparison is fair.
    """
    from sklearn.linear_model import LogisticRegression

    rows = features.fit_transform(_as_read(example.text for example in train))
    held = features.transform(_as_read(example.text for example in validation))
    gold, held_gold = (
        np.array([labels.index(str(example.label)) for example in examples])
        for examples in (train, validation)
    )
    fitted = [
        LogisticRegression(C=strength, max_iter=1000, tol=1e-3, random_state=0).fit(rows, gold)
        for strength in _STRENGTHS
    ]
    best = max(fitted, key=lambda model: macro_f1_of(model.predict(held), held_gold))
    return Baseline(name, labels, best.C, features, best)


def _as_read(texts: Iterable[str]) -> list[str]:
    """Return the texts as the student reads them; a text that it refuses becomes empty."""
    return [cleaned(text) or "" for text in texts]


def tfidf_features(*, characters: bool = True) -> Features:
    """Return TF-IDF of words and word pairs, and with *characters* of 3 to 5 letters in a word.

    Counts are logarithmic. `!` and `?` count as words, because they express sentiment. The letters
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
    method is that of Wieting et al. 2016, on which model2vec builds.
    """
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    def means(texts: Sequence[str]) -> Floats:
        found = np.zeros((len(texts), table.shape[1]))
        for start in range(0, len(texts), _TEXTS_AT_ONCE):
            encoded = encoder.encode(texts[start : start + _TEXTS_AT_ONCE])
            for row, text in enumerate(encoded, start=start):
                if not isinstance(text, TextError):
                    found[row] = table[text.ids].mean(axis=0)
        return found

    features: Features = make_pipeline(FunctionTransformer(means), StandardScaler())
    return features


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
