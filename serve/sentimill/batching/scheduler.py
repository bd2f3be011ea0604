"""The queue, and the loop that keeps the engine busy.

No timer: a batch is formed when the engine has room for one, from whatever waits then, by
`lanes.take_batch`. One task on the event loop owns the queue, so there is no lock; engine calls run
in a thread.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sentimill.batching.admission import Admission
from sentimill.batching.batch_selection import WINDOW, take_batch
from sentimill.errors import DeadlineError, EngineError, UnavailableError
from sentimill.observability.metrics import Metrics

__all__ = ["Answer", "Job", "Scheduler"]

log = logging.getLogger(__name__)

_SHORT_TOKENS: Final = 32
"""Of a text: with shorter ones, a budget that is larger than a window of them is not filled."""

_PREPARED: Final = 1
"""Batches handed to the engine's threads that wait behind those that run."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one job got, in its order: logits (labels,) float32, or the error of that text."""

    logits: list[NDArray[np.float32] | EngineError]
    queue_seconds: float
    engine_seconds: float


@dataclass(eq=False, slots=True)
class Job:
    """The texts of one request, answered together.

    left: texts without an answer. waiting_texts, waiting_tokens: those that are in no batch yet.
    begun: a batch with some of them is on its way to the engine, or was.
    """

    arrived: float
    deadline: float
    done: asyncio.Future[Answer]
    logits: list[NDArray[np.float32] | EngineError | None]
    left: int
    waiting_texts: int
    waiting_tokens: int
    begun: bool = False
    queue_seconds: float = 0.0
    engine_seconds: float = 0.0


@dataclass(eq=False, slots=True)
class _Item:
    """One waiting text."""

    ids: NDArray[np.int64]
    job: Job
    place: int
    length: int

    @property
    def deadline(self) -> float:
        """When the caller gives up, on the clock of `time.monotonic`."""
        return self.job.deadline


