"""The loop that runs batches."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from numpy.typing import NDArray

from running_scheduler import BAD, BATTERY, GOOD, running, settled
from sentimill.batching import scheduler as batching
from sentimill.batching.admission import Admission
from sentimill.batching.scheduler import Scheduler
from sentimill.errors import EngineError, UnavailableError
from sentimill.observability.metrics import Metrics
from tiny_bundle import graph, write_tiny_bundle


async def test_results_come_in_the_order_of_the_texts(bundle: Path) -> None:
    """Small batches and mixed lengths do not mix up the answers."""
    async with running(bundle, budget=4) as made:
        found = await made.begin("good", "bad the the the the", "battery", "good the the", "bad")

    assert found == [GOOD, BAD, BATTERY, GOOD, BAD]


async def test_what_waits_together_runs_together(bundle: Path) -> None:
    """While the engine is busy, requests gather and share the next batch."""
    async with running(bundle, gated=True) as made:
        jobs = [made.begin("good")]
        await made.gate.entered()
        for _ in range(20):
            jobs.append(made.begin("bad"))
            await settled()
        made.gate.open()
        answers = await asyncio.gather(*jobs)

    assert answers == [[GOOD], *[[BAD]] * 20]
    # One that ran, one that was prepared behind it, and one for all the rest.
    assert len(made.gate.calls) <= 3


async def test_a_lone_text_does_not_wait_for_others(bundle: Path) -> None:
    """There is no timer: an idle engine takes what comes."""
    async with running(bundle) as made:
        assert await made.begin("good") == [GOOD]

    assert made.gate.calls == [1]


async def test_as_many_batches_run_at_once_as_suit_the_engine() -> None:
    """Their time is counted once, so the queue is known to drain twice as fast."""
    both = threading.Barrier(2)

    def run(rows: Sequence[NDArray[np.int64]], other_calls: int) -> NDArray[np.float32]:
        assert other_calls > 0
        both.wait(timeout=30)  # a call by itself would wait for ever
        time.sleep(0.05)
        return np.array([[len(row)] for row in rows], dtype=np.float32)

    metrics = Metrics()
    counted = Admission(max_texts=10, max_tokens=100, metrics=metrics)
    scheduler = Scheduler(run, counted, metrics, budget=3, calls=2)
    scheduler.start()
    answer = await scheduler.classify([np.arange(1, 1 + n) for n in (1, 2, 3, 3)], None)
    await scheduler.close()

    value = metrics.registry.get_sample_value
    calls = value("sentimill_engine_seconds_sum")
    busy = value("sentimill_engine_busy_seconds_total")
    assert calls is not None and busy is not None
    found = [one.tolist() for one in answer.logits if not isinstance(one, EngineError)]
    assert found == [[1], [2], [3], [3]]
    assert busy >= 0.09
    assert calls - busy >= 0.09  # two pairs, each with 0.05 s in common


async def test_the_engine_is_told_how_many_other_batches_run() -> None:
    """So that a lone one may take every thread, and is answered soonest."""
    told: list[int] = []
    gate = threading.Event()

    def run(rows: Sequence[NDArray[np.int64]], other_calls: int) -> NDArray[np.float32]:
        told.append(other_calls)
        assert gate.wait(30)
        return np.zeros((len(rows), 3), dtype=np.float32)

    metrics = Metrics()
    counted = Admission(max_texts=10, max_tokens=100, metrics=metrics)
    scheduler = Scheduler(run, counted, metrics, budget=3, calls=2)
    scheduler.start()
    first = asyncio.create_task(scheduler.classify([np.arange(1, 3)], None))
    await settled()
    second = asyncio.create_task(scheduler.classify([np.arange(1, 3)], None))
    await settled()
    gate.set()
    await asyncio.gather(first, second)
    await scheduler.close()

    assert sorted(told) == [0, 1]


async def test_a_failed_batch_is_halved_until_the_culprit_is_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One poisonous text gets an error, and its batch mates get their answers."""
    made = write_tiny_bundle(tmp_path / "tiny", model=graph(fail_on="poison"))
    texts = ["good", "bad", "battery", "poison", "good", "bad", "battery"]
    async with running(made.path) as server:
        with caplog.at_level(logging.CRITICAL):
            found = await server.begin(*texts)

    assert [one for one in found if not isinstance(one, EngineError)] == [
        GOOD, BAD, BATTERY, GOOD, BAD, BATTERY,
    ]  # fmt: skip
    assert isinstance(found[3], EngineError)
    assert found[3].reason == "ENGINE_FAILED"
    assert server.value("sentimill_engine_failures_total") == 1


