"""Slices of a set by kind of review, which show where a model is weak."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import PurePath
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from sentimill_train.data.schema import Example
from sentimill_train.metrics.classification import Answers, macro_f1_of
from sentimill_train.metrics.intervals import Figure, share

MIN_ROWS: Final = 20
"""Smaller slices are left out, because their intervals can span more than 40 points."""

_LENGTHS: Final = ((10, "1-10"), (50, "11-50"), (120, "51-120"), (250, "121-250"))
# Negation cues of English: Councill, McDonald and Velikovich 2010, table 1, without the rare ones,
# and with the spellings that reviews use for n't.
_NEGATION: Final = re.compile(
    r"\b(?:no|not|never|none|nobody|nothing|nowhere|neither|nor|cannot|without|lacks?|lacking|"
    r"hardly|barely|scarcely|(?:do|does|did|is|are|was|were|has|have|had|wo|would|ca|could|should|"
    r"ai|need|must)n['\u2019]?t)\b",
    re.IGNORECASE,
)
_EMOJI: Final = re.compile(
    "[\u2600-\u27bf\u2b50\u2b55\U0001f1e6-\U0001f1ff\U0001f300-\U0001faff]"
    "|[:;=]['-]?(?:[()DPp|]|/(?!/))(?!\\w)"
)
_WORD: Final = re.compile(r"[^\W\d_]{2,}")


class Slice(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of review on one set.

    kind, value: such as `negation`, `yes`. macro_f1: over the labels that occur in the slice; None
    if there is only one. confidence: mean; if it is above accuracy, the model is overconfident
    here. weak: the whole interval of its accuracy is below the accuracy on the other rows, which
    are at least `MIN_ROWS`.
    """

    kind: str
    value: str
    accuracy: Figure
    macro_f1: float | None
    confidence: float
    weak: bool


def _length(example: Example) -> str:
    words = len(example.text.split())
    name = next((name for most, name in _LENGTHS if words <= most), "over 250")
    return f"{name} words"


def _capitals(example: Example) -> str:
    words = _WORD.findall(example.text)
    upper = sum(word.isupper() for word in words)
    if words and upper == len(words):
        return "all"
    return "some words" if any(len(word) > 3 and word.isupper() for word in words) else "none"


def _yes(found: bool) -> str:
    return "yes" if found else "no"


_KINDS: Final[dict[str, Callable[[Example], str | None]]] = {
    "length": _length,
    "source": lambda example: PurePath(example.source).name,
    "domain": lambda example: example.domain,
    "stars": lambda example: None if example.stars is None else str(example.stars),
    "negation": lambda example: _yes(bool(_NEGATION.search(example.text))),
    "capitals": _capitals,
    "emoji": lambda example: _yes(bool(_EMOJI.search(example.text))),
    "non-ASCII": lambda example: _yes(not example.text.isascii()),
    "question": lambda example: _yes("?" in example.text),
}


def kinds_of(example: Example) -> dict[str, str]:
    """Return the kinds that a review belongs to, such as {"length": "1-10 words", ...}."""
    found = {kind: value(example) for kind, value in _KINDS.items()}
    return {kind: value for kind, value in found.items() if value is not None}


def slice_by_kind(examples: Sequence[Example], answers: Answers) -> list[Slice]:
    """Return every slice of at least `MIN_ROWS` rows; a kind with only one value is left out."""
    kinds = [kinds_of(example) for example in examples]
    found: list[Slice] = []
    for kind in _KINDS:
        values = np.array([row.get(kind, "") for row in kinds])
        present = sorted({*values.tolist()} - {""}, key=_place)
        insides = {value: values == value for value in present if len(present) > 1}
        found += [
            _slice(kind, value, inside, answers)
            for value, inside in insides.items()
            if inside.sum() >= MIN_ROWS
        ]
    return found


def _slice(kind: str, value: str, inside: NDArray[np.bool_], answers: Answers) -> Slice:
    part, rest = answers.take(inside), answers.correct[~inside]
    accuracy = share(int(part.correct.sum()), len(part.gold))
    several = len(np.unique(part.gold)) > 1
    return Slice(
        kind=kind,
        value=value,
        accuracy=accuracy,
        macro_f1=macro_f1_of(part.predicted, part.gold) if several else None,
        confidence=float(part.confidence.mean()),
        weak=len(rest) >= MIN_ROWS and accuracy.high < float(rest.mean()),
    )


def _place(value: str) -> tuple[float, str]:
    """Return a sort key: by the first number, then by name, so that lengths come in order."""
    number = re.search(r"\d+", value)
    rank = float(number[0]) if number else -1.0
    return (rank + 0.5 if value.startswith("over") else rank, value)
