"""The queue in which callers take turns."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from sentimill.batching.fair_queue import FairQueue


@dataclass(unsafe_hash=True)
class Item:
    """A waiting text."""

    number: int
    caller: str
    length: int = 1
    deadline: float = math.inf


ITEMS = st.lists(st.sampled_from("abcd"), max_size=40).map(
    lambda callers: [Item(i, caller) for i, caller in enumerate(callers)]
)


@given(ITEMS, st.integers(1, 30))
def test_callers_share_a_window_equally(items: list[Item], count: int) -> None:
    """The window is full if it can be, and no caller has two more than one that wanted more."""
    queue = FairQueue(items)
    waiting = {caller: [i for i in items if i.caller == caller] for caller in "abcd"}

    found = queue.oldest(count)

    assert len(found) == min(count, len(items)) == len(set(found))
    assert len(queue) == len(items)
    shares = {caller: [i for i in found if i.caller == caller] for caller in "abcd"}
    for caller, share in shares.items():
        assert share == waiting[caller][: len(share)]
        if len(share) < len(waiting[caller]):
            assert all(len(other) <= len(share) + 1 for other in shares.values())


@given(ITEMS, st.integers(1, 30), st.data())
def test_what_is_removed_is_gone_and_the_rest_keeps_its_order(
    items: list[Item], count: int, data: st.DataObject
) -> None:
    """Any part of a window can be removed."""
    queue = FairQueue(items)
    window = queue.oldest(count)
    taken = [item for item in window if data.draw(st.booleans())]

    queue.remove(taken)

    left = [item for item in items if item not in taken]
    assert sorted(queue, key=lambda item: item.number) == left
    assert len(queue) == len(left)
    for caller in "abcd":
        numbers = [item.number for item in queue if item.caller == caller]
        assert numbers == sorted(numbers)


@given(ITEMS)
def test_unwanted_texts_are_dropped_and_counted(items: list[Item]) -> None:
    """A caller without a text left is no caller any more."""
    queue = FairQueue(items)

    dropped = queue.drop(lambda item: item.caller in "ab" or item.number % 2 == 0)

    left = [item for item in items if item.caller in "cd" and item.number % 2]
    assert dropped == len(items) - len(left)
    assert sorted(queue, key=lambda item: item.number) == left
    assert bool(queue) == bool(left)


def test_turns_go_round() -> None:
    """A caller whose turn has ended is last, and a new one comes behind it."""
    queue = FairQueue([Item(0, "a"), Item(1, "b"), Item(2, "a")])
    queue.end_turn("a")
    queue.extend([Item(3, "c")])

    assert [item.number for item in queue.oldest(9)] == [1, 0, 2, 3]
    queue.end_turn("gone")
    queue.clear()
    assert queue.oldest(9) == []
    assert len(queue) == 0