async def test_a_failure_of_another_kind_is_an_engine_error(bundle: Path) -> None:
    """Whatever an engine raises, the caller gets our error without its details."""

    def broken(rows: Sequence[NDArray[np.int64]], other_calls: int) -> NDArray[np.float32]:
        raise MemoryError("secret")

    metrics = Metrics()
    counted = Admission(max_texts=10, max_tokens=100, metrics=metrics)
    scheduler = Scheduler(broken, counted, metrics, budget=100)
    scheduler.start()
    (found,) = (await scheduler.classify([np.array([1, 2])], None)).logits
    await scheduler.close()

    assert isinstance(found, EngineError)
    assert (found.reason, str(found)) == ("ENGINE_FAILED", "the engine failed with MemoryError")


async def test_an_engine_that_loses_a_row_is_an_engine_error(bundle: Path) -> None:
    """Too few answers are a failure of the engine, and nobody waits for ever."""
    metrics = Metrics()
    counted = Admission(max_texts=10, max_tokens=100, metrics=metrics)
    scheduler = Scheduler(
        lambda rows, other_calls: np.zeros((0, 3), dtype=np.float32), counted, metrics, budget=100
    )
    scheduler.start()
    found = await asyncio.wait_for(scheduler.classify([np.array([1, 2])] * 2, None), 30)
    await scheduler.close()

    assert [type(one) for one in found.logits] == [EngineError, EngineError]


async def test_batches_that_fail_in_a_row_are_counted() -> None:
    """A watchdog reads it; one text with an answer ends the row."""
    good = False

    def run(rows: Sequence[NDArray[np.int64]], other_calls: int) -> NDArray[np.float32]:
        if good or any(3 in row for row in rows):
            return np.zeros((len(rows), 3), dtype=np.float32)
        raise EngineError("broken", reason="ENGINE_FAILED")

    metrics = Metrics()
    counted = Admission(max_texts=10, max_tokens=100, metrics=metrics)
    scheduler = Scheduler(run, counted, metrics, budget=100)
    scheduler.start()
    found = []
    for _ in range(3):
        await scheduler.classify([np.array([1, 2])] * 4, None)
        found.append(scheduler.consecutive_failures)
    good = True
    await scheduler.classify([np.array([1, 2])], None)
    found.append(scheduler.consecutive_failures)
    await scheduler.close()

    assert found == [1, 2, 3, 0]
    assert metrics.registry.get_sample_value("sentimill_engine_failures_total") == 12


async def test_a_call_that_hangs_is_seen_and_does_not_hold_up_closing() -> None:
    """`running_since` is when it began; its caller gets an error when the time is over."""
    hangs, begun = threading.Event(), threading.Event()

    def run(rows: Sequence[NDArray[np.int64]], other_calls: int) -> NDArray[np.float32]:
        begun.set()
        assert hangs.wait(30)
        return np.zeros((len(rows), 3), dtype=np.float32)

    metrics = Metrics()
    counted = Admission(max_texts=10, max_tokens=100, metrics=metrics)
    scheduler = Scheduler(run, counted, metrics, budget=100)
    scheduler.start()
    assert scheduler.running_since is None
    before = time.monotonic()
    waits = asyncio.create_task(scheduler.classify([np.array([1, 2])], None))
    await asyncio.to_thread(begun.wait, 30)
    since = scheduler.running_since
    await asyncio.wait_for(scheduler.close(timeout_seconds=0.05), 10)
    with pytest.raises(UnavailableError, match="the server stopped"):
        await waits
    hangs.set()

    assert since is not None
    assert before <= since <= time.monotonic()


async def test_callers_take_turns_in_the_queue(bundle: Path) -> None:
    """A caller with one text does not wait for all those of a greedy one."""
    async with running(bundle, budget=1, gated=True) as made:
        first = made.begin("good")
        await made.gate.entered()
        order: list[str] = []

        async def ask(caller: str) -> None:
            await made.scheduler.classify([np.array([4])], None, caller=caller)
            order.append(caller)

        greedy = [asyncio.create_task(ask("greedy")) for _ in range(20)]
        await settled()
        modest = asyncio.create_task(ask("modest"))
        await settled()
        made.gate.open()
        await asyncio.gather(first, modest, *greedy)

    assert order.index("modest") <= 5  # one prepared, then a turn in every four batches at worst


