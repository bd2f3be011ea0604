"""Accuracy with intervals, on the same held-out reviews for every model; and the published rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from prompts import LABELS
from record import Quality
from reviews import Review

__all__ = ["PUBLISHED", "correct", "judge", "wilson"]

_Z: Final = 1.959964  # 95 %


def wilson(right: int, rows: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson 1927; Brown, Cai and DasGupta 2001, eq. 4)."""
    share, z2 = right / rows, _Z * _Z
    middle = (share + z2 / (2 * rows)) / (1 + z2 / rows)
    half = _Z / (1 + z2 / rows) * math.sqrt(share * (1 - share) / rows + z2 / (4 * rows * rows))
    return max(0.0, middle - half), min(1.0, middle + half)


def correct(probs: NDArray[np.float64], reviews: Sequence[Review], classes: int) -> list[bool]:
    """Return right or wrong a row. Two classes leave neutral rows out, and the neutral column."""
    found: list[bool] = []
    for row, review in zip(probs, reviews, strict=True):
        if classes == 2:
            if review.label != "neutral":
                found.append((row[2] > row[0]) == (review.label == "positive"))
        else:
            found.append(LABELS[int(row.argmax())] == review.label)
    return found


def judge(
    name: str, probs: NDArray[np.float64], reviews: Sequence[Review], *, against: str = "stars"
) -> list[Quality]:
    """Return two-class and three-class accuracy on each set, and on all of them together."""
    sets: dict[str, list[int]] = {"all": list(range(len(reviews)))}
    for i, review in enumerate(reviews):
        sets.setdefault(review.dataset, []).append(i)
    if len(sets) == 2:
        del sets["all"]
    found: list[Quality] = []
    for dataset, rows in sets.items():
        chosen = [reviews[i] for i in rows]
        for classes in (2, 3):
            if classes == 3 and not any(review.label == "neutral" for review in chosen):
                continue
            right = correct(probs[rows], chosen, classes)
            low, high = wilson(sum(right), len(right))
            found.append(
                Quality(
                    name=name,
                    dataset=dataset,
                    classes=classes,
                    rows=len(right),
                    accuracy=sum(right) / len(right),
                    low=low,
                    high=high,
                    against=against,
                )
            )
    return found


PUBLISHED: Final[tuple[Quality, ...]] = ()
"""Rows from papers. Empty until a table was read in a stored copy: none is quoted from memory."""
