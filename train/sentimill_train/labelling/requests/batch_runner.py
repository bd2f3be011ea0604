"""Asks through a batch API, at half the price. Answers come within a day; the run may end earlier.

Parts within the provider's limits are written to the store, submitted, polled and collected. If a
run is killed, the next one finds its parts by the name in them, so nothing is paid for twice. The
calls to the providers are in `providers.openai_batches` and `providers.anthropic_batches`.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import uuid
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from sentimill_train.labelling.providers.teacher import Teacher
from sentimill_train.labelling.requests.budget import Budget, Price
from sentimill_train.labelling.requests.messages import BatchStatus, Failure, Key, Question
from sentimill_train.labelling.requests.rate_limit import backoff_s
from sentimill_train.labelling.requests.request_loop import (
    MakeQuestion,
    Tally,
    body_bytes,
    stored_answer,
    weigh_reply,
)
from sentimill_train.labelling.requests.response_cache import Batch, ResponseCache

_LOG: Final = logging.getLogger(__name__)

_T = TypeVar("_T")
_Call = tuple[int, Question, int]
"""A request of a part: its number, the question, and the reserved picodollars."""

_WIRE_ATTEMPTS: Final = 8
_QUESTION_ATTEMPTS: Final = 3
_LINE_BYTES: Final = 120  # the JSON around the body of a request
_BUSY: Final = "HTTP_429"


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLimits:
    """The largest size of a part, how many parts are open at once, and the polling interval.

    OpenAI allows 50,000 requests and 200 MB (API reference, "Create batch"), Anthropic 100,000 and
    256 MB ("Batch processing", both November 2026).
    """

    rows: int = 50_000
    size_bytes: int = 190_000_000
    parts_at_once: int = 4
    poll_s: float = 60.0


class BatchRunner:
    """Asks one teacher many questions through its batch API. One event loop uses it, once."""

    def __init__(
        self,
        teacher: Teacher,
        store: ResponseCache,
        budget: Budget,
        limits: BatchLimits,
        *,
        price: Price,
    ) -> None:
        self.tally = Tally()
        self.progress: Callable[[], None] = lambda: None
        self._teacher = teacher
        self._provider = teacher.batches()
        self._store = store
        self._budget = budget
        self._limits = limits
        self._rows = limits.rows
        self._parts_at_once = limits.parts_at_once
        self._price = price

        self._asked: dict[int, tuple[MakeQuestion, Question]] = {}
        self._bodies: dict[str, Mapping[str, object]] = {}
        self._under_way: set[Key] = set()
        self._again: list[MakeQuestion] = []
        self._attempts: dict[Key, int] = {}

    def stop(self, reason: str) -> None:
        """Submit nothing more and stop waiting; the provider keeps working on open parts."""
        self.tally.stopped = self.tally.stopped or reason

    async def run(self, questions: Iterable[MakeQuestion]) -> Tally:
        """Collect what earlier runs submitted, then ask until no question is left."""
        # This counts the parts of every teacher. Nothing else is reserved between two teachers.
        self._budget.reserved = self._store.reserved_in_batches()
        try:
            await self._run(iter(questions))
        except Failure as failure:  # the provider does not answer; open parts are collected later
            self.stop(failure.reason)
        return self.tally

    async def _run(self, questions: Iterator[MakeQuestion]) -> None:
        parts = self._store.open_batches(self._teacher.name)
        while parts and self.tally.stopped is None:
            parts = await self._poll(parts)
        more = True
        while self.tally.stopped is None:
            while (more or self._again) and len(parts) < self._parts_at_once:
                calls, more = self._fill(questions, more)
                if calls:
                    parts += await self._submit(calls, others=len(parts))
                if not calls or self.tally.stopped is not None:
                    break
            if not parts:
                if more or self._again:
                    self.stop("BUDGET")
                return
            parts = await self._poll(parts)

    def _fill(self, questions: Iterator[MakeQuestion], more: bool) -> tuple[list[_Call], bool]:
        """Return questions for a part up to its limits, and whether more are left."""
        calls: list[_Call] = []
        size = 0
        while len(calls) < self._rows:
            ask = self._again.pop() if self._again else next(questions, None) if more else None
            if ask is None:
                return calls, False
            question = ask(2 ** self._attempts.get(ask(1).key, 0))
            key = question.key
            if key in self._under_way or key in self.tally.failures:
                continue
            if stored_answer(self._store, self._teacher, question) is not None:
                self.tally.stored += 1
                continue
            bytes_ = body_bytes(self._teacher, question)
            size += bytes_ + _LINE_BYTES
            full = bool(calls) and size > self._limits.size_bytes
            worst = self._price.worst(question, bytes_)
            reserved = None if full else self._budget.reserve_now(worst)
            if reserved is None:
                self._again.append(ask)
                return calls, more
            number = self._store.number()
            self._asked[number] = (ask, question)
            self._under_way.add(key)
            calls.append((number, question, reserved))
        return calls, more

    async def _submit(self, calls: list[_Call], others: int) -> list[Batch]:
        """Write a part to the store and submit it; return an empty list if it was refused."""
        batch = Batch(f"sentimill-{uuid.uuid4()}", self._teacher.name, None)
        await self._store.begin_all([(n, q.key, reserved) for n, q, reserved in calls], batch)
        self.tally.calls += len(calls)
        requests = [
            self._provider.request(batch.part, number, self._teacher.body(question))
            for number, question, _ in calls
        ]
        self._bodies[batch.part] = self._teacher.body(calls[0][1])
        try:
            submit = functools.partial(self._provider.submit, batch.part, requests)
            name = await _retry(submit, at_most_once=True)
        except Failure as failure:
            if failure.at_risk:  # it may have arrived: look for it later
                await asyncio.sleep(self._limits.poll_s)
                return [batch]
            busy = failure.retry and failure.reason == _BUSY
            await self._release(batch, "UNSENT", free=busy)
            if not busy:
                raise
            self._submit_less(len(calls), others)
            return []
        await self._store.name_batch(batch.part, name)
        _LOG.info("batch submitted part=%s id=%s calls=%d", batch.part, name, len(calls))
        return [replace(batch, remote=name)]

    async def _find(self, parts: list[Batch]) -> list[Batch]:
        """Look up the parts that the provider may not have received.

        Parts that it did not receive are released. Unsure ones stay without a name.
        """
        sizes = {
            batch.part: len(self._store.open_calls(batch.part))
            for batch in parts
            if batch.remote is None
        }
        if not sizes:
            return parts
        find = functools.partial(self._provider.find, sizes, self._store.remote_batches())
        names, unsure = await _retry(find)
        left = []
        for batch in parts:
            name = batch.remote or names.get(batch.part)
            if name is None and batch.part not in unsure:
                await self._release(batch, "UNSENT")
                continue
            if batch.remote is None and name is not None:
                await self._store.name_batch(batch.part, name)
            left.append(replace(batch, remote=name))
        return left

    async def _poll(self, parts: list[Batch]) -> list[Batch]:
        """Poll every part once, collect those that are over, and return the others."""
        left = []
        too_many = 0
        parts = await self._find(parts)
        for batch in parts:
            if batch.remote is None:
                left.append(batch)
                continue
            status = await _retry(functools.partial(self._provider.status, batch.remote))
            if status.over:
                too_many = max(too_many, await self._collect(batch, status))
                self.progress()
            else:
                left.append(batch)
        if too_many:
            self._submit_less(too_many, len(left))
        if left and len(left) == len(parts) and self.tally.stopped is None:
            await asyncio.sleep(self._limits.poll_s)
        return left

    def _submit_less(self, rows: int, others: int) -> None:
        """Submit less at once, after a part of *rows* did not fit a queue with *others* parts."""
        if others:
            self._parts_at_once = others
        elif rows > 1:
            self._parts_at_once, self._rows = 1, rows // 2
        else:
            self.stop("BATCH_REFUSED")

    async def _collect(self, batch: Batch, status: BatchStatus) -> int:
        """Book every result of a part, then the requests without a result.

        Returns the rows of the part if the provider's queue was full for it, else 0.
        """
        reserved = self._store.open_calls(batch.part)
        rows = len(reserved)
        body = self._bodies.get(batch.part, {})
        for file in status.files:
            raw = await _retry(functools.partial(self._teacher.get, file))
            for line in raw.split("\n"):  # `splitlines` would split inside strings
                if line.strip():
                    number, result = self._provider.read_result(line, body)
                    if number in reserved:
                        await self._book(number, result, reserved.pop(number))
        reason = "BATCH_" + ("GONE" if status.gone else status.status.upper())
        await self._release(batch, reason, free=status.full, billed=status.gone)
        if status.refused:
            _LOG.warning("batch refused id=%s", batch.remote)
            self.stop("BATCH_REFUSED")
        return rows if status.full else 0

    async def _book(self, number: int, result: str | Failure, reserved: int) -> None:
        """Book the result of one request."""
        if isinstance(result, Failure):
            await self._store.finish(number, result.reason)
            await self._budget.settle(reserved)
            self._after(number, result)
            return
        _, question = self._asked.get(number, (None, None))
        spent, at_risk, fault = weigh_reply(
            result, question, reserved, self._teacher, self._price, self.tally
        )
        await self._store.finish(number, "REPLY", spent=spent, at_risk=at_risk, raw=result)
        await self._budget.settle(reserved, spent=spent, at_risk=at_risk)
        self._after(number, None if fault is None else Failure(reason=fault, retry=True))

    async def _release(
        self, batch: Batch, reason: str, *, free: bool = False, billed: bool = False
    ) -> None:
        """Close a part and ask its questions without a result again; they cost 0 unless *billed*.

        free: this does not count as an attempt of the questions.
        """
        self._bodies.pop(batch.part, None)
        for number, reserved in self._store.open_calls(batch.part).items():
            at_risk = reserved if billed else 0
            await self._store.finish(number, reason, at_risk=at_risk)
            await self._budget.settle(reserved, at_risk=at_risk)
            self._after(number, Failure(reason=reason, retry=True, free=free))
        await self._store.name_batch(batch.part, batch.remote, done=True)

    def _after(self, number: int, failure: Failure | None) -> None:
        """Decide whether to ask a question of this run again."""
        if number not in self._asked:
            return
        ask, question = self._asked.pop(number)
        key = question.key
        self._under_way.discard(key)
        if failure is None:
            self.tally.answered += 1
            return
        self.tally.faults[failure.reason] += 1
        if failure.fatal:
            self.stop(failure.reason)
        attempts = self._attempts.get(key, 0) + (not failure.free)
        self._attempts[key] = attempts
        if failure.retry and attempts < _QUESTION_ATTEMPTS:
            self._again.append(ask)
        else:
            self.tally.failures[key] = failure.reason


async def _retry(call: Callable[[], Awaitable[_T]], *, at_most_once: bool = False) -> _T:
    """Make a call of the batch API until it works or the attempts are used up. Raises Failure.

    at_most_once: a call that may have worked is not made again.
    """
    for attempt in range(_WIRE_ATTEMPTS):
        try:
            return await call()
        except Failure as failure:
            last = failure
            if not failure.retry or (at_most_once and failure.at_risk):
                break
        await asyncio.sleep(max(last.retry_after_s or 0.0, backoff_s(attempt)))
    raise last
