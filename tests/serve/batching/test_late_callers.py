"""The batching loop and callers who are too late, or gone."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from live_server import until
from running_scheduler import BAD, BATTERY, GOOD, running, settled
from sentimill.errors import DeadlineError


async def test_a_text_that_is_too_late_is_dropped_before_it_is_computed(bundle: Path) -> None:
    """Its caller gets DeadlineError, and the engine never sees it."""
    async with running(bundle, gated=True) as made:
        first = made.begin("good")
        await made.gate.entered()
        late = made.begin("bad", "bad", deadline=time.monotonic() - 1)
        in_time = made.begin("battery", deadline=time.monotonic() + 60)
        await settled()
        made.gate.open()
        with pytest.raises(DeadlineError, match="nothing was computed"):
            await late
        assert (await first, await in_time) == ([GOOD], [BATTERY])

    assert made.value("sentimill_dropped_texts_total") == 2
    assert sum(made.gate.calls) == 2


async def test_a_text_that_cannot_be_done_in_time_is_not_begun(bundle: Path) -> None:
    """The engine's measured rate says so; what it would compute in vain, others need."""
    async with running(bundle, gated=True) as made:
        first = made.begin("good")
        await made.gate.entered()
        made.admission.observe(tokens=1, seconds=30.0, busy_seconds=30.0)
        too_late = made.begin("bad", deadline=time.monotonic() + 5)
        patient = made.begin("battery", deadline=time.monotonic() + 600)
        await settled()
        made.gate.open()
        with pytest.raises(DeadlineError, match="nothing was computed"):
            await too_late
        assert (await first, await patient) == ([GOOD], [BATTERY])


async def test_a_request_that_cannot_be_done_in_time_is_not_begun(bundle: Path) -> None:
    """Its first batch would be in time and its last would not: none is run."""
    async with running(bundle, budget=2, gated=True) as made:
        first = made.begin("good")
        await made.gate.entered()
        made.admission.observe(tokens=1, seconds=1.0, busy_seconds=1.0)
        too_late = made.begin(*["bad"] * 9, deadline=time.monotonic() + 5)
        patient = made.begin(*["bad"] * 9, deadline=time.monotonic() + 60)
        with pytest.raises(DeadlineError, match="nothing was computed"):
            await too_late
        made.gate.open()
        assert (await first, await patient) == ([GOOD], [BAD] * 9)

    assert sum(made.gate.calls) == 10


async def test_a_batch_waits_for_the_one_before_it(bundle: Path) -> None:
    """A call that has just begun is part of what the next one takes."""
    async with running(bundle, gated=True) as made:
        first = made.begin(*["good"] * 9)
        await made.gate.entered()
        made.admission.observe(tokens=1, seconds=1.0, busy_seconds=1.0)
        too_late = made.begin("bad", deadline=time.monotonic() + 5)
        with pytest.raises(DeadlineError, match="nothing was computed"):
            await too_late
        made.gate.open()
        await first

    assert made.gate.calls == [9]


async def test_a_request_that_was_begun_is_told_so_when_it_is_given_up(bundle: Path) -> None:
    """The engine grew slow meanwhile: the rest is not computed, and the message says no more."""
    async with running(bundle, budget=2, gated=True) as made:
        late = made.begin(*["bad"] * 9, deadline=time.monotonic() + 60)
        await made.gate.entered()
        await settled()
        made.admission.observe(tokens=1, seconds=1e3, busy_seconds=1e3)
        made.gate.open()
        with pytest.raises(DeadlineError, match="the rest is not computed"):
            await late

    dropped = made.value("sentimill_dropped_texts_total")
    assert dropped == 9 - sum(made.gate.calls)
    assert dropped >= 3  # an engine that is idle for a moment is tried once more


async def test_an_idle_engine_is_tried_whatever_is_expected_of_it(bundle: Path) -> None:
    """One slow call would otherwise drop every text after it, for ever."""
    async with running(bundle) as made:
        assert await made.begin("good") == [GOOD]
        made.admission.observe(tokens=1, seconds=1e6, busy_seconds=1e6)

        assert await made.begin("bad", deadline=time.monotonic() + 60) == [BAD]
        assert await made.begin("bad", deadline=time.monotonic() + 60) == [BAD]


