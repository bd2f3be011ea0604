"""Chooses which of the waiting texts the engine gets next. The choice is a pure function.

Texts wait in two queues, interactive and bulk. In each, callers take turns (`fair_queue`). A batch
costs ``rows * longest`` tokens, so it is built around one text, its anchor, and filled with texts
of similar length. The kind of anchor changes from batch to batch, so that no text waits for ever:

====  ==========================================================
turn  anchor
====  ==========================================================
0     the oldest interactive text of the caller whose turn it is
1     the interactive text with the nearest deadline
2     as 0, for the next caller
3     the oldest bulk text of the caller whose turn it is
====  ==========================================================

An empty queue passes its turn to the other. Let ``c`` be the most callers that wait in a queue at a
time, and ``n`` the number of older texts of the same caller there. Then an interactive text is in
one of the next ``2 * c * (n + 1)`` batches, and a bulk text in one of the next ``4 * c * (n + 1)``,
whatever arrives in the meantime (tests/serve/batching/test_batch_selection.py).
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Final, TypeVar

from sentimill.batching.fair_queue import FairQueue, Waiting

WINDOW: Final = 512
"""How many texts of a queue are candidates for a batch; sorting them costs about 0.2 ms."""

TURNS: Final = 4
"""Batches after which the anchors repeat."""

_DEADLINE_TURN: Final = 1
_BULK_TURN: Final = 3


T = TypeVar("T", bound=Waiting)


def take_batch(
    interactive: FairQueue[T],
    budget: int,
    window: int = WINDOW,
    *,
    bulk: FairQueue[T] | None = None,
    turn: int = 0,
    least_useful: float = 0.0,
) -> list[T]:
    """Remove and return the next batch, interactive texts first.

    It never costs more than *budget* padded tokens, unless its only text is longer. Bulk texts get
    what the interactive ones leave of the budget. least_useful: a text joins only if at least
    this share of the batch's tokens is then not padding. With 0 padding does not matter, which is
    fastest on a GPU but not on a CPU. window: how many texts of each queue may join. turn: the
    number of this batch; the caller adds one each time.
    """
    bulk = FairQueue() if bulk is None else bulk
    anchored = bulk if (bulk and turn % TURNS == _BULK_TURN) or not interactive else interactive
    if not anchored:
        return []
    queues = (interactive, bulk)
    candidates = [queue.oldest(window) for queue in queues]
    first = candidates[0 if anchored is interactive else 1]
    by_deadline = turn % TURNS == _DEADLINE_TURN and anchored is interactive
    place = min(range(len(first)), key=lambda i: first[i].deadline) if by_deadline else 0
    growth = _Growth(first[place].length, budget, least_useful)
    batch: list[T] = []
    for queue, texts in zip(queues, candidates, strict=True):
        own = place if queue is anchored else None
        taken = [texts[i] for i in sorted(growth.fill([text.length for text in texts], own))]
        queue.remove(taken)
        batch += taken
    if not by_deadline:
        anchored.end_turn(first[0].caller)
    return batch


class _Growth:
    """A batch that grows around its anchor: rows, longest, and how many tokens are not padding."""

    def __init__(self, length: int, budget: int, least_useful: float) -> None:
        self._rows = 1
        self._longest = length
        self._useful = length
        self._budget = budget
        self._least_useful = least_useful

    def fill(self, lengths: list[int], anchor: int | None) -> set[int]:
        """Add the texts of one queue that fit, nearest in length first, and return their places.

        anchor: the place of the batch's first text, if it is in this queue.
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
