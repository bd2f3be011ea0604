"""Admission, the queue, and the loop that keeps the engine busy.

No timer: a batch is formed when the engine has room for one, from whatever waits then. A batch is
padded to its longest row, so its cost is ``rows * longest`` tokens, and the budget is in that unit.
One task on the event loop owns the queue, so there is no lock; engine calls run in a thread.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from sentimill.errors import DeadlineError, EngineError, UnavailableError
from sentimill.metrics import Metrics

__all__ = ["Admission", "Answer", "Batcher", "Job", "take_batch"]

log = logging.getLogger(__name__)

WINDOW: Final = 512
"""How many of the oldest waiting texts a batch is chosen from; sorting them costs about 0.2 ms."""

_AHEAD: Final = 2
"""Batches handed to the engine's thread: one that runs and one prepared behind it."""

_RATE_DECAY: Final = 0.8
"""Weight of the past in the running estimate of tokens a second."""


class Sized(Protocol):
    """What `take_batch` needs to know of a waiting text."""

    @property
    def length(self) -> int:
        """Tokens."""
        ...


T = TypeVar("T", bound=Sized)


def take_batch(waiting: deque[T], budget: int, window: int = WINDOW) -> list[T]:
    """Remove and return the oldest item and those of most like length that fit *budget* with it.

    Chosen among the *window* oldest. The batch costs ``rows * longest`` tokens and never more than
    *budget*, unless its only item is longer. The oldest is always taken, so an item that has ``n``
    items before it is in one of the next ``n + 1`` batches at the latest.
    """
    candidates = [waiting.popleft() for _ in range(min(window, len(waiting)))]
    if not candidates:
        return []
    order = sorted(range(len(candidates)), key=lambda i: candidates[i].length)
    low = high = order.index(0)
    rows, longest = 1, candidates[0].length
    while True:
        # Grow to the side that adds less padding: a shorter row is padded itself, a longer one pads
        # every row before it.
        shorter = candidates[order[low - 1]].length if low > 0 else None
        longer = candidates[order[high + 1]].length if high + 1 < len(order) else None
        if shorter is not None and longest * (rows + 1) > budget:
            shorter = None
        if longer is not None and longer * (rows + 1) > budget:
            longer = None
        if shorter is None and longer is None:
            break
        if longer is None or (
            shorter is not None and longest - shorter <= (longer - longest) * rows
        ):
            low -= 1
        else:
            high += 1
            longest = longer
        rows += 1
    chosen = set(order[low : high + 1])
    waiting.extendleft(candidates[i] for i in range(len(candidates) - 1, -1, -1) if i not in chosen)
    return [candidates[i] for i in sorted(chosen)]


@dataclass(frozen=True, slots=True)
class Answer:
    """What one job got, in its order: logits (labels,) float32, or the error of that text."""

    logits: list[NDArray[np.float32] | EngineError]
    queue_seconds: float
    engine_seconds: float


@dataclass(eq=False, slots=True)
class Job:
    """The texts of one request, answered together."""

    arrived: float
    deadline: float | None
    done: asyncio.Future[Answer]
    logits: list[NDArray[np.float32] | EngineError | None]
    left: int
    queue_seconds: float = 0.0
    engine_seconds: float = 0.0


@dataclass(eq=False, slots=True)
class _Item:
    """One waiting text."""

    ids: NDArray[np.int64]
    job: Job
    place: int
    length: int = field(init=False)

    def __post_init__(self) -> None:
        self.length = len(self.ids)


class Admission:
    """Counts the texts and tokens that wait or run, and refuses what would pass the limits."""

    def __init__(self, *, max_texts: int, max_tokens: int, metrics: Metrics) -> None:
        self.max_texts = max_texts
        self.max_tokens = max_tokens
        self.texts = 0
        self.tokens = 0
        self.tokens_per_second: float | None = None
        self._metrics = metrics

    def enter(self, texts: int) -> None:
        """Count *texts* in. Raises UnavailableError when that would pass the limit."""
        if self.texts + texts > self.max_texts:
            raise self._full("texts", self.texts, texts, self.max_texts)
        self.texts += texts
        self._metrics.waiting_texts.set(self.texts)

    def enter_tokens(self, tokens: int, seconds_left: float | None) -> None:
        """Count *tokens* in.

        Raises:
            UnavailableError: the limit would be passed, or the estimated wait is longer than
                *seconds_left* until the caller's deadline: the work is refused before it is begun.
        """
        if self.tokens + tokens > self.max_tokens:
            raise self._full("tokens", self.tokens, tokens, self.max_tokens)
        wait = self.wait_seconds()
        if seconds_left is not None and wait > seconds_left:
            raise UnavailableError(
                f"the queue is about {wait:.2f} s long and the deadline is in {seconds_left:.2f} s:"
                " try again later or with a longer deadline",
                reason="DEADLINE_TOO_SHORT",
            )
        self.tokens += tokens
        self._metrics.waiting_tokens.set(self.tokens)

    def leave(self, texts: int, tokens: int) -> None:
        """Count out what was counted in."""
        self.texts -= texts
        self.tokens -= tokens
        self._metrics.waiting_texts.set(self.texts)
        self._metrics.waiting_tokens.set(self.tokens)

    def wait_seconds(self) -> float:
        """Estimate how long a text that came now would wait; 0 before anything was measured."""
        return self.tokens / self.tokens_per_second if self.tokens_per_second else 0.0

    def observe(self, tokens: int, seconds: float) -> None:
        """Learn from one engine call how fast the queue drains."""
        rate = tokens / max(seconds, 1e-6)
        past = self.tokens_per_second
        self.tokens_per_second = (
            rate if past is None else _RATE_DECAY * past + (1 - _RATE_DECAY) * rate
        )

    def _full(self, unit: str, now: int, more: int, limit: int) -> UnavailableError:
        return UnavailableError(
            f"{now} {unit} wait, {more} more would pass the limit of {limit}: try again later",
            reason="QUEUE_FULL",
        )


