"""The choice of a batch, and the loop that runs it."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from live import Gate, until
from sentimill import batching
from sentimill.admission import Admission
from sentimill.batching import Batcher
from sentimill.classifier import Classifier
from sentimill.errors import DeadlineError, EngineError, UnavailableError
from sentimill.lanes import take_batch
from sentimill.metrics import Metrics
from tiny import WORDS, graph, write_tiny_bundle


@dataclass(frozen=True)
class Item:
    """A waiting text, as `take_batch` sees it."""

    number: int
    length: int
    deadline: float = math.inf


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
BUDGETS = st.integers(1, 400)
WINDOWS = st.integers(1, 30)


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


@dataclass(frozen=True)
class Running:
    """A batcher that runs, and what it is made of."""

    batcher: Batcher
    classifier: Classifier
    gate: Gate
    metrics: Metrics
    admission: Admission

    def begin(self, *texts: str, deadline: float | None = None) -> asyncio.Task[list[object]]:
        """Send *texts* as one job; the answer is a list of logits or errors."""
        rows = [np.array([WORDS.index(word) for word in text.split()]) for text in texts]
        return asyncio.create_task(self._answer(rows, deadline))

    async def _answer(
        self, rows: Sequence[NDArray[np.int64]], deadline: float | None
    ) -> list[object]:
        answer = await self.batcher.classify(rows, deadline)
        return [one if isinstance(one, Exception) else one.tolist() for one in answer.logits]

    def value(self, name: str) -> float | None:
        """Return a metric's value now."""
        return self.metrics.registry.get_sample_value(name)


@asynccontextmanager
async def running(
    bundle: Path, *, budget: int = 4096, gated: bool = False
) -> AsyncIterator[Running]:
    """Run a batcher before a real engine; with *gated* the engine waits."""
    classifier = Classifier.load(bundle, threads=1)
    metrics = Metrics()
    gate = Gate(classifier)
    counted = Admission(max_texts=1000, max_tokens=100_000, metrics=metrics)
    batcher = Batcher(gate.run, counted, metrics, budget=budget)
    batcher.start()
    if not gated:
        gate.open()
    try:
        yield Running(batcher, classifier, gate, metrics, counted)
    finally:
        gate.open()
        await batcher.close()


GOOD, BAD, BATTERY = [0.0, 0.0, 3.0], [3.0, 0.0, 0.0], [0.0, 0.0, 0.0]


async def test_results_come_in_the_order_of_the_texts(bundle: Path) -> None:
    """Small batches and mixed lengths do not mix up the answers."""
    async with running(bundle, budget=4) as made:
        found = await made.begin("good", "bad the the the the", "battery", "good the the", "bad")

    assert found == [GOOD, BAD, BATTERY, GOOD, BAD]


async def settled() -> None:
    """Let every task that can go on do so."""
    for _ in range(20):
        await asyncio.sleep(0)


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


async def test_a_lone_text_does_not_wait_for_company(bundle: Path) -> None:
    """There is no timer: an idle engine takes what comes."""
    async with running(bundle) as made:
        assert await made.begin("good") == [GOOD]

    assert made.gate.calls == [1]


async def test_as_many_batches_run_at_once_as_suit_the_engine() -> None:
    """Their time is counted once, so the queue is known to drain twice as fast."""
    both = threading.Barrier(2)

    def run(rows: Sequence[NDArray[np.int64]], beside: int) -> NDArray[np.float32]:
        assert beside > 0
        both.wait(timeout=30)  # a call by itself would wait for ever
        time.sleep(0.05)
        return np.array([[len(row)] for row in rows], dtype=np.float32)

    metrics = Metrics()
    counted = Admission(max_texts=10, max_tokens=100, metrics=metrics)
    batcher = Batcher(run, counted, metrics, budget=3, calls=2)
    batcher.start()
    answer = await batcher.classify([np.arange(1, 1 + n) for n in (1, 2, 3, 3)], None)
    await batcher.close()

    value = metrics.registry.get_sample_value
    calls = value("sentimill_engine_seconds_sum")
    busy = value("sentimill_engine_busy_seconds_total")
    assert calls is not None and busy is not None
    found = [one.tolist() for one in answer.logits if not isinstance(one, EngineError)]
    assert found == [[1], [2], [3], [3]]
    assert busy >= 0.09
    assert calls - busy >= 0.09  # two pairs, each with 0.05 s in common


