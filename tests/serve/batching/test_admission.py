"""Admission: who is let in, who is told to come back, and who is told not to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentimill.batching.admission import Admission
from sentimill.errors import InputError, UnavailableError
from sentimill.observability.metrics import Metrics


def admission(*, max_texts: int = 10, max_tokens: int = 100) -> Admission:
    """Return an admission with small limits."""
    return Admission(max_texts=max_texts, max_tokens=max_tokens, metrics=Metrics())


def test_texts_beyond_the_limit_are_refused() -> None:
    """The limit itself is allowed, and one more is not."""
    gate = admission()
    gate.enter(10)

    with pytest.raises(UnavailableError, match="1 more would exceed the limit of 10") as caught:
        gate.enter(1)

    assert caught.value.reason == "QUEUE_FULL"
    gate.leave(1, 0)
    gate.enter(1)


def test_tokens_beyond_the_limit_are_refused() -> None:
    """What is refused is not counted."""
    gate = admission()
    gate.enter_tokens(100, None)

    with pytest.raises(UnavailableError, match="100 tokens wait") as caught:
        gate.enter_tokens(1, None)

    assert (caught.value.reason, gate.tokens) == ("QUEUE_FULL", 100)


def test_what_never_fits_is_an_error_of_the_request() -> None:
    """It would be tried again for ever."""
    gate = admission()

    with pytest.raises(InputError, match="11 texts and the server never holds more than 10"):
        gate.enter(11)
    with pytest.raises(InputError, match="101 tokens") as caught:
        gate.enter_tokens(101, None)

    assert caught.value.reason == "REQUEST_TOO_LARGE"
    assert (gate.texts, gate.tokens) == (0, 0)


def test_bulk_work_leaves_room_for_interactive_calls() -> None:
    """It may fill three quarters of the queue."""
    gate = admission(max_texts=8)
    gate.enter(6, bulk=True)

    with pytest.raises(UnavailableError, match="the limit of 6"):
        gate.enter(1, bulk=True)

    gate.enter(2)


def test_a_deadline_within_half_again_of_the_wait_is_refused_at_once() -> None:
    """Work that may well come too late is not begun, not even tokenised."""
    gate = admission(max_tokens=1000)
    gate.observe(tokens=100, seconds=1.0, busy_seconds=1.0)
    gate.enter_tokens(200, None)

    with pytest.raises(UnavailableError, match=r"may take 3\.00 s") as caught:
        gate.enter(1, 1.0)

    assert (caught.value.reason, gate.texts) == ("DEADLINE_TOO_SHORT", 0)
    gate.enter(1, 3.0)


def test_the_time_of_the_texts_themselves_is_part_of_the_wait() -> None:
    """Else a request is let in and computed, and comes too late all the same."""
    gate = admission(max_tokens=1000)
    gate.observe(tokens=100, seconds=1.0, busy_seconds=1.0)
    gate.enter_tokens(100, None)

    with pytest.raises(UnavailableError, match=r"may take 3\.50 s"):
        gate.enter_tokens(200, 3.0)

    gate.enter_tokens(100, 3.0)


def test_an_idle_server_lets_a_call_in_whatever_it_expects() -> None:
    """One slow engine call would otherwise refuse every call after it, for ever."""
    gate = admission()
    gate.observe(tokens=1, seconds=60.0, busy_seconds=60.0)

    gate.enter(1, 1.0)
    gate.enter_tokens(10, 1.0)

    with pytest.raises(UnavailableError, match="may take"):
        gate.enter(1, 1.0)


def test_interactive_calls_hardly_wait_for_bulk_work() -> None:
    """A queue full of bulk work refuses a short deadline of bulk work only."""
    gate = admission(max_tokens=10_000)
    gate.observe(tokens=100, seconds=1.0, busy_seconds=1.0)
    gate.enter_tokens(6000, None, bulk=True)
    gate.enter_tokens(300, None)

    assert gate.wait_seconds() == 63.0
    assert gate.wait_seconds(bulk=False) == 4.0
    with pytest.raises(UnavailableError):
        gate.enter(1, 10.0, bulk=True)
    gate.enter(1, 10.0)


def test_a_caller_leaves_as_much_free_as_it_holds() -> None:
    """One that comes later always finds a place; the greedy one is told to come back."""
    gate = admission(max_texts=100, max_tokens=1000)
    gate.enter(30, caller="greedy")
    gate.enter(20, caller="greedy")

    with pytest.raises(UnavailableError, match="50 texts of this caller wait") as caught:
        gate.enter(1, caller="greedy")

    assert (caught.value.reason, gate.texts) == ("CALLER_SHARE_FULL", 50)
    gate.enter(50, caller="other")
    gate.leave(30, 0, caller="greedy")
    gate.enter(5, caller="greedy")


def test_tokens_are_shared_as_texts_are() -> None:
    """Few long texts are as greedy as many short ones."""
    gate = admission(max_texts=100, max_tokens=1000)
    gate.enter_tokens(500, None, caller="greedy")

    with pytest.raises(UnavailableError, match="500 tokens of this caller wait"):
        gate.enter_tokens(1, None, caller="greedy")

    gate.enter_tokens(500, None, caller="other")


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 40), st.booleans()), max_size=60))
def test_no_caller_ever_takes_more_than_it_leaves(calls: list[tuple[str, int, bool]]) -> None:
    """Held by hypothesis for texts and tokens, interactive and bulk, with requests that end."""
    gate = admission(max_texts=100, max_tokens=100)
    held: list[tuple[str, int, bool]] = []
    for caller, size, ends in calls:
        if ends and held:
            done, count, bulk = held.pop(0)
            gate.leave(count, count, bulk=bulk, caller=done)
            continue
        own = sum(count for name, count, _ in held if name == caller)
        free = 100 - sum(count for _, count, _ in held) - size
        try:
            gate.enter(size, caller=caller)
            gate.enter_tokens(size, None, caller=caller)
        except UnavailableError:
            assert own + size > free or free < 0
            continue
        assert own == 0 or own + size <= free
        held.append((caller, size, False))

    for caller, count, bulk in held:
        gate.leave(count, count, bulk=bulk, caller=caller)
    assert (gate.texts, gate.tokens) == (0, 0)
    gate.enter(100, caller="a")


def test_a_caller_does_not_wait_for_all_texts_of_a_greedy_one() -> None:
    """Batches take callers in turn, and the estimate knows it."""
    gate = admission(max_tokens=10_000)
    gate.observe(tokens=100, seconds=1.0, busy_seconds=1.0)
    gate.enter_tokens(4000, None, caller="greedy")

    # An average batch of each, and one token of the greedy one for each of its own ten.
    assert gate.wait_seconds(10, caller="other") == pytest.approx(2.1)
    assert gate.wait_seconds(10, caller="greedy") == pytest.approx(40)
    assert gate.wait_seconds(10) == pytest.approx(40)
    gate.enter_tokens(10, 4.0, caller="other")
    with pytest.raises(UnavailableError, match="may take"):
        gate.enter_tokens(10, 4.0, caller="greedy")


def test_before_anything_was_measured_no_wait_is_assumed() -> None:
    """The first callers are not refused on a guess."""
    gate = admission()
    gate.enter_tokens(99, None)

    assert gate.wait_seconds() == gate.seconds_for(1000) == 0
    gate.enter_tokens(1, 0.001)


def test_what_left_is_not_counted() -> None:
    """After everybody left, nothing waits."""
    gate = admission()
    gate.enter(3)
    gate.enter_tokens(30, None, bulk=True)
    gate.leave(3, 30, bulk=True)

    assert (gate.texts, gate.tokens, gate.bulk_tokens) == (0, 0, 0)


def test_calls_at_once_drain_the_queue_faster_than_each_of_them() -> None:
    """Two calls of a second each, in the same second, are twice the tokens of one."""
    gate = admission()
    gate.observe(tokens=100, seconds=1.0, busy_seconds=1.0)
    gate.observe(tokens=100, seconds=1.0, busy_seconds=0.0)

    assert gate.seconds_for(190) == pytest.approx(0.9)
    assert gate.call_seconds(100) == pytest.approx(1.0)
