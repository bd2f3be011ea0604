"""The queue, and the loop that keeps the engine busy.

There is no timer. `take_batch` forms a batch from whatever waits when the engine can take one. One
task on the event loop owns the queue, so it needs no lock. Engine calls run in threads.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sentimill.batching.admission import Admission
from sentimill.batching.batch_selection import WINDOW, take_batch
from sentimill.batching.call_clock import CallClock, CallTime
from sentimill.batching.fair_queue import FairQueue
from sentimill.batching.jobs import Answer, Item, Job
from sentimill.engine.failures import run_or_split
from sentimill.errors import DeadlineError, EngineError, UnavailableError
from sentimill.observability.metrics import Metrics

log = logging.getLogger(__name__)

_SHORT_TOKENS: Final = 32
"""The shortest mean length of texts with which a large budget can still be filled."""

_PREPARED: Final = 1
"""Batches that wait in the thread pool behind those that run, so that the engine never idles."""

_Ran = tuple[Item, NDArray[np.float32] | EngineError]
"""A text whose caller still waited when its batch began, and its logits or its error."""


class Scheduler:
    """Feeds an engine from a queue of jobs. Call all methods in the event loop's thread.

    consecutive_failures: how many of the latest batches in a row have failed for all their texts.
    """

    def __init__(
        self,
        run: Callable[[Sequence[NDArray[np.int64]], int], NDArray[np.float32]],
        admission: Admission,
        metrics: Metrics,
        *,
        budget: int,
        padded_length: Callable[[int], int] = int,
        least_useful: float = 0.0,
        computed_tokens: Callable[[Sequence[int]], int] | None = None,
        calls: int = 1,
    ) -> None:
        """Store the parts.

        Args:
            run: takes ragged token ids and the number of other calls that run or wait; returns
                logits (rows, labels). Threads call it, and it may raise EngineError.
            admission: learns here how fast the engine is.
            metrics: counts batches where they are decided.
            budget: padded tokens in one batch.
            padded_length: the length to which the engine pads a text of so many tokens.
            least_useful: see `take_batch`.
            computed_tokens: how many tokens the engine computes in one call for texts of these
                lengths. The default is the padded size: rows times the longest.
            calls: how many calls of *run* may run at once.
        """
        self.consecutive_failures = 0
        self._run = run
        self._admission = admission
        self._metrics = metrics
        self._budget = budget
        self._window = max(WINDOW, budget // _SHORT_TOKENS)
        self._padded_length = padded_length
        self._least_useful = least_useful
        self._computed_tokens = computed_tokens or (
            lambda lengths: len(lengths) * padded_length(max(lengths))
        )
        self._interactive: FairQueue[Item] = FairQueue()
        self._bulk: FairQueue[Item] = FairQueue()
        self._jobs: set[Job] = set()  # those without an answer
        self._abandoned = 0  # texts in the queues whose callers no longer wait
        self._turn = 0
        self._arrived = asyncio.Event()
        self._calls = calls
        self._free = asyncio.Semaphore(calls + _PREPARED)
        self._threads = ThreadPoolExecutor(calls, thread_name_prefix="engine")
        self._clock = CallClock()
        self._tasks: dict[asyncio.Task[None], list[Item]] = {}  # batches that run or are prepared
        self._loop: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def running_since(self) -> float | None:
        """When the oldest engine call that still runs began, on the clock of `time.monotonic`.

        None while the engine is idle.
        """
        return self._clock.running_since

    def start(self) -> None:
        """Begin to serve the queue."""
        self._closed = False
        self._loop = asyncio.create_task(self._feed(), name="batching")

    async def close(self, timeout_seconds: float | None = None) -> None:
        """Finish the running batches, then stop. Waiting requests get UnavailableError.

        timeout_seconds: after this time, the callers of an engine call that hangs get
        UnavailableError too. Its thread keeps running: nothing in Python can end it.
        """
        self._closed = True
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)
            self._loop = None  # its traceback refers to this object: a cycle that keeps the model
        hung = set(self._tasks)
        if hung:
            _, hung = await asyncio.wait(hung, timeout=timeout_seconds)
        for job in self._jobs:
            job.fail(UnavailableError("the server stopped: try again", reason="DRAINING"))
        self._interactive.clear()
        self._bulk.clear()
        for task in hung:
            task.cancel()
        # A thread may still hang from an earlier close; waiting for it would block the event loop.
        idle = not hung and self._clock.running_since is None
        self._threads.shutdown(wait=idle, cancel_futures=True)

    async def classify(
        self,
        rows: Sequence[NDArray[np.int64]],
        deadline: float | None,
        *,
        bulk: bool = False,
        caller: str = "",
    ) -> Answer:
        """Queue the texts of one request and return their logits when all are done.

        bulk: behind interactive texts; see `batch_selection`. caller: whose share of the engine the
        request uses. deadline: on the clock of `time.monotonic`. The waiting texts of a request are
        dropped when its last text would be computed after the deadline, and when it is cancelled.

        Raises:
            DeadlineError: the deadline passed, or would, while texts were waiting.
            UnavailableError: the server stopped.
        """
        if self._closed:
            raise UnavailableError("the server stopped: try again", reason="DRAINING")
        now = time.monotonic()
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        until = math.inf if deadline is None else deadline
        texts, tokens = len(rows), sum(map(len, rows))
        job = Job(now, until, future, [None] * texts, texts, texts, tokens)
        queue = self._bulk if bulk else self._interactive
        queue.extend(
            Item(ids, job, place, self._padded_length(len(ids)), until, caller)
            for place, ids in enumerate(rows)
        )
        self._jobs.add(job)
        self._arrived.set()
        try:
            return await future
        except asyncio.CancelledError:
            self._abandoned += job.waiting_texts
            # Not after each call: one broken connection cancels thousands of calls together.
            if 2 * self._abandoned > len(self._interactive) + len(self._bulk):
                self._drop_abandoned()
            raise
        finally:
            self._jobs.discard(job)

    def _drop_abandoned(self) -> None:
        """Remove the texts whose callers no longer wait from the queues."""
        for queue in (self._interactive, self._bulk):
            self._metrics.dropped_texts.inc(queue.drop(lambda item: item.job.done.done()))
        self._abandoned = 0

    async def _feed(self) -> None:
        while True:
            await self._free.acquire()
            while not (batch := self._take_or_fail()):
                self._arrived.clear()
                await self._arrived.wait()
            task = asyncio.create_task(self._run_batch(batch))
            self._tasks[task] = batch
            task.add_done_callback(self._tasks.pop)

    def _take_or_fail(self) -> list[Item]:
        """Return the next batch; if that raises, fail all waiting requests and keep serving.

        The text that caused it is not known, and the texts of the broken batch are in no queue now.
        """
        try:
            return self._take()
        except Exception:
            log.exception("no batch could be formed from %d requests", len(self._jobs))
            running = Counter(item.job for item in self._in_engine())
            for job in self._jobs:
                if job.left > running[job]:
                    job.fail(EngineError("the batch was lost", reason="ENGINE_FAILED"))
            self._interactive.clear()
            self._bulk.clear()
            self._abandoned = 0
            return []

    def _in_engine(self) -> list[Item]:
        """Return the texts of the batches that run or are prepared."""
        # A task that has just ended may still be listed.
        return [item for task, batch in self._tasks.items() if not task.done() for item in batch]

    def _take(self) -> list[Item]:
        """Return the next batch, without texts of callers who have gone or are too late."""
        while self._interactive or self._bulk:
            if self._abandoned:
                self._drop_abandoned()
            batch = take_batch(
                self._interactive,
                self._budget,
                self._window,
                bulk=self._bulk,
                turn=self._turn,
                least_useful=self._least_useful,
            )
            self._turn += 1
            for item in batch:
                item.job.waiting_texts -= 1
                item.job.waiting_tokens -= len(item.ids)
            self._give_up_late(batch)
            alive = [item for item in batch if not item.job.done.done()]
            self._metrics.dropped_texts.inc(len(batch) - len(alive))
            if alive:
                self._metrics.closed_batches.labels(self._why_closed(batch)).inc()
                return alive
        return []

    def _give_up_late(self, batch: list[Item]) -> None:
        """Fail the jobs in *batch* whose last text would be computed after their deadline.

        The estimate for the rest of a job is a lower bound: it assumes that nobody else waits.
        """
        now = computed = time.monotonic()
        ahead = sum(len(item.ids) for item in self._in_engine())
        # An idle engine is always tried: only a call can correct an estimate that is too high.
        if ahead:
            wanted = (i for i in batch if not i.job.done.done() and i.deadline > now)
            computed += self._admission.seconds_for(ahead / self._calls)
            computed += self._admission.call_seconds(sum(len(i.ids) for i in wanted))
        for job in {item.job for item in batch}:
            rest = self._admission.seconds_for(job.waiting_tokens) if ahead else 0.0
            if computed + rest >= job.deadline:
                self._give_up(job)
            else:
                job.begun = True

    def _give_up(self, job: Job) -> None:
        """Fail *job* as too late. Its waiting texts are left out of the next batches."""
        if job.done.done():
            return
        what = "the rest is not computed" if job.begun else "nothing was computed for it"
        why = f"the deadline would pass before the answer: {what}"
        job.done.set_exception(DeadlineError(why, reason="DEADLINE_EXCEEDED"))
        self._abandoned += job.waiting_texts

    def _why_closed(self, batch: list[Item]) -> str:
        """Say why *batch* took no more texts."""
        if not self._interactive and not self._bulk:
            return "drained"
        longest = max(item.length for item in batch)
        full = longest * (len(batch) + 1) > self._budget or len(batch) >= self._window
        return "full" if full else "unlike"

    async def _run_batch(self, batch: list[Item]) -> None:
        """Run one batch in a thread of the engine and hand its results back."""
        loop = asyncio.get_running_loop()
        other_calls = len(self._tasks) - 1
        try:
            ran, took = await loop.run_in_executor(self._threads, self._call, batch, other_calls)
            self._settle(batch, ran, took)
        except Exception:
            # `_call` returns the engine's errors. The loop must survive any other error.
            log.exception("a batch of %d texts was lost", len(batch))
            for item in batch:
                item.job.fail(EngineError("the batch was lost", reason="ENGINE_FAILED"))
        finally:
            self._free.release()

    def _call(self, batch: list[Item], other_calls: int) -> tuple[list[_Ran], CallTime | None]:
        """Run the texts of *batch* that somebody still waits for, in a thread of the engine.

        The time is None if nobody waits any more, and then the engine is not called.

        A batch may have waited behind another call. This thread only skips texts; the event loop
        answers their callers. It skips none on an estimate: one that is too high would keep an idle
        engine from ever being tried.
        """
        now = time.monotonic()
        alive = [i for i in batch if not i.job.done.done() and i.deadline > now]
        if not alive:
            return [], None
        rows = [item.ids for item in alive]
        with self._clock.measure() as took:
            logits, errors = run_or_split(lambda part: self._run(part, other_calls), rows)
        if logits is None:
            return [(item, errors[i]) for i, item in enumerate(alive)], took
        answers = zip(alive, logits, strict=True)
        return [(item, errors.get(i, row)) for i, (item, row) in enumerate(answers)], took

    def _settle(self, batch: list[Item], ran: list[_Ran], took: CallTime | None) -> None:
        """Answer the texts of *ran*, and give up those of *batch* that were too late."""
        self._metrics.dropped_texts.inc(len(batch) - len(ran))
        started = took.started if took else time.monotonic()
        for item in batch:
            if item.deadline <= started:
                self._give_up(item.job)
        if took is None:
            return
        self._observe(ran, took)
        for item, row in ran:
            job = item.job
            job.logits[item.place] = row
            job.left -= 1
            job.queue_seconds = max(job.queue_seconds, started - job.arrived)
            job.engine_seconds = max(job.engine_seconds, took.seconds)
            if job.left == 0 and not job.done.done():
                got = [row for row in job.logits if row is not None]
                job.done.set_result(Answer(got, job.queue_seconds, job.engine_seconds))

    def _observe(self, ran: list[_Ran], took: CallTime) -> None:
        """Count what the batch cost, and whether the engine failed on all of it."""
        lengths = [len(item.ids) for item, _ in ran]
        failed = sum(isinstance(row, EngineError) for _, row in ran)
        self._metrics.engine_failures.inc(failed)
        self.consecutive_failures = self.consecutive_failures + 1 if failed == len(ran) else 0
        useful, padded = sum(lengths), self._computed_tokens(lengths)
        self._admission.observe(useful, took.seconds, took.busy_seconds)
        self._metrics.observe_batch(len(lengths), useful, padded, took.seconds, took.busy_seconds)
