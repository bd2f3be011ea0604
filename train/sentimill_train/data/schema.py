"""Defines `Example`, one review in training, and `Columns`, which column of a file holds what."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from sentimill_train.metrics.label_numbers import number_in

SENTIMENTS: Final = ("negative", "neutral", "positive")
"""The default label set, in order."""

FIELDS: Final = ("probs", "stars", "domain", "split", "given", "teacher", "labels_allowed")
"""Fields of an example whose column names no option changes; `id` is read as well."""

Split = Literal["train", "validation", "test"]

_BY_STARS: Final = ("negative", "negative", "neutral", "positive", "positive")


def sentiment_of_stars(stars: int) -> str:
    """Return the sentiment of *stars*: 1-2 is negative, 3 neutral, 4-5 positive.

    No other code of the project maps stars to labels.
    """
    return _BY_STARS[stars - 1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One review.

    id: unique within its source. label: one of the closed label set, None when unlabelled. probs:
    soft labels, the share of each label in label order, summing to 1; None without them. stars: 1
    to 5. domain: where the review was written, free text. split: None until the source or
    `split_of` decides. source: the file or hub name that it was read from. given: the label that a
    person gave, where `label` is a teacher's. teacher: the model that gave the label and the probs;
    None if no model is named. labels_allowed: the labels that the annotator could choose from; None
    means all. weight: how much the row counts in the training loss. extra: the other columns of the
    row, if the caller asked for them.
    """

    id: str
    text: str
    label: str | None = None
    probs: tuple[float, ...] | None = None
    stars: int | None = None
    domain: str | None = None
    split: Split | None = None
    source: str
    given: str | None = None
    teacher: str | None = None
    labels_allowed: tuple[str, ...] | None = None
    weight: float = 1.0
    extra: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Which columns hold text and label, and how CSV is written, as in the options of `score`.

    texts: one column, or several that are joined in this order. label: None means the column
    `label` if there is one, else the probs or the stars decide. weight: None means that every row
    has the weight 1; a column that happens to be called `weight` may hold kilograms. Other fields
    have fixed column names. delimiter: None detects it from the header line. quote: None means that
    there is no quote character.
    """

    texts: tuple[str, ...] = ("text",)
    label: str | None = None
    weight: str | None = None
    delimiter: str | None = None
    quote: str | None = '"'
    escape: str | None = None
    encoding: str = "utf-8"


def number_of(text: str) -> float:
    """Return *text* as a number, NaN if it is not a number."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def label_set(examples: Iterable[Example]) -> tuple[str, ...]:
    """Return the labels that occur, sorted; by number if each contains one, so 2 before 10."""
    found = sorted({example.label for example in examples if example.label is not None})
    values = [number for label in found if (number := number_in(label)) is not None]
    if len(values) < len(found):
        return tuple(found)
    return tuple(label for _, label in sorted(zip(values, found, strict=True)))
