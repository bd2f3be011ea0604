"""Finds probable errors in labels of people, by confident learning on the student's embeddings.

A logistic regression on the embeddings predicts each row without having been trained on it. Labels
of a model are not checked: its probs show its doubt already, and a student learns from them.
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
"""Fewer rows are too few to train the classifier."""
MOST_ROWS: Final = 10_000
"""Of a larger set only a sample of this size is checked: an embedding takes some milliseconds."""

_FOLDS: Final = 5
_RIDGE: Final = 0.01  # for hundreds of dimensions and rows; 0.1 was 3 points less accurate

Embed = Callable[[Sequence[str]], Floats]
"""Returns the embeddings (rows, hidden) of texts."""


class LabelError(NamedTuple):
    """A label that is probably wrong. position: of the row. suggested: index of a likelier label.

    likely: the out-of-sample probability of the suggested label.
    """

    position: int
    suggested: int
    likely: float


def find_label_errors(labels: NDArray[np.int64], embeddings: Floats) -> list[LabelError]:
    """Return the *labels* (rows,) that are probably wrong, the most certain ones first.

    A label is probably wrong if another label is more likely for its row than it is on average for
    the rows with that other label (Northcutt et al., "Confident Learning", 2021, section 3).
    Classes with fewer than five rows are not checked.
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
    packed = np.searchsorted(present, labels[rows])  # cleanlab needs classes 0..k-1
    model = make_pipeline(StandardScaler(), LogisticRegression(C=_RIDGE, max_iter=200))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # slow convergence and rare classes do not matter here
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
