"""Records why rows were dropped: a reason for each row, and examples of each for the report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sentimill_train.data.schema import Example

Reason = Literal[
    "unreadable",
    "leak",
    "near-leak",
    "conflict",
    "duplicate",
    "near-duplicate",
    "label-error",
    "class-cap",
    "domain-cap",
    "not-chosen",
]

REASONS: Final[dict[Reason, str]] = {
    "unreadable": "the row has no text that a model can read",
    "leak": "the same text is in validation, test or a held-out file",
    "near-leak": "nearly the same text is in validation, test or a held-out file",
    "conflict": "the same text occurs more often with another label",
    "duplicate": "the same text with the same label came before",
    "near-duplicate": "nearly the same text with the same label came before",
    "label-error": "--drop-label-errors: the label is probably wrong (confident learning)",
    "class-cap": "--class-ratio: its class has too many rows",
    "domain-cap": "--domain-share: its domain has too many rows",
    "not-chosen": "--keep: a random sample left it out",
}
"""In the order in which they are checked; a row keeps the first that applies."""

EXAMPLES: Final = 10

_CODES: Final[dict[Reason, int]] = {reason: k for k, reason in enumerate(REASONS, start=1)}
_DETAIL: Final[dict[Reason, str]] = {
    "leak": "equals {}",
    "near-leak": "like {}",
    "conflict": "another label is more frequent",
    "duplicate": "equals {}",
    "near-duplicate": "like {}",
}
"""The detail of an example in the report. {}: the id of the row that it repeats."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """An example of a dropped row."""

    id: str
    text: str
    label: str | None
    detail: str


class Drops:
    """A reason for each row, or none, and the row that it repeats, if any."""

    def __init__(self, rows: int) -> None:
        self._codes = np.zeros(rows, dtype=np.uint8)
        self._repeats = np.zeros(rows, dtype=np.int64)
        self.details: dict[int, str] = {}

    @property
    def alive(self) -> NDArray[np.bool_]:
        """Which rows have no reason, (rows,)."""
        return np.equal(self._codes, 0)

    def add(self, rows: ArrayLike, reason: Reason, repeats: ArrayLike = 0) -> None:
        """Drop rows. The first reason of a row stays."""
        rows = np.asarray(rows, dtype=np.int64)
        fresh = self._codes[rows] == 0
        self._repeats[rows[fresh]] = np.broadcast_to(repeats, rows.shape)[fresh]
        self._codes[rows[fresh]] = _CODES[reason]

    def counts(self) -> dict[Reason, int]:
        """Return how many rows each reason dropped, without reasons that dropped none."""
        found = np.bincount(self._codes, minlength=len(REASONS) + 1)
        return {reason: int(found[code]) for reason, code in _CODES.items() if found[code]}

    def examples(
        self, keys: NDArray[np.int64], row_of: Callable[[int], Example]
    ) -> dict[Reason, list[Dropped]]:
        """Return up to ten examples of each reason: the rows with the smallest *keys*."""
        found: dict[Reason, list[Dropped]] = {}
        for reason in self.counts():
            rows = np.flatnonzero(self._codes == _CODES[reason])
            for number in rows[np.argsort(keys[rows], kind="stable")[:EXAMPLES]].tolist():
                detail = self.details.get(number) or _DETAIL.get(reason, "").format(
                    row_of(self._repeats[number]).id
                )
                row = row_of(number)
                found.setdefault(reason, []).append(Dropped(row.id, row.text, row.label, detail))
        return found
