"""The choice of a batch over two queues: what it promises whatever arrives."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentimill.batching.batch_selection import TURNS, take_batch
from sentimill.batching.fair_queue import FairQueue


@dataclass(unsafe_hash=True)
class Item:
    """A waiting text."""

    number: int
    length: int
    bulk: bool = False
    deadline: float = math.inf
    caller: str = ""


@dataclass
class Queues:
    """Two queues, and the turn."""

    waiting: FairQueue[Item]
    bulk: FairQueue[Item]
    turn: int = 0

    def put(self, items: list[Item]) -> None:
        """Let *items* arrive."""
        for item in items:
            (self.bulk if item.bulk else self.waiting).extend([item])

    def take(self, budget: int, window: int, least_useful: float) -> list[Item]:
        """Take the next batch."""
        batch = take_batch(
            self.waiting, budget, window, bulk=self.bulk, turn=self.turn, least_useful=least_useful
        )
        self.turn += 1
        return batch


DRAWN = st.tuples(st.integers(1, 60), st.booleans(), st.floats(0, 100), st.sampled_from("abc"))
ITEMS = st.lists(DRAWN, min_size=1, max_size=60).map(
    lambda made: [Item(i, *rest) for i, rest in enumerate(made)]
)
BUDGETS = st.integers(1, 300)
WINDOWS = st.integers(1, 20)
SHARES = st.sampled_from([0.0, 0.5, 0.8, 1.0])


def queues_of(items: list[Item], turn: int = 0) -> Queues:
    """Return queues in which *items* wait."""
    queues = Queues(FairQueue(), FairQueue(), turn)
    queues.put(items)
    return queues


@given(ITEMS, BUDGETS, WINDOWS, SHARES)
def test_everything_is_taken_once_within_budget_and_share(
    items: list[Item], budget: int, window: int, share: float
) -> None:
    """Nothing is lost, nothing twice; only a single text passes the budget; padding is bounded."""
    queues = queues_of(items)
    taken: list[Item] = []
    while batch := queues.take(budget, window, share):
        cost = len(batch) * max(item.length for item in batch)
        assert len(batch) == 1 or cost <= budget
        assert sum(item.length for item in batch) >= share * cost
        taken += batch

    assert sorted(item.number for item in taken) == list(range(len(items)))
    assert not queues.waiting
    assert not queues.bulk


@given(ITEMS, BUDGETS, WINDOWS, st.integers(0, TURNS - 1))
def test_what_is_passed_over_keeps_its_order(
    items: list[Item], budget: int, window: int, turn: int
) -> None:
    """In each queue the texts of one caller stay in order of arrival."""
    queues = queues_of(items, turn)
    queues.take(budget, window, 0.0)

    for queue in (queues.waiting, queues.bulk):
        for caller in "abc":
            left = [item.number for item in queue if item.caller == caller]
            assert left == sorted(left)


@given(
    ITEMS,
    st.lists(DRAWN, max_size=8),
    BUDGETS,
    WINDOWS,
    st.integers(0, TURNS - 1),
    SHARES,
)
def test_nobody_is_passed_over_for_longer_than_stated(
    items: list[Item],
    rush: list[tuple[int, bool, float, str]],
    budget: int,
    window: int,
    turn: int,
    share: float,
) -> None:
    """Behind n own texts, c callers: 2 c (n + 1) batches when interactive, 4 c (n + 1) in bulk."""
    queues = queues_of(items, turn)
    come = [*items, *(Item(-1, *rest) for rest in rush)]
    bound = {}
    for queue, batches in ((queues.waiting, 2), (queues.bulk, 4)):
        callers = len({item.caller for item in come if item.bulk == (queue is queues.bulk)})
        older: Counter[str] = Counter()
        for item in queue:
            bound[item.number] = batches * callers * (older[item.caller] + 1)
            older[item.caller] += 1
    number = len(items)
    for count in range(1, max(bound.values()) + 1):
        for item in queues.take(budget, window, share):
            assert count <= bound.pop(item.number, math.inf)
        assert all(count < left for left in bound.values())
        queues.put([Item(number + i, *rest) for i, rest in enumerate(rush)])
        number += len(rush)

    assert not bound


def test_interactive_goes_before_bulk() -> None:
    """Bulk takes what interactive texts leave of a batch."""
    queues = queues_of([Item(0, 5, bulk=True), Item(1, 5), Item(2, 5, bulk=True), Item(3, 5)])

    assert [item.number for item in queues.take(15, 9, 0.0)] == [1, 3, 0]


def test_bulk_has_every_fourth_turn() -> None:
    """An endless stream of interactive texts does not starve it."""
    queues = queues_of([Item(0, 5, bulk=True), *(Item(i, 5) for i in range(1, 9))])

    found = [queues.take(5, 9, 0.0)[0].number for _ in range(4)]

    assert found == [1, 2, 3, 0]


def test_callers_take_turns() -> None:
    """Whoever sends many texts at once makes nobody wait for all of them."""
    many = [Item(i, 5, caller="many") for i in range(9)]
    queues = queues_of([*many, Item(9, 5, caller="one"), Item(10, 5, caller="two")])

    found = [queues.take(5, 9, 0.0)[0].number for _ in range(5)]

    assert found == [0, 9, 10, 1, 2]


def test_a_new_caller_is_looked_at_behind_a_long_queue() -> None:
    """The window holds as many texts of each caller, however many one of them has."""
    many = [Item(i, 5, caller="many") for i in range(20)]
    queues = queues_of([*many, Item(20, 5, caller="one"), Item(21, 5, caller="one")])

    assert [item.number for item in queues.take(20, 4, 0.0)] == [0, 1, 20, 21]


def test_the_nearest_deadline_has_a_turn() -> None:
    """A text in a hurry overtakes older ones every fourth batch."""
    queues = queues_of([Item(0, 5), Item(1, 5, deadline=9.0), Item(2, 5, deadline=3.0)], turn=1)

    assert [item.number for item in queues.take(5, 9, 0.0)] == [2]


@pytest.mark.parametrize(("share", "expected"), [(0.0, [0, 1, 2]), (0.7, [0, 2]), (0.96, [0])])
def test_a_text_that_would_be_mostly_padding_waits_for_its_like(
    share: float, expected: list[int]
) -> None:
    """Lengths 100, 10 and 90: the short one joins only where padding is no object."""
    queues = queues_of([Item(0, 100), Item(1, 10), Item(2, 90)])

    assert [item.number for item in queues.take(1000, 9, share)] == expected


def queue(*lengths: int) -> FairQueue[Item]:
    """Return items of *lengths*, the oldest first."""
    return FairQueue(Item(i, length) for i, length in enumerate(lengths))


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
        oldest = next(iter(waiting))
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