async def test_a_cancelled_caller_has_its_waiting_texts_dropped(bundle: Path) -> None:
    """Nothing is computed for a caller who has gone, and its neighbours are served."""
    async with running(bundle, gated=True) as made:
        first = made.begin("good")
        await made.gate.entered()
        second = made.begin("good the the")  # may be prepared already when the caller goes
        await settled()
        gone, stays = made.begin("bad", "bad", "bad"), made.begin("battery")
        await settled()
        gone.cancel()
        await settled()
        dropped = made.value("sentimill_dropped_texts_total")
        made.gate.open()
        answers = await asyncio.gather(first, second, stays)
        assert gone.cancelled()

    assert list(answers) == [[GOOD], [GOOD], [BATTERY]]
    assert dropped == made.value("sentimill_dropped_texts_total") == 3


async def test_nothing_dead_of_a_prepared_batch_is_computed(bundle: Path) -> None:
    """Callers who left, or whose time ran out, while it waited behind another call."""
    async with running(bundle, gated=True) as made:
        first = made.begin("good")
        await made.gate.entered()
        soon = time.monotonic() + 0.2
        jobs = [
            made.begin("bad", "good"),
            made.begin("good", "good"),
            made.begin("bad", deadline=soon),
            made.begin("battery"),
        ]
        await settled()  # they are one batch now
        jobs[1].cancel()
        await until(lambda: time.monotonic() > soon)
        made.gate.open()
        answers = await asyncio.gather(first, *jobs, return_exceptions=True)

    assert [answers[0], answers[1], answers[4]] == [[GOOD], [BAD, GOOD], [BATTERY]]
    assert isinstance(answers[2], asyncio.CancelledError)
    assert isinstance(answers[3], DeadlineError)
    assert made.gate.calls == [1, 3]
    assert made.value("sentimill_dropped_texts_total") == 3
    assert made.value("sentimill_useful_tokens_total") == 4


async def test_a_prepared_batch_of_the_dead_alone_calls_no_engine(bundle: Path) -> None:
    """And the next one is served."""
    async with running(bundle, gated=True) as made:
        first = made.begin("good")
        await made.gate.entered()
        gone = made.begin("bad")
        await settled()
        gone.cancel()
        made.gate.open()
        await first
        assert await made.begin("battery") == [BATTERY]

    assert made.gate.calls == [1, 1]
    assert made.value("sentimill_batch_rows_count") == 2


async def test_texts_of_a_caller_who_has_gone_make_nobody_late(bundle: Path) -> None:
    """The expected time of a batch is that of the texts in it which somebody waits for."""
    async with running(bundle, gated=True) as made:
        first = made.begin("good")
        await made.gate.entered()
        made.admission.observe(tokens=1, seconds=30.0, busy_seconds=30.0)
        gone = made.begin(*["bad"] * 20)
        stays = made.begin("battery", deadline=time.monotonic() + 300)
        await asyncio.sleep(0)  # both are queued, and no batch is taken yet
        gone.cancel()
        await settled()
        made.gate.open()

        assert (await first, await stays) == ([GOOD], [BATTERY])


async def test_what_is_left_of_a_late_request_is_in_no_batch(bundle: Path) -> None:
    """All of its texts go with the first, also those that did not fit into its batch."""
    async with running(bundle, budget=2, gated=True) as made:
        first = made.begin("good")
        await made.gate.entered()
        late = made.begin(*["bad"] * 9, deadline=time.monotonic() - 1)
        stays = made.begin("battery", "battery")
        with pytest.raises(DeadlineError):
            await late
        made.gate.open()
        await asyncio.gather(first, stays)

    assert made.value("sentimill_dropped_texts_total") == 9
    assert made.gate.calls == [1, 2]


async def test_a_cancelled_caller_whose_batch_runs_harms_nobody(bundle: Path) -> None:
    """An answer that nobody waits for is thrown away."""
    async with running(bundle, gated=True) as made:
        gone, stays = made.begin("good"), made.begin("bad")
        await made.gate.entered()
        gone.cancel()
        made.gate.open()

        assert await stays == [BAD]
