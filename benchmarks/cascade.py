"""The student answers when it is confident, the large model when not: cost against accuracy.

The threshold is chosen on one half of the rows and reported on the other, so that the named point
is not the luckiest of many.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray
from prompts import LABELS
from quality import wilson
from record import CascadePoint
from reviews import Review

__all__ = ["THRESHOLDS", "curve"]

THRESHOLDS: Final = (0.0, 0.4, 0.45, *(round(0.5 + 0.025 * n, 3) for n in range(20)), 0.99, 1.01)
"""Confidence below which a review is handed over: 0 never, 1.01 always."""

_CLOSE: Final = 0.005
"""How much accuracy the best point may give away against the best of all."""


def curve(
    probs: NDArray[np.float64],
    reviews: Sequence[Review],
    *,
    student_usd: float,
    large_usd: float,
) -> list[CascadePoint]:
    """Return one point a threshold, measured on the second half of the rows.

    probs: the student's, (rows, labels). reviews carry the large model's shares. student_usd and
    large_usd: US dollars a review. A review that is handed over costs both. The best point is the
    cheapest whose accuracy on the first half is within half a point of the highest there.
    """
    given = np.array([review.teacher for review in reviews], dtype=np.float64)
    gold = np.array([LABELS.index(review.label) for review in reviews])
    middle = len(reviews) // 2
    first, second = slice(0, middle), slice(middle, None)

    def point(threshold: float, rows: slice) -> CascadePoint:
        handed = probs[rows].max(axis=1) < threshold
        answers = np.where(handed, given[rows].argmax(axis=1), probs[rows].argmax(axis=1))
        right = int((answers == gold[rows]).sum())
        low, high = wilson(right, len(answers))
        return CascadePoint(
            threshold=threshold,
            handed_over=float(handed.mean()),
            accuracy=right / len(answers),
            low=low,
            high=high,
            usd_million=(student_usd + float(handed.mean()) * large_usd) * 1e6,
        )

    chosen_on = [point(threshold, first) for threshold in THRESHOLDS]
    best = min(
        (p for p in chosen_on if p.accuracy >= max(q.accuracy for q in chosen_on) - _CLOSE),
        key=lambda p: p.usd_million,
    )
    return [
        msgspec.structs.replace(point(threshold, second), best=threshold == best.threshold)
        for threshold in THRESHOLDS
    ]
