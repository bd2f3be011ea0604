"""The cascade: the student answers if it is confident, else the large model. Cost and accuracy.

The threshold is chosen on one half of the rows and reported on the other, so that the reported
point is not chosen by chance.
"""

from __future__ import annotations

from typing import Final

import msgspec

from benchmarks.proof.record import CascadePoint
from sentimill_train.metrics.classification import Answers, Floats
from sentimill_train.metrics.intervals import share

THRESHOLDS: Final = (0.0, 0.4, 0.45, *(round(0.5 + 0.025 * n, 3) for n in range(20)), 0.99, 1.01)
"""Confidence below which a review is handed over: 0 never, 1.01 always."""

_CLOSE: Final = 0.005
"""How much less accurate the chosen point may be than the most accurate one."""


def curve(
    student: Answers, teacher: Floats, *, student_usd: float, large_usd: float
) -> list[CascadePoint]:
    """Return one point a threshold, measured on the second half of the rows.

    teacher: its shares (rows, labels). student_usd and large_usd: US dollars a review; one that is
    handed over costs both. The best point is the cheapest whose accuracy on the first half is
    within half a point of the highest there.
    """
    by_teacher = teacher.argmax(axis=1) == student.gold
    middle = len(student.gold) // 2
    first, second = slice(0, middle), slice(middle, None)

    def point(threshold: float, rows: slice) -> CascadePoint:
        handed = student.confidence[rows] < threshold
        right = student.correct[rows].copy()
        right[handed] = by_teacher[rows][handed]
        return CascadePoint(
            threshold=threshold,
            handed_over=float(handed.mean()),
            accuracy=share(int(right.sum()), len(right)),
            usd_million=(student_usd + float(handed.mean()) * large_usd) * 1e6,
        )

    chosen_on = [point(threshold, first) for threshold in THRESHOLDS]
    highest = max(one.accuracy.value for one in chosen_on)
    best = min(
        (one for one in chosen_on if one.accuracy.value >= highest - _CLOSE),
        key=lambda one: one.usd_million,
    )
    return [
        msgspec.structs.replace(point(threshold, second), best=threshold == best.threshold)
        for threshold in THRESHOLDS
    ]
