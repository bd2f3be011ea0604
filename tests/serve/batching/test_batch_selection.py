"""The choice of a batch over two lanes: what it promises whatever arrives."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentimill.batching.batch_selection import TURNS, take_batch


@dataclass(frozen=True)
class Item:
    """A waiting text."""

    number: int
    length: int
    bulk: bool = False
    deadline: float = math.inf


@dataclass
class Lanes:
    """Two lanes, and the turn."""

    waiting: deque[Item]
    bulk: deque[Item]
    turn: int = 0

    def put(self, items: list[Item]) -> None:
        """Let *items* arrive."""
        for item in items:
            (self.bulk if item.bulk else self.waiting).append(item)

    def take(self, budget: int, window: int, least_useful: float) -> list[Item]:
        """Take the next batch."""
        batch = take_batch(
            self.waiting, budget, window, bulk=self.bulk, turn=self.turn, least_useful=least_useful
        )
        self.turn += 1
        return batch


ITEMS = st.lists(
    st.tuples(st.integers(1, 60), st.booleans(), st.floats(0, 100)), min_size=1, max_size=60
).map(lambda made: [Item(i, *rest) for i, rest in enumerate(made)])
BUDGETS = st.integers(1, 300)
WINDOWS = st.integers(1, 20)
SHARES = st.sampled_from([0.0, 0.5, 0.8, 1.0])


def lanes_of(items: list[Item], turn: int = 0) -> Lanes:
    """Return lanes in which *items* wait."""
    lanes = Lanes(deque(), deque(), turn)
    lanes.put(items)
    return lanes


@given(ITEMS, BUDGETS, WINDOWS, SHARES)
def test_everything_is_taken_once_within_budget_and_share(
    items: list[Item], budget: int, window: int, share: float
) -> None:
    """Nothing is lost, nothing twice; only a single text passes the budget; padding is bounded."""
    lanes = lanes_of(items)
    taken: list[Item] = []
    while batch := lanes.take(budget, window, share):
        cost = len(batch) * max(item.length for item in batch)
        assert len(batch) == 1 or cost <= budget
        assert sum(item.length for item in batch) >= share * cost
        taken += batch

    assert sorted(item.number for item in taken) == list(range(len(items)))
    assert not lanes.waiting
    assert not lanes.bulk


@given(ITEMS, BUDGETS, WINDOWS, st.integers(0, TURNS - 1))
def test_what_is_passed_over_keeps_its_order(
    items: list[Item], budget: int, window: int, turn: int
) -> None:
    """Each lane stays in order of arrival."""
    lanes = lanes_of(items, turn)
    lanes.take(budget, window, 0.0)

    for lane in (lanes.waiting, lanes.bulk):
        assert [item.number for item in lane] == sorted(item.number for item in lane)


@given(
    ITEMS,
    st.lists(st.tuples(st.integers(1, 60), st.booleans(), st.floats(0, 100)), max_size=8),
    BUDGETS,
    WINDOWS,
    st.integers(0, TURNS - 1),
    SHARES,
)
def test_nobody_is_passed_over_for_longer_than_stated(
    items: list[Item],
    rush: list[tuple[int, bool, float]],
    budget: int,
    window: int,
    turn: int,
    share: float,
) -> None:
    """Behind n others: 2 (n + 1) batches for an interactive text, 4 (n + 1) for bulk."""
    lanes = lanes_of(items, turn)
    bound = {}
    for lane, batches in ((lanes.waiting, 2), (lanes.bulk, 4)):
        bound.update({item.number: batches * (n + 1) for n, item in enumerate(lane)})
    number = len(items)
    for count in range(1, max(bound.values()) + 1):
        for item in lanes.take(budget, window, share):
            assert count <= bound.pop(item.number, math.inf)
        assert all(count < left for left in bound.values())
        lanes.put([Item(number + i, *rest) for i, rest in enumerate(rush)])
        number += len(rush)

    assert not bound


def test_interactive_goes_before_bulk() -> None:
    """Bulk takes what interactive texts leave of a batch."""
    lanes = lanes_of([Item(0, 5, bulk=True), Item(1, 5), Item(2, 5, bulk=True), Item(3, 5)])

    assert [item.number for item in lanes.take(15, 9, 0.0)] == [1, 3, 0]


def test_bulk_has_every_fourth_turn() -> None:
    """An endless stream of interactive texts does not starve it."""
    lanes = lanes_of([Item(0, 5, bulk=True), *(Item(i, 5) for i in range(1, 9))])

    found = [lanes.take(5, 9, 0.0)[0].number for _ in range(4)]

    assert found == [1, 2, 3, 0]


def test_the_nearest_deadline_has_a_turn() -> None:
    """A text in a hurry overtakes older ones every fourth batch."""
    lanes = lanes_of([Item(0, 5), Item(1, 5, deadline=9.0), Item(2, 5, deadline=3.0)], turn=1)

    assert [item.number for item in lanes.take(5, 9, 0.0)] == [2]


@pytest.mark.parametrize(("share", "expected"), [(0.0, [0, 1, 2]), (0.7, [0, 2]), (0.96, [0])])
def test_a_text_that_would_be_mostly_padding_waits_for_its_like(
    share: float, expected: list[int]
) -> None:
    """Lengths 100, 10 and 90: the short one joins only where padding is no object."""
    lanes = lanes_of([Item(0, 100), Item(1, 10), Item(2, 90)])

    assert [item.number for item in lanes.take(1000, 9, share)] == expected


def queue(*lengths: int) -> deque[Item]:
    """Return items of *lengths*, the oldest first."""
    return deque(Item(i, length) for i, length in enumerate(lengths))


@pytest.mark.parametrize(
    ("lengths", "budget", "window", "taken"),
    [
        ((), 10, 9, []),
        ((99,), 10, 9, [0]),
        ((5, 5, 5), 10, 9, [0, 1]),
        ((5, 50, 5), 10, 9, [0, 2]),
        ((50, 5, 5), 10, 9, [0]),
        ((4, 9, 5, 4), 20, 9, [0, 2, 3]),
        ((4, 9, 3, 1), 12, 9, [0, 2, 3]),
        ((5, 5), 10, 1, [0]),
    ],
)
def test_take_batch_chooses(
    lengths: tuple[int, ...], budget: int, window: int, taken: list[int]
) -> None:
    """Cases of the policy: the oldest, and those of like length that fit with it."""
    assert [item.number for item in take_batch(queue(*lengths), budget, window)] == taken


LENGTHS = st.lists(st.integers(1, 80), min_size=1, max_size=80)


@given(LENGTHS, BUDGETS, WINDOWS)
def test_nothing_is_lost_and_nothing_taken_twice(
    lengths: list[int], budget: int, window: int
) -> None:
    """Every item is in exactly one batch."""
    waiting = queue(*lengths)
    taken: list[Item] = []
    while batch := take_batch(waiting, budget, window):
        taken.extend(batch)

    assert not waiting
    assert sorted(item.number for item in taken) == list(range(len(lengths)))


@given(LENGTHS, BUDGETS, WINDOWS)
def test_the_budget_is_held_unless_single(lengths: list[int], budget: int, window: int) -> None:
    """Rows times longest stays within the budget; only one long text alone may pass it."""
    waiting = queue(*lengths)
    while batch := take_batch(waiting, budget, window):
        assert len(batch) == 1 or len(batch) * max(item.length for item in batch) <= budget


@given(LENGTHS, BUDGETS, WINDOWS)
def test_the_oldest_is_always_taken(lengths: list[int], budget: int, window: int) -> None:
    """So nobody starves, however odd the length."""
    waiting = queue(*lengths)
    while waiting:
        oldest = waiting[0]
        assert take_batch(waiting, budget, window)[0] is oldest


@given(LENGTHS, BUDGETS, WINDOWS)
def test_the_rest_keeps_its_order(lengths: list[int], budget: int, window: int) -> None:
    """What is passed over waits where it stood, and a batch keeps arrival order itself."""
    waiting = queue(*lengths)
    batch = take_batch(waiting, budget, window)

    assert [item.number for item in waiting] == sorted(item.number for item in waiting)
    assert [item.number for item in batch] == sorted(item.number for item in batch)


@given(LENGTHS, BUDGETS, WINDOWS)
def test_only_the_window_is_searched(lengths: list[int], budget: int, window: int) -> None:
    """The choice costs the same however long the queue is."""
    batch = take_batch(queue(*lengths), budget, window)

    assert all(item.number < window for item in batch)
