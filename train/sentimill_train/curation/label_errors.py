"""Labels that are probably wrong, by confident learning (cleanlab) over a quick baseline.

The baseline, TF-IDF with logistic regression, never judges a row that it was trained on. It is
trained on a bounded sample, so that millions of rows cost only their prediction.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sentimill.errors import UsageError
from sentimill_train.curation.row_store import Spool

__all__ = ["LEAST_ROWS", "find_noise", "out_of_sample"]

LEAST_ROWS: Final = 60
"""Fewer rows than this teach the baseline nothing that could judge a label."""

_FOLDS: Final = 4
_SAMPLE_ROWS: Final = 12_000
_FEATURES: Final = 50_000
_CHUNK_ROWS: Final = 5_000


def out_of_sample(
    spool: Spool,
    rows: NDArray[np.int64],
    labels: NDArray[np.int64],
    order: NDArray[np.int64],
    classes: int,
    progress: Callable[[int], None] = lambda done: None,
) -> NDArray[np.float32]:
    """Return the baseline's probabilities (rows, classes) for *rows*.

    labels: (rows,) their labels. order: (rows,) hashes of their texts, which decide the fold and
    the sample, so that neither depends on the order of the file.
    """
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise UsageError(
            "finding wrong labels needs scikit-learn: pip install 'sentimill[label]'",
            reason="EXTRA_MISSING",
        ) from error
    probs = np.full((len(rows), classes), 1 / classes, dtype=np.float32)
    folds = order % _FOLDS
    done = 0
    for fold in range(_FOLDS):
        outside = np.flatnonzero(folds != fold)
        sample = outside[np.argsort(order[outside], kind="stable")[:_SAMPLE_ROWS]]
        inside = np.flatnonzero(folds == fold)
        known = np.unique(labels[sample])
        if len(known) < 2:
            continue
        vectorizer = TfidfVectorizer(
            ngram_range=(1, 2), sublinear_tf=True, max_features=_FEATURES, dtype=np.float32
        )
        model = LogisticRegression(C=4.0, tol=1e-3, max_iter=100)
        model.fit(vectorizer.fit_transform(spool.texts(rows[sample].tolist())), labels[sample])
        for start in range(0, len(inside), _CHUNK_ROWS):
            part = inside[start : start + _CHUNK_ROWS]
            found = model.predict_proba(vectorizer.transform(spool.texts(rows[part].tolist())))
            probs[np.ix_(part, known)] = found
            absent = np.setdiff1d(np.arange(classes), known)
            probs[np.ix_(part, absent)] = 0.0
            done += len(part)
            progress(done)
    return probs


def find_noise(
    labels: NDArray[np.int64], probs: NDArray[np.float32], most: float
) -> NDArray[np.int64]:
    """Return which labels are probably wrong, worst first; at most the share *most* of them.

    Both of cleanlab's rules must agree, which spares hard but right rows (Northcutt et al.,
    "Confident Learning", 2021, section 3).
    """
    try:
        from cleanlab.filter import find_label_issues
    except ImportError as error:
        raise UsageError(
            "finding wrong labels needs cleanlab: pip install 'sentimill[label]'",
            reason="EXTRA_MISSING",
        ) from error
    present = np.unique(labels)
    if len(labels) < LEAST_ROWS or len(present) < 2:
        return np.empty(0, dtype=np.int64)
    # cleanlab wants classes 0..k-1 that all occur.
    packed = np.searchsorted(present, labels)
    shares = probs[:, present].astype(np.float64)
    shares /= np.maximum(shares.sum(axis=1, keepdims=True), 1e-12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of rare classes, which are the caller's business
        ranked = find_label_issues(
            packed,
            shares,
            filter_by="both",
            return_indices_ranked_by="self_confidence",
            n_jobs=1,
        )
    return np.asarray(ranked, dtype=np.int64)[: int(most * len(labels))]
