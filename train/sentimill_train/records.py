"""`Example`: one review on its way through training, and the columns that hold it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["SENTIMENTS", "Example", "Split"]

SENTIMENTS: Final = ("negative", "neutral", "positive")
"""The default label set, in order."""

Split = Literal["train", "validation", "test"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One review.

    id: unique within its source. label: one of the closed label set, None when unlabelled. probs:
    the teacher's share a label, in label order, summing to 1; None where there is no teacher.
    stars: 1 to 5. domain: where it was written, free text. split: None until `split_of` or the
    source says. source: the file or hub name that it was read from.
    """

    id: str
    text: str
    label: str | None = None
    probs: tuple[float, ...] | None = None
    stars: int | None = None
    domain: str | None = None
    split: Split | None = None
    source: str
