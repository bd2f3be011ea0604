"""Labels that people probably got wrong, by confident learning over the student's embeddings.

A logistic regression reads the embeddings and never judges a row that it was trained on. Labels of
a model are not judged: its shares tell its doubt already, and a student learns from them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sentimill_train.metrics.classification import Floats
from sentimill_train.optional_packages import needed_for

LEAST_ROWS: Final = 60
"""Fewer rows than this teach the classifier nothing that could judge a label."""
MOST_ROWS: Final = 10_000
"""A larger set is judged on a sample of this many rows: an embedding takes some milliseconds."""

_FOLDS: Final = 5
_RIDGE: Final = 0.01  # hundreds of dimensions, hundreds of rows: 0.1 was 3 points less accurate

Embed = Callable[[Sequence[str]], Floats]
"""Gives the embeddings (rows, hidden) of texts."""


class LabelError(NamedTuple):
    """A label that is probably wrong. position: of the row. suggested: index of the likelier label.

    likely: the out-of-sample probability of the suggested label.
    """

    position: int
    suggested: int
    likely: float


def find_label_errors(labels: NDArray[np.int64], embeddings: Floats) -> list[LabelError]:
    """Return the *labels* (rows,) that are probably wrong, the most certain ones first.

    A label is wrong where another one is more likely than it usually is in the rows that carry it
    (Northcutt et al., "Confident Learning", 2021, section 3). Classes with fewer than five rows are
    not judged.
    """
    with needed_for("finding label errors"):
        from cleanlab.filter import find_label_issues
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import cross_val_predict
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

    counts = np.bincount(labels)
    rows = np.flatnonzero(counts[labels] >= _FOLDS)
    present = np.unique(labels[rows])
    if len(rows) < LEAST_ROWS or len(present) < 2:
        return []
    packed = np.searchsorted(present, labels[rows])  # cleanlab wants classes 0..k-1
    model = make_pipeline(StandardScaler(), LogisticRegression(C=_RIDGE, max_iter=200))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of slow convergence and rare classes: neither matters
        probs = cross_val_predict(
            model, embeddings[rows], packed, cv=_FOLDS, method="predict_proba"
        )
        ranked = find_label_issues(
            packed,
            probs,
            filter_by="confident_learning",
            return_indices_ranked_by="self_confidence",
            n_jobs=1,
        )
    return [
        LabelError(
            position=int(rows[i]),
            suggested=int(present[probs[i].argmax()]),
            likely=float(probs[i].max()),
        )
        for i in np.asarray(ranked, dtype=np.int64).tolist()
    ]