class Scheduler:
    """Feeds an engine from a queue of jobs. All methods are for the event loop's thread."""

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
            run: ragged token ids, and how many other calls go on or wait, to logits (rows, labels);
                it is called in threads, and may raise EngineError.
            admission: told how fast the engine is.
            metrics: counts batches where they are decided.
            budget: padded tokens in one batch.
            padded_length: what the engine computes for a text of so many tokens.
            least_useful: see `lanes.take_batch`.
            computed_tokens: what the engine computes in one call for texts of so many tokens; by
                default the rows times the longest, padded.
            calls: how many calls of *run* go at once.
        """
        self._run = run
        self._admission = admission
        self._metrics = metrics
        self._budget = budget
        # Or a large budget would never be filled by short texts.
        self._window = max(WINDOW, budget // _SHORT_TOKENS)
        self._padded_length = padded_length
        self._least_useful = least_useful
        self._computed_tokens = computed_tokens or self._padded
        self._waiting: deque[_Item] = deque()
        self._bulk: deque[_Item] = deque()
        self._jobs: set[Job] = set()  # those without an answer
        self._left_behind = 0  # texts in the lanes that nobody waits for
        self._turn = 0
        self._arrived = asyncio.Event()
        self._calls = calls
        self._room = asyncio.Semaphore(calls + _PREPARED)
        self._threads = ThreadPoolExecutor(calls, thread_name_prefix="engine")
        self._busy_until = -math.inf
        self._flights: dict[asyncio.Task[None], list[_Item]] = {}
        self._loop: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to serve the queue."""
        self._loop = asyncio.create_task(self._feed(), name="batching")

    async def close(self) -> None:
        """Finish what runs, then stop. What still waits gets UnavailableError."""
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)
            self._loop = None  # its traceback leads back here: a cycle that holds the model
        await asyncio.gather(*self._flights, return_exceptions=True)
        for job in self._jobs:
            _fail(job, UnavailableError("the server stopped: try again", reason="DRAINING"))
        self._waiting.clear()
        self._bulk.clear()
        self._threads.shutdown()

    async def classify(
        self, rows: Sequence[NDArray[np.int64]], deadline: float | None, *, bulk: bool = False
    ) -> Answer:
        """Queue the texts of one request and return their logits when all are done.

        bulk: after interactive texts; see `lanes`. deadline: on the clock of `time.monotonic`; as
        soon as the last text would be computed after it, those that still wait are dropped. A
        caller who is cancelled has its waiting texts dropped too.

        Raises:
            DeadlineError: the deadline passed, or would, while texts were waiting.
            UnavailableError: the server stopped.
        """
        now = time.monotonic()
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        until = math.inf if deadline is None else deadline
        texts, tokens = len(rows), sum(map(len, rows))
        job = Job(now, until, future, [None] * texts, texts, texts, tokens)
        lane = self._bulk if bulk else self._waiting
        lane.extend(
            _Item(ids, job, place, self._padded_length(len(ids))) for place, ids in enumerate(rows)
        )
        self._jobs.add(job)
        self._arrived.set()
        try:
            return await future
        except asyncio.CancelledError:
            self._left_behind += job.waiting_texts
            # Not for each that goes: a connection that breaks takes thousands of calls with it.
            if 2 * self._left_behind > len(self._waiting) + len(self._bulk):
                self._sweep()
            raise
        finally:
            self._jobs.discard(job)

    def _sweep(self) -> None:
        """Take the texts that nobody waits for out of the lanes."""
        for lane in (self._waiting, self._bulk):
            wanted = [item for item in lane if not item.job.done.done()]
            self._metrics.dropped_texts.inc(len(lane) - len(wanted))
            lane.clear()
            lane.extend(wanted)
        self._left_behind = 0

    async def _feed(self) -> None:
        while True:
            await self._room.acquire()
            while not (batch := self._take_or_fail()):
                self._arrived.clear()
                await self._arrived.wait()
            flight = asyncio.create_task(self._fly(batch))
            self._flights[flight] = batch
            flight.add_done_callback(self._flights.pop)

    def _take_or_fail(self) -> list[_Item]:
        """Return the next batch; where none can be formed, fail all that wait, and serve on.

        The culprit is not known, and the texts of a batch that broke off are in no lane any more.
        """
        try:
            return self._take()
        except Exception:
            log.exception("no batch could be formed of %d requests", len(self._jobs))
            flying = Counter(item.job for item in self._flying())
            for job in self._jobs:
                if job.left > flying[job]:
                    _fail(job, EngineError("the batch was lost", reason="ENGINE_FAILED"))
            self._waiting.clear()
            self._bulk.clear()
            self._left_behind = 0
            return []

    def _flying(self) -> list[_Item]:
        """Return what the engine works on, or will without a further choice."""
        # A flight may have just ended, and still be here.
        return [i for flight, batch in self._flights.items() if not flight.done() for i in batch]

    def _take(self) -> list[_Item]:
        """Return the next batch, without texts of callers who have gone or are too late."""
        while self._waiting or self._bulk:
            if self._left_behind:
                self._sweep()
            batch = take_batch(
                self._waiting,
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

    def _give_up_late(self, batch: list[_Item]) -> None:
        """Fail the jobs in *batch* whose last text would be computed after their deadline.

        The estimate for what a job has left is the least it may take: as if nobody else waited.
        """
        now = computed = time.monotonic()
        ahead = sum(len(item.ids) for item in self._flying())
        # An idle engine is tried on any estimate: nothing else would correct one too high.
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
        """Answer that *job* is too late; what of it still waits is left out of the next batches."""
        if job.done.done():
            return
        what = "no more of it is computed" if job.begun else "nothing was computed for it"
        why = f"the deadline would pass before the answer: {what}"
        job.done.set_exception(DeadlineError(why, reason="DEADLINE_EXCEEDED"))
        self._left_behind += job.waiting_texts

    def _why_closed(self, batch: list[_Item]) -> str:
        """Say why *batch* took no more texts."""
        if not self._waiting and not self._bulk:
            return "drained"
        longest = max(item.length for item in batch)
        full = longest * (len(batch) + 1) > self._budget or len(batch) >= self._window
        return "full" if full else "unlike"

    async def _fly(self, batch: list[_Item]) -> None:
        """Run one batch in a thread of the engine and hand its results back."""
        loop = asyncio.get_running_loop()
        other_calls = len(self._flights) - 1
        try:
            ran = await loop.run_in_executor(self._threads, self._timed, batch, other_calls)
            self._settle(batch, *ran)
        except Exception:
            # Nothing that an engine does ends here; the loop must survive what does.
            log.exception("a batch of %d texts was lost", len(batch))
            for item in batch:
                _fail(item.job, EngineError("the batch was lost", reason="ENGINE_FAILED"))
        finally:
            self._room.release()

    def _settle(
        self,
        batch: list[_Item],
        alive: list[_Item],
        logits: list[NDArray[np.float32] | EngineError],
        started: float,
        seconds: float,
    ) -> None:
        """Give the texts of *alive* their *logits*, and give up what of *batch* was too late."""
        self._metrics.dropped_texts.inc(len(batch) - len(alive))
        for item in batch:
            if item.deadline <= started:
                self._give_up(item.job)
        if not alive:
            return
        lengths = [len(item.ids) for item in alive]
        useful, padded = sum(lengths), self._computed_tokens(lengths)
        busy = self._busy_seconds(started, started + seconds)
        self._admission.observe(useful, seconds, busy)
        self._metrics.observe_batch(len(alive), useful, padded, seconds, busy)
        for item, row in zip(alive, logits, strict=True):
            job = item.job
            job.logits[item.place] = row
            job.left -= 1
            job.queue_seconds = max(job.queue_seconds, started - job.arrived)
            job.engine_seconds = max(job.engine_seconds, seconds)
            if job.left == 0 and not job.done.done():
                got = [row for row in job.logits if row is not None]
                job.done.set_result(Answer(got, job.queue_seconds, job.engine_seconds))

    def _padded(self, lengths: Sequence[int]) -> int:
        return len(lengths) * self._padded_length(max(lengths))

    def _busy_seconds(self, started: float, ended: float) -> float:
        """Return for how long the engine worked that no call before this one accounted for."""
        before = self._busy_until
        self._busy_until = max(ended, before)
        return max(0.0, ended - max(started, before))

    def _timed(
        self, batch: list[_Item], other_calls: int
    ) -> tuple[list[_Item], list[NDArray[np.float32] | EngineError], float, float]:
        """Run what somebody still waits for; return those items, their logits, start and seconds.

        A batch may have waited behind another call. This is a thread of the engine, so it only
        looks: the event loop settles the others. What it looks at are facts, for an estimate that
        is too high would keep an idle engine from ever being tried.
        """
        started = time.monotonic()
        alive = [i for i in batch if not i.job.done.done() and i.deadline > started]
        logits = self._run_or_split([item.ids for item in alive], other_calls) if alive else []
        return alive, logits, started, time.monotonic() - started

    def _run_or_split(
        self, rows: list[NDArray[np.int64]], other_calls: int
    ) -> list[NDArray[np.float32] | EngineError]:
        """Run *rows*; where that fails, halve them until the culprit is alone with its error."""
        try:
            results = list(self._run(rows, other_calls))
            if len(results) != len(rows):
                why = f"the engine gave {len(results)} rows for {len(rows)} texts"
                raise EngineError(why, reason="ENGINE_FAILED")
            return [*results]
        except Exception as error:
            if len(rows) == 1:
                log.exception("engine failed on one text of %d tokens", len(rows[0]))
                self._metrics.engine_failures.inc()
                if isinstance(error, EngineError):
                    return [error]
                why = f"the engine failed with {type(error).__name__}"
                return [EngineError(why, reason="ENGINE_FAILED")]
        half = len(rows) // 2
        return self._run_or_split(rows[:half], other_calls) + self._run_or_split(
            rows[half:], other_calls
        )


def _fail(job: Job, error: Exception) -> None:
    if not job.done.done():
        job.done.set_exception(error)
