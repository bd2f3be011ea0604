"""Engine calls that overlap are timed each by itself, and together once."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentimill.batching.call_clock import CallClock, CallTime


class Steps:
    """Runs calls that begin and end as given, on a clock of its own."""

    def __init__(self) -> None:
        self.now = 0.0
        self.clock = CallClock(lambda: self.now)
        self._open: dict[int, ExitStack] = {}

    def begin(self, call: int, now: float) -> CallTime:
        """Begin *call* at *now*."""
        self.now = now
        self._open[call] = ExitStack()
        return self._open[call].enter_context(self.clock.measure())

    def end(self, call: int, now: float) -> None:
        """End *call* at *now*."""
        self.now = now
        self._open.pop(call).close()


def test_a_later_call_that_ends_first_hides_no_busy_time() -> None:
    """0 to 10 s with 5 to 6 s in it is 10 busy seconds, not 5."""
    steps = Steps()
    long, short = steps.begin(0, 0.0), steps.begin(1, 5.0)
    steps.end(1, 6.0)
    steps.end(0, 10.0)

    assert (long.seconds, short.seconds) == (10.0, 1.0)
    assert long.busy_seconds + short.busy_seconds == 10.0


@given(
    st.lists(
        st.tuples(st.integers(0, 50), st.integers(0, 20)).map(lambda c: (c[0], c[0] + c[1])),
        max_size=12,
    )
)
def test_busy_seconds_add_up_to_the_time_in_which_something_ran(
    calls: list[tuple[int, int]],
) -> None:
    """Whatever overlaps, and in whatever order the calls end."""
    steps = Steps()
    times: list[CallTime] = []
    events = [(at, kind, i) for i, ends in enumerate(calls) for kind, at in enumerate(ends)]
    for at, kind, i in sorted(events, key=lambda event: (event[0], event[1])):
        if kind == 0:
            times.append(steps.begin(i, at))
        else:
            steps.end(i, at)

    covered = {second for began, ended in calls for second in range(began, ended)}
    assert sum(time.busy_seconds for time in times) == len(covered)
    assert sorted(time.seconds for time in times) == sorted(b - a for a, b in calls)


def test_the_oldest_running_call_is_told() -> None:
    """A watchdog sees for how long a call hangs, also when others come and go."""
    steps = Steps()
    assert steps.clock.running_since is None
    steps.begin(0, 1.0)
    steps.begin(1, 3.0)
    assert steps.clock.running_since == 1.0
    steps.end(0, 4.0)
    assert steps.clock.running_since == 3.0
    steps.end(1, 5.0)
    assert steps.clock.running_since is None


def test_a_call_that_fails_is_timed_too() -> None:
    """Else a broken engine would seem to run for ever."""
    steps = Steps()
    with pytest.raises(ZeroDivisionError), steps.clock.measure() as took:
        steps.now = 2.0
        raise ZeroDivisionError

    assert (took.seconds, took.busy_seconds) == (2.0, 2.0)
    assert steps.clock.running_since is None
