"""Which of the waiting texts the engine gets next: a pure choice, with its promises stated.

Two lanes wait, interactive and bulk, each in order of arrival. Every batch is built around one
text, its anchor, and filled with texts of like length, because a batch costs ``rows * longest``
tokens. Anchors take turns, so that nothing is passed over for ever:

====  ==========================================
turn  anchor
====  ==========================================
0     the oldest interactive text
1     the interactive text of nearest deadline
2     the oldest interactive text
3     the oldest bulk text
====  ==========================================

An empty lane leaves its turn to the other. A text with ``n`` older ones in its lane is therefore in
one of the next ``2 * (n + 1)`` batches when it is interactive, ``4 * (n + 1)`` when it is bulk,
whatever arrives meanwhile (tests/serve/batching/test_batch_selection.py).
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from typing import Final, Protocol, TypeVar

__all__ = ["TURNS", "WINDOW", "Waiting", "take_batch"]

WINDOW: Final = 512
"""How many of the oldest texts of a lane are looked at; sorting them costs about 0.2 ms."""

TURNS: Final = 4
"""Batches after which the anchors repeat."""

_DEADLINE_TURN: Final = 1
_BULK_TURN: Final = 3


class Waiting(Protocol):
    """What the choice needs to know of a waiting text."""

    @property
    def length(self) -> int:
        """Tokens that the engine computes for it."""
        ...

    @property
    def deadline(self) -> float:
        """When its caller gives up, on any one clock; infinity for never."""
        ...


T = TypeVar("T", bound=Waiting)


def take_batch(
    waiting: deque[T],
    budget: int,
    window: int = WINDOW,
    *,
    bulk: deque[T] | None = None,
    turn: int = 0,
    least_useful: float = 0.0,
) -> list[T]:
    """Remove and return the next batch: interactive texts, then bulk, each in order of arrival.

    It never costs more than *budget* padded tokens, unless its only text is longer. Interactive
    texts fill it first, then bulk ones. least_useful: a text joins only while this share of the
    batch is no padding; 0 fills the budget at any price, which a GPU likes and a CPU does not.
    window: how many of the oldest texts of each lane may join.
    turn: which batch this is, counted on by one each time.
    """
    bulk = deque() if bulk is None else bulk
    anchored = bulk if (bulk and turn % TURNS == _BULK_TURN) or not waiting else waiting
    if not anchored:
        return []
    lanes = {False: _oldest(waiting, window), True: _oldest(bulk, window)}
    first = lanes[anchored is bulk]
    place = 0
    if turn % TURNS == _DEADLINE_TURN and anchored is waiting:
        place = min(range(len(first)), key=lambda i: first[i].deadline)
    growth = _Growth(first[place].length, budget, least_useful)
    chosen: dict[bool, set[int]] = {}
    for is_bulk, candidates in lanes.items():
        own = place if candidates is first else None
        chosen[is_bulk] = growth.fill([item.length for item in candidates], own)
    batch = []
    for is_bulk, lane in ((False, waiting), (True, bulk)):
        batch += [lanes[is_bulk][i] for i in sorted(chosen[is_bulk])]
        left = [item for i, item in enumerate(lanes[is_bulk]) if i not in chosen[is_bulk]]
        lane.extendleft(reversed(left))
    return batch


def _oldest(lane: deque[T], window: int) -> list[T]:
    return [lane.popleft() for _ in range(min(window, len(lane)))]


class _Growth:
    """A batch that grows around its anchor: rows, longest, and how many of its tokens are texts."""

    def __init__(self, length: int, budget: int, least_useful: float) -> None:
        self._rows = 1
        self._longest = length
        self._useful = length
        self._budget = budget
        self._least_useful = least_useful

    def fill(self, lengths: list[int], anchor: int | None) -> set[int]:
        """Take what fits from one lane, nearest in length first, and return its places.

        anchor: the place of the text that the batch was begun with, if it is of this lane.
        """
        order = sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
        ordered = [lengths[i] for i in order]
        if anchor is None:
            low = bisect_left(ordered, self._longest)  # the oldest of equal length first
            high = low - 1
        else:
            low = order.index(anchor, bisect_left(ordered, lengths[anchor]))
            high = low
        while True:
            # Grow to the side that adds less padding: a shorter row is padded itself, a longer one
            # pads every row before it.
            shorter = self._fits(ordered[low - 1]) if low > 0 else None
            longer = self._fits(ordered[high + 1]) if high + 1 < len(ordered) else None
            if shorter is None and longer is None:
                return {order[k] for k in range(low, high + 1)}
            if longer is None or (shorter is not None and shorter <= longer):
                low -= 1
                self._add(ordered[low])
            else:
                high += 1
                self._add(ordered[high])

    def _fits(self, length: int) -> int | None:
        """Return the padding that a text of *length* adds, None where it may not join."""
        longest = max(self._longest, length)
        cost = longest * (self._rows + 1)
        if cost > self._budget or self._useful + length < self._least_useful * cost:
            return None
        return cost - self._longest * self._rows - length

    def _add(self, length: int) -> None:
        self._rows += 1
        self._useful += length
        self._longest = max(self._longest, length)