async def test_the_engine_is_told_how_many_batches_go_beside() -> None:
    """So that a lone one may take every thread, and is answered soonest."""
    told: list[int] = []
    gate = threading.Event()

    def run(rows: Sequence[NDArray[np.int64]], beside: int) -> NDArray[np.float32]:
        told.append(beside)
        assert gate.wait(30)
        return np.zeros((len(rows), 3), dtype=np.float32)

    metrics = Metrics()
    counted = Admission(max_texts=10, max_tokens=100, metrics=metrics)
    batcher = Batcher(run, counted, metrics, budget=3, calls=2)
    batcher.start()
    first = asyncio.create_task(batcher.classify([np.arange(1, 3)], None))
    await settled()
    second = asyncio.create_task(batcher.classify([np.arange(1, 3)], None))
    await settled()
    gate.set()
    await asyncio.gather(first, second)
    await batcher.close()

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

    def broken(rows: Sequence[NDArray[np.int64]], beside: int) -> NDArray[np.float32]:
        raise MemoryError("secret")

    metrics = Metrics()
    counted = Admission(max_texts=10, max_tokens=100, metrics=metrics)
    batcher = Batcher(broken, counted, metrics, budget=100)
    batcher.start()
    (found,) = (await batcher.classify([np.array([1, 2])], None)).logits
    await batcher.close()

    assert isinstance(found, EngineError)
    assert (found.reason, str(found)) == ("ENGINE_FAILED", "the engine failed with MemoryError")


async def test_an_engine_that_loses_a_row_is_an_engine_error(bundle: Path) -> None:
    """Too few answers are a failure of the engine, and nobody waits for ever."""
    metrics = Metrics()
    counted = Admission(max_texts=10, max_tokens=100, metrics=metrics)
    batcher = Batcher(
        lambda rows, beside: np.zeros((0, 3), dtype=np.float32), counted, metrics, budget=100
    )
    batcher.start()
    found = await asyncio.wait_for(batcher.classify([np.array([1, 2])] * 2, None), 30)
    await batcher.close()

    assert [type(one) for one in found.logits] == [EngineError, EngineError]


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
        hopeless = made.begin("bad", deadline=time.monotonic() + 5)
        patient = made.begin("battery", deadline=time.monotonic() + 600)
        await settled()
        made.gate.open()
        with pytest.raises(DeadlineError, match="nothing was computed"):
            await hopeless
        assert (await first, await patient) == ([GOOD], [BATTERY])


async def test_a_request_that_cannot_be_done_in_time_is_not_begun(bundle: Path) -> None:
    """Its first batch would be in time and its last would not: none is run."""
    async with running(bundle, budget=2, gated=True) as made:
        first = made.begin("good")
        await made.gate.entered()
        made.admission.observe(tokens=1, seconds=1.0, busy_seconds=1.0)
        hopeless = made.begin(*["bad"] * 9, deadline=time.monotonic() + 5)
        patient = made.begin(*["bad"] * 9, deadline=time.monotonic() + 60)
        with pytest.raises(DeadlineError, match="nothing was computed"):
            await hopeless
        made.gate.open()
        assert (await first, await patient) == ([GOOD], [BAD] * 9)

    assert sum(made.gate.calls) == 10


async def test_a_batch_waits_for_the_one_before_it(bundle: Path) -> None:
    """A call that has just begun is part of what the next one takes."""
    async with running(bundle, gated=True) as made:
        first = made.begin(*["good"] * 9)
        await made.gate.entered()
        made.admission.observe(tokens=1, seconds=1.0, busy_seconds=1.0)
        hopeless = made.begin("bad", deadline=time.monotonic() + 5)
        with pytest.raises(DeadlineError, match="nothing was computed"):
            await hopeless
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
        with pytest.raises(DeadlineError, match="no more of it is computed"):
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


async def test_closing_finishes_what_runs_and_refuses_what_waits(bundle: Path) -> None:
    """No caller is left without an answer."""
    async with running(bundle, gated=True, budget=1) as made:
        jobs = [made.begin("good") for _ in range(5)]
        await made.gate.entered()
        closing = asyncio.create_task(made.batcher.close())
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


async def test_times_are_told(bundle: Path) -> None:
    """A job learns how long its texts waited and how long the engine took."""
    async with running(bundle) as made:
        answer = await made.batcher.classify([np.array([4, 5])], None)

    assert answer.queue_seconds >= 0
    assert answer.engine_seconds > 0
    assert made.value("sentimill_batch_rows_count") == 1