@pytest.mark.parametrize("broken", ["observe_batch", "call_seconds", "take_batch"])
async def test_the_loop_survives_a_failure_of_its_own(
    bundle: Path, broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Before an engine call or after one: its callers get an error, the next ones an answer."""
    async with running(bundle, gated=True) as made:
        places = {"observe_batch": made.metrics, "call_seconds": made.admission}
        first = made.begin("good")
        await made.gate.entered()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(places.get(broken, batching), broken, Mock(side_effect=KeyError("odd")))
            second = made.begin("bad", "bad")
            await settled()
            made.gate.open()
            found = await asyncio.gather(first, second, return_exceptions=True)
        assert await made.begin("bad", "battery") == [BAD, BATTERY]

    reasons = [one.reason for one in found if isinstance(one, EngineError)]
    assert reasons == ["ENGINE_FAILED"] * (2 if broken == "observe_batch" else 1)
    assert found[0] == [GOOD] or broken == "observe_batch"
    assert [record.levelname for record in caplog.records].count("ERROR") >= 1


async def test_closing_finishes_what_runs_and_refuses_what_waits(bundle: Path) -> None:
    """No caller is left without an answer."""
    async with running(bundle, gated=True, budget=1) as made:
        jobs = [made.begin("good") for _ in range(5)]
        await made.gate.entered()
        closing = asyncio.create_task(made.scheduler.close())
        await settled()
        made.gate.open()
        await closing
        found = await asyncio.gather(*jobs, return_exceptions=True)

    answered = [one for one in found if one == [GOOD]]
    refused = [one for one in found if isinstance(one, UnavailableError)]
    assert len(answered) == len(made.gate.calls)
    assert len(answered) + len(refused) == 5
    assert {error.reason for error in refused} == {"DRAINING"}


async def test_a_text_gets_the_same_bits_whatever_its_batch_mates(bundle: Path) -> None:
    """Padding and position do not change an answer."""
    async with running(bundle, gated=True) as made:
        jobs = [made.begin("good battery", *["bad the"] * n) for n in range(6)]
        await made.gate.entered()
        made.gate.open()
        found = await asyncio.gather(*jobs)

    assert [answer[0] for answer in found] == [GOOD] * 6


@pytest.mark.parametrize(
    ("texts", "reasons"),
    [
        (["good"] * 4, {"drained": 1}),
        (["good"] * 6, {"full": 1, "drained": 1}),
        (["good", "bad the the the the"], {"unlike": 1, "drained": 1}),
    ],
)
async def test_it_is_counted_why_a_batch_took_no_more(
    bundle: Path, texts: list[str], reasons: dict[str, int]
) -> None:
    """Nothing waited, the budget of 4 was used up, or what waited was of other lengths."""
    async with running(bundle, budget=4) as made:
        await made.begin(*texts)

    value = made.metrics.registry.get_sample_value
    for reason in ("drained", "full", "unlike"):
        found = value("sentimill_closed_batches_total", {"reason": reason})
        assert found == reasons.get(reason, 0), reason


async def test_short_texts_fill_a_large_budget(bundle: Path) -> None:
    """As many are looked at as fill it with texts of 32 tokens."""
    async with running(bundle, budget=32_768) as made:
        await made.begin(*["good"] * 2000)

    value = made.metrics.registry.get_sample_value
    assert value("sentimill_closed_batches_total", {"reason": "full"}) == 1
    assert value("sentimill_closed_batches_total", {"reason": "unlike"}) == 0
    assert made.value("sentimill_batch_rows_count") == 2
    assert made.value("sentimill_batch_rows_sum") == 2000


@pytest.mark.parametrize(("computes", "computed"), [(None, 10), (sum, 6)])
async def test_padding_is_counted_where_it_is_computed(
    bundle: Path, computes: Callable[[Sequence[int]], int] | None, computed: int
) -> None:
    """Two texts of five tokens and of one share a batch."""
    async with running(bundle, computed_tokens=computes) as made:
        await made.begin("good", "bad the the the the")

    assert made.value("sentimill_useful_tokens_total") == 6
    assert made.value("sentimill_padded_tokens_total") == computed


async def test_times_are_told(bundle: Path) -> None:
    """A job learns how long its texts waited and how long the engine took."""
    async with running(bundle) as made:
        answer = await made.scheduler.classify([np.array([4, 5])], None)

    assert answer.queue_seconds >= 0
    assert answer.engine_seconds > 0
    assert made.value("sentimill_batch_rows_count") == 1


async def test_a_call_after_the_close_is_refused_at_once(bundle: Path) -> None:
    """A request that was being tokenized while its model was closed would wait for ever."""
    async with running(bundle) as made:
        await made.scheduler.close(0.0)
        with pytest.raises(UnavailableError, match="stopped"):
            await made.scheduler.classify([np.array([1, 2], dtype=np.int64)], None)
