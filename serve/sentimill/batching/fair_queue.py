"""The waiting texts of one priority: callers take turns, each with its texts in arrival order."""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import islice
from typing import Generic, Protocol, TypeVar


class Waiting(Protocol):
    """What batching needs to know about a waiting text.

    length: tokens that the engine computes for it. deadline: when its caller gives up, on any one
    clock; infinity for never. caller: texts with the same value share one caller's turns.
    """

    length: int
    deadline: float
    caller: str


T = TypeVar("T", bound=Waiting)


class FairQueue(Generic[T]):
    """A queue in which no caller waits for all the texts of another one (fair queuing).

    The callers stand in a ring, and the first one has its turn. A new caller joins at the end.
    """

    def __init__(self, items: Iterable[T] = ()) -> None:
        self._ring: OrderedDict[str, deque[T]] = OrderedDict()
        self._size = 0
        self.extend(items)

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[T]:
        """Yield all texts, caller by caller."""
        return (item for items in self._ring.values() for item in items)

    def extend(self, items: Iterable[T]) -> None:
        """Add *items* behind those of the same caller."""
        for item in items:
            own = self._ring.get(item.caller)
            if own is None:
                own = self._ring[item.caller] = deque()
            own.append(item)
            self._size += 1

    def oldest(self, count: int) -> list[T]:
        """Return up to *count* texts without removing them; the caller of the first has its turn.

        Each caller gives its oldest texts, and all callers give equally many. Whatever a caller
        does not use of its share goes to the others.
        """
        callers = list(islice(self._ring.items(), count))
        shares: dict[str, int] = {}
        left = count
        for done, (caller, items) in enumerate(sorted(callers, key=lambda each: len(each[1]))):
            shares[caller] = min(len(items), left // (len(callers) - done))
            left -= shares[caller]
        return [item for caller, items in callers for item in islice(items, shares[caller])]

    def remove(self, taken: Collection[T]) -> None:
        """Remove *taken*, which `oldest` has just returned; the others keep their order."""
        ids = {id(item) for item in taken}
        for caller, left in Counter(item.caller for item in taken).items():
            own, passed = self._ring[caller], []
            while left:
                item = own.popleft()
                if id(item) in ids:
                    left -= 1
                else:
                    passed.append(item)
            own.extendleft(reversed(passed))
            if not own:
                del self._ring[caller]
        self._size -= len(taken)

    def drop(self, unwanted: Callable[[T], bool]) -> int:
        """Remove the *unwanted* texts, and return their number."""
        before = self._size
        for caller, items in list(self._ring.items()):
            wanted = deque(item for item in items if not unwanted(item))
            self._size -= len(items) - len(wanted)
            if wanted:
                self._ring[caller] = wanted
            else:
                del self._ring[caller]
        return before - self._size

    def end_turn(self, caller: str) -> None:
        """Send *caller* to the end of the ring, if it still waits."""
        if caller in self._ring:
            self._ring.move_to_end(caller)

    def clear(self) -> None:
        """Remove everything."""
        self._ring.clear()
        self._size = 0
