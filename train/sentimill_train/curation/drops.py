"""Why rows were dropped: the reasons, a code for each row, and examples of each for the report."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from sentimill_train.data.schema import Example

__all__ = ["REASONS", "Dropped", "Drops", "Reason"]

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
    "label-error": "--drop-label-errors: confident learning takes the label for wrong",
    "class-cap": "--class-ratio: its class has too many rows",
    "domain-cap": "--domain-share: its domain has too many rows",
    "not-chosen": "--keep: a random sample left it out",
}
"""In the order in which they are looked for; a row keeps the first that applies."""

EXAMPLES: Final = 10

_CODES: Final[dict[Reason, int]] = {reason: k for k, reason in enumerate(REASONS, start=1)}


@dataclass(frozen=True, slots=True)
class Dropped:
    """An example of a dropped row."""

    id: str
    text: str
    label: str | None
    detail: str


class Drops:
    """A reason for each row, or none. `keys` choose the examples, so file order does not."""

    def __init__(self, keys: NDArray[np.int64]) -> None:
        self.codes = np.zeros(len(keys), dtype=np.uint8)
        self._keys = keys
        self._examples: dict[Reason, list[tuple[int, int, str]]] = {}

    @property
    def alive(self) -> NDArray[np.bool_]:
        """Which rows have no reason, (rows,)."""
        return np.equal(self.codes, 0)

    def add(self, row: int, reason: Reason, detail: str = "") -> None:
        """Drop a row. Its first reason stays."""
        if self.codes[row]:
            return
        self.codes[row] = _CODES[reason]
        heap = self._examples.setdefault(reason, [])
        entry = (-int(self._keys[row]), row, detail)
        if len(heap) < EXAMPLES:
            heapq.heappush(heap, entry)
        elif entry > heap[0]:
            heapq.heapreplace(heap, entry)

    def add_all(self, rows: Iterable[int], reason: Reason, detail: str = "") -> None:
        """Drop many rows for the same reason."""
        for row in rows:
            self.add(int(row), reason, detail)

    def counts(self) -> dict[Reason, int]:
        """Return how many rows each reason dropped, without those that dropped none."""
        found = np.bincount(self.codes, minlength=len(REASONS) + 1)
        return {reason: int(found[code]) for reason, code in _CODES.items() if found[code]}

    def examples(self, row_of: Callable[[int], Example]) -> dict[Reason, list[Dropped]]:
        """Return ten examples of each reason."""
        found: dict[Reason, list[Dropped]] = {}
        for reason in REASONS:
            for _, number, detail in sorted(self._examples.get(reason, []), reverse=True):
                row = row_of(number)
                found.setdefault(reason, []).append(Dropped(row.id, row.text, row.label, detail))
        return found