class Batcher:
    """Feeds an engine from a queue of jobs. All methods are for the event loop's thread."""

    def __init__(
        self,
        run: Callable[[Sequence[NDArray[np.int64]]], NDArray[np.float32]],
        admission: Admission,
        metrics: Metrics,
        *,
        budget: int,
    ) -> None:
        """Store the parts.

        Args:
            run: ragged token ids to logits (rows, labels); it is called in a thread, one call at a
                time, and may raise EngineError.
            admission: told how fast the engine is.
            metrics: counts batches where they are decided.
            budget: padded tokens in one batch.
        """
        self._run = run
        self._admission = admission
        self._metrics = metrics
        self._budget = budget
        self._waiting: deque[_Item] = deque()
        self._arrived = asyncio.Event()
        self._room = asyncio.Semaphore(_AHEAD)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="engine")
        self._flights: set[asyncio.Task[None]] = set()
        self._loop: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to serve the queue."""
        self._loop = asyncio.create_task(self._feed(), name="batching")

    async def close(self) -> None:
        """Finish what runs, then stop. What still waits gets UnavailableError."""
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)
        await asyncio.gather(*self._flights, return_exceptions=True)
        for item in self._waiting:
            _fail(item.job, UnavailableError("the server stopped: try again", reason="DRAINING"))
        self._waiting.clear()
        self._thread.shutdown()

    async def classify(self, rows: Sequence[NDArray[np.int64]], deadline: float | None) -> Answer:
        """Queue the texts of one request and return their logits when all are done.

        deadline: on the clock of `time.monotonic`; a text that is still waiting then is dropped
        before it is computed. A caller who is cancelled has its waiting texts dropped too.

        Raises:
            DeadlineError: the deadline passed while texts were waiting.
            UnavailableError: the server stopped.
        """
        now = time.monotonic()
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        job = Job(now, deadline, future, [None] * len(rows), len(rows))
        self._waiting.extend(_Item(ids, job, place) for place, ids in enumerate(rows))
        self._arrived.set()
        return await future

    async def _feed(self) -> None:
        while True:
            await self._room.acquire()
            while not (batch := self._take()):
                self._arrived.clear()
                await self._arrived.wait()
            flight = asyncio.create_task(self._fly(batch))
            self._flights.add(flight)
            flight.add_done_callback(self._flights.discard)

    def _take(self) -> list[_Item]:
        """Return the next batch, without texts of callers who have gone or are too late."""
        while self._waiting:
            batch = take_batch(self._waiting, self._budget)
            now = time.monotonic()
            for job in {item.job for item in batch}:
                if not job.done.done() and job.deadline is not None and now >= job.deadline:
                    why = "the deadline passed while the text waited: nothing was computed for it"
                    _fail(job, DeadlineError(why, reason="DEADLINE_EXCEEDED"))
            alive = [item for item in batch if not item.job.done.done()]
            self._metrics.dropped_texts.inc(len(batch) - len(alive))
            if alive:
                return alive
        return []

    async def _fly(self, batch: list[_Item]) -> None:
        """Run one batch in the engine's thread and hand its results back."""
        loop = asyncio.get_running_loop()
        rows = [item.ids for item in batch]
        try:
            started, logits, seconds = await loop.run_in_executor(self._thread, self._timed, rows)
        finally:
            self._room.release()
        padded = len(batch) * max(item.length for item in batch)
        useful = sum(item.length for item in batch)
        self._admission.observe(useful, seconds)
        self._metrics.observe_batch(len(batch), useful, padded, seconds)
        for item, row in zip(batch, logits, strict=True):
            job = item.job
            job.logits[item.place] = row
            job.left -= 1
            job.queue_seconds = max(job.queue_seconds, started - job.arrived)
            job.engine_seconds = max(job.engine_seconds, seconds)
            if job.left == 0 and not job.done.done():
                got = [row for row in job.logits if row is not None]
                job.done.set_result(Answer(got, job.queue_seconds, job.engine_seconds))

    def _timed(
        self, rows: list[NDArray[np.int64]]
    ) -> tuple[float, list[NDArray[np.float32] | EngineError], float]:
        started = time.monotonic()
        results = self._run_or_split(rows)
        return started, results, time.monotonic() - started

    def _run_or_split(
        self, rows: list[NDArray[np.int64]]
    ) -> list[NDArray[np.float32] | EngineError]:
        """Run *rows*; where that fails, halve them until the culprit is alone with its error."""
        try:
            results = list(self._run(rows))
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
        return self._run_or_split(rows[:half]) + self._run_or_split(rows[half:])


def _fail(job: Job, error: Exception) -> None:
    if not job.done.done():
        job.done.set_exception(error)
