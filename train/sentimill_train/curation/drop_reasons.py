"""Why rows were dropped: the reasons, a code a row, and some examples of each for the report."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from sentimill_train.data.jsonl_stream import Labelled

__all__ = ["REASONS", "Dropped", "Drops", "Reason"]

Reason = Literal[
    "unlabelled",
    "empty",
    "foreign",
    "leak",
    "near-leak",
    "conflict",
    "duplicate",
    "near-duplicate",
    "disagreement",
    "unsure",
    "wrong-label",
    "class-cap",
    "domain-cap",
    "not-chosen",
]

REASONS: Final[dict[Reason, str]] = {
    "unlabelled": "the row has no label",
    "empty": "too few words, or no text at all",
    "foreign": "surely written in another language",
    "leak": "the same text is in a held-out file",
    "near-leak": "nearly the same text is in a held-out file",
    "conflict": "the same text came with different labels, and none of them won",
    "duplicate": "the same text came before",
    "near-duplicate": "nearly the same text came before",
    "disagreement": "the teachers disagree",
    "unsure": "the teacher is not sure",
    "wrong-label": "confident learning takes the label for wrong",
    "class-cap": "its class has too many rows, and better ones",
    "domain-cap": "its domain has too many rows, and better ones",
    "not-chosen": "--keep found better or more various rows",
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
    """A reason for each row, or none. `hashes` choose the examples, so file order does not."""

    def __init__(self, codes: NDArray[np.uint8], hashes: NDArray[np.int64]) -> None:
        self.codes = codes
        self._hashes = hashes
        self._examples: dict[Reason, list[tuple[int, int, str]]] = {}

    @property
    def alive(self) -> NDArray[np.bool_]:
        """Which rows have no reason, (rows,)."""
        return np.equal(self.codes, 0)

    def rows(self) -> NDArray[np.int64]:
        """Return the rows without a reason, in order."""
        return np.flatnonzero(self.codes == 0).astype(np.int64)

    def add(self, row: int, reason: Reason, detail: str = "") -> None:
        """Drop a row. Its first reason stays."""
        if self.codes[row]:
            return
        self.codes[row] = _CODES[reason]
        heap = self._examples.setdefault(reason, [])
        entry = (-int(self._hashes[row]), row, detail)
        if len(heap) < EXAMPLES:
            heapq.heappush(heap, entry)
        elif entry > heap[0]:
            heapq.heapreplace(heap, entry)

    def add_all(self, rows: Iterable[int], reason: Reason, detail: str = "") -> None:
        """Drop many rows for the same reason."""
        for row in rows:
            self.add(int(row), reason, detail)

    def counts(self) -> dict[Reason, int]:
        """Return how many rows each reason dropped, those that dropped none left out."""
        found = np.bincount(self.codes, minlength=len(REASONS) + 1)
        return {reason: int(found[code]) for reason, code in _CODES.items() if found[code]}

    def examples(self, row_of: Callable[[int], Labelled]) -> dict[Reason, list[Dropped]]:
        """Return ten examples a reason."""
        found: dict[Reason, list[Dropped]] = {}
        for reason in REASONS:
            for _, number, detail in sorted(self._examples.get(reason, []), reverse=True):
                row = row_of(number)
                found.setdefault(reason, []).append(Dropped(row.id, row.text, row.label, detail))
        return found
