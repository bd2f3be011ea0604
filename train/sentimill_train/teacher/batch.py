"""The batch API: half the price, an answer within a day, and a run that may end in between.

Parts within the provider's limits are written to the store, handed over, polled and collected. A
part that was handed over by a run that died is found again by the name that it carries, so nothing
is paid for twice.
"""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import msgspec

from sentimill_train.teacher.answers import read_answer
from sentimill_train.teacher.ask import NO_COST, Ask, Tally, body_bytes, stored_answer
from sentimill_train.teacher.budget import Budget, Price
from sentimill_train.teacher.client import OpenAITeacher, failure_of_status
from sentimill_train.teacher.pace import backoff_s
from sentimill_train.teacher.question import Failure, Key, Question
from sentimill_train.teacher.store import Batch, Store

__all__ = ["BatchAsker", "BatchLimits"]

_LOG: Final = logging.getLogger(__name__)

_WIRE_ATTEMPTS: Final = 8
_QUESTION_ATTEMPTS: Final = 3
_PAGE: Final = 100
_LINE_BYTES: Final = 120  # custom_id, method and url around the body of a request
_ENDPOINT: Final = "/v1/chat/completions"
_WAIT_CODES: Final = frozenset({"token_limit_exceeded"})  # too much enqueued, not a bad request
_OVER: Final = frozenset({"completed", "failed", "expired", "cancelled"})


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLimits:
    """What the provider takes in one part, and how often it is asked whether it is done.

    OpenAI: 50,000 requests and 200 MB (API reference, "Create batch", November 2026).
    """

    rows: int = 50_000
    size_bytes: int = 190_000_000
    parts_at_once: int = 4
    poll_s: float = 60.0


class _Error(msgspec.Struct):
    code: str | None = None


class _Errors(msgspec.Struct):
    data: list[_Error] | None = None


class _Remote(msgspec.Struct):
    id: str
    status: str
    output_file_id: str | None = None
    error_file_id: str | None = None
    errors: _Errors | None = None
    metadata: dict[str, str] | None = None


class _Page(msgspec.Struct):
    data: list[_Remote]
    has_more: bool = False


class _Response(msgspec.Struct):
    status_code: int
    body: msgspec.Raw = msgspec.Raw(b"null")


class _Line(msgspec.Struct):
    custom_id: str
    response: _Response | None = None
    error: _Error | None = None


class BatchAsker:
    """Asks one teacher many questions through its batch API. One event loop uses it, once."""

    def __init__(
        self,
        teacher: OpenAITeacher,
        store: Store,
        budget: Budget,
        limits: BatchLimits,
        *,
        price: Price = NO_COST,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        progress: Callable[[], None] = lambda: None,
    ) -> None:
        self.tally = Tally()
        self.progress = progress
        self._teacher = teacher
        self._store = store
        self._budget = budget
        self._limits = limits
        self._rows = limits.rows
        self._parts_at_once = limits.parts_at_once
        self._price = price
        self._sleep = sleep
        self._asked: dict[int, tuple[Ask, Question]] = {}
        self._under_way: set[Key] = set()
        self._again: list[Ask] = []
        self._attempts: dict[Key, int] = {}

    def stop(self, reason: str) -> None:
        """Hand nothing more over and stop waiting; the parts stay with the provider."""
        self.tally.stopped = self.tally.stopped or reason

    async def run(self, asks: Iterable[Ask]) -> Tally:
        """Collect what earlier runs handed over, then ask until nothing is left to ask."""
        self._budget.reserved += self._store.reserved_in_batches()
        parts = await self._adopt()
        while parts and self.tally.stopped is None:
            parts = await self._poll(parts)
        shared = iter(asks)
        more = True
        while self.tally.stopped is None:
            while (more or self._again) and len(parts) < self._parts_at_once:
                calls, more = self._fill(shared, more)
                if not calls:
                    break
                parts += await self._hand_over(calls)
            if not parts:
                if more or self._again:
                    self.stop("BUDGET")
                break
            parts = await self._poll(parts)
        return self.tally

    def _fill(
        self, shared: Iterator[Ask], more: bool
    ) -> tuple[list[tuple[int, Question, int]], bool]:
        """Take questions (number, question, reserved) up to a limit; False when none are left."""
        calls: list[tuple[int, Question, int]] = []
        size = 0
        while len(calls) < self._rows:
            ask = self._again.pop() if self._again else next(shared, None) if more else None
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
            reserved = (
                None if full else self._budget.reserve_now(self._price.worst(question, bytes_))
            )
            if reserved is None:
                self._again.append(ask)
                return calls, more
            number = self._store.number()
            self._asked[number] = (ask, question)
            self._under_way.add(key)
            calls.append((number, question, reserved))
        return calls, more

    async def _hand_over(self, calls: list[tuple[int, Question, int]]) -> list[Batch]:
        """Write a part down, then give it to the provider; empty when it would not take it."""
        batch = Batch(f"sentimill-{uuid.uuid4()}", self._teacher.name, None)
        await self._store.begin_all([(n, q.key, reserved) for n, q, reserved in calls], batch)
        self.tally.calls += len(calls)
        lines = [
            json.dumps(
                {
                    "custom_id": str(number),
                    "method": "POST",
                    "url": _ENDPOINT,
                    "body": self._teacher.body(question),
                },
                ensure_ascii=False,
            )
            for number, question, _ in calls
        ]
        data = "\n".join(lines).encode("utf-8", "replace")
        file_id = await self._insist(lambda: self._teacher.upload(f"{batch.part}.jsonl", data))
        if isinstance(file_id, Failure):
            await self._release(batch, "UNSENT")
            return []
        body = {
            "input_file_id": file_id,
            "endpoint": _ENDPOINT,
            "completion_window": "24h",
            "metadata": {"sentimill_part": batch.part},
        }
        found = await self._insist(lambda: self._teacher.post("/batches", body))
        if isinstance(found, Failure):
            if not found.at_risk:
                await self._release(batch, "UNSENT")
            return []
        remote = msgspec.json.decode(found, type=_Remote)
        await self._store.name_batch(batch.part, remote.id)
        _LOG.info("batch handed over part=%s id=%s calls=%d", batch.part, remote.id, len(calls))
        return [Batch(batch.part, batch.teacher, remote.id)]

    async def _adopt(self) -> list[Batch]:
        """Return the parts of earlier runs; what never reached the provider is released."""
        parts = self._store.open_batches(self._teacher.name)
        unnamed = {batch.part: batch for batch in parts if batch.remote is None}
        named = [batch for batch in parts if batch.remote is not None]
        after = ""
        while unnamed:
            raw = await self._get(f"/batches?limit={_PAGE}{after}")
            if isinstance(raw, Failure):
                return named
            page = msgspec.json.decode(raw, type=_Page)
            for remote in page.data:
                batch = unnamed.pop((remote.metadata or {}).get("sentimill_part", ""), None)
                if batch is not None:
                    await self._store.name_batch(batch.part, remote.id)
                    named.append(Batch(batch.part, batch.teacher, remote.id))
            if not page.has_more or not page.data:
                break
            after = f"&after={page.data[-1].id}"
        for batch in unnamed.values():
            await self._release(batch, "UNSENT")
        return named

    async def _poll(self, parts: list[Batch]) -> list[Batch]:
        """Ask once after every part, collect those that are over, and return the others."""
        left = []
        too_many = 0
        for batch in parts:
            raw = await self._get(f"/batches/{batch.remote}")
            if isinstance(raw, Failure):
                return parts
            remote = msgspec.json.decode(raw, type=_Remote)
            if remote.status in _OVER:
                too_many = max(too_many, await self._collect(batch, remote))
                self.progress()
            else:
                left.append(batch)
        if too_many:
            self._hand_over_less(too_many, len(left))
        if left and len(left) == len(parts) and self.tally.stopped is None:
            await self._sleep(self._limits.poll_s)
        return left

    def _hand_over_less(self, rows: int, others: int) -> None:
        """Adapt to a provider that took no part of *rows* beside *others*: its queue was full."""
        if others:
            self._parts_at_once = others
        elif rows > 1:
            self._parts_at_once, self._rows = 1, rows // 2
        else:
            self.stop("BATCH_REFUSED")

    async def _collect(self, batch: Batch, remote: _Remote) -> int:
        """Book every line of a part's two files, then whatever has no line at all.

        Returns the rows of a part that found the provider's queue full, else 0.
        """
        reserved = dict(self._store.open_calls(batch.part))
        rows = len(reserved)
        for file_id in (remote.output_file_id, remote.error_file_id):
            if file_id is None:
                continue
            raw = await self._get(f"/files/{file_id}/content")
            if isinstance(raw, Failure):
                return 0  # the part stays open, and the next run collects it
            for text in raw.splitlines():
                line = msgspec.json.decode(text, type=_Line)
                if (number := int(line.custom_id)) in reserved:
                    await self._book(number, reserved.pop(number), line)
        codes = [error.code for error in (remote.errors and remote.errors.data) or []]
        full = remote.status == "failed" and any(code in _WAIT_CODES for code in codes)
        await self._release(batch, "BATCH_" + remote.status.upper(), free=full)
        if remote.status == "failed" and not full:
            _LOG.warning("batch refused id=%s codes=%s", remote.id, codes)
            self.stop("BATCH_REFUSED")
        return rows if full else 0

    async def _book(self, number: int, reserved: int, line: _Line) -> None:
        """Book one line of a result file."""
        spent = at_risk = 0
        raw = failure = None
        if line.response is not None and line.response.status_code == 200:
            raw = bytes(line.response.body).decode()
            reply = self._teacher.read(raw)
            if reply is not None and reply.usage is not None:
                spent = self._price.cost(reply.usage)
                self.tally.tokens_in += reply.usage.tokens_in
                self.tally.tokens_out += reply.usage.tokens_out
            else:
                at_risk = reserved  # it was answered, and does not say what it cost
            if number in self._asked:
                answer = read_answer(reply, self._asked[number][1])
                if not isinstance(answer, tuple):
                    failure = Failure(reason=answer, retry=True)
        elif line.response is not None:
            failure = failure_of_status(line.response.status_code, None, {})
        else:
            code = (line.error and line.error.code) or "unknown"
            failure = Failure(reason=f"BATCH_{code.upper()}", retry=True)
        outcome = failure.reason if failure and raw is None else "REPLY"
        await self._store.finish(number, outcome, spent=spent, at_risk=at_risk, raw=raw)
        await self._budget.settle(reserved, spent=spent, at_risk=at_risk)
        self._after(number, failure)

    async def _release(self, batch: Batch, reason: str, *, free: bool = False) -> None:
        """Close a part: calls that brought nothing cost nothing, and are asked again."""
        for number, reserved in self._store.open_calls(batch.part):
            await self._store.finish(number, reason)
            await self._budget.settle(reserved)
            self._after(number, Failure(reason=reason, retry=True, free=free))
        await self._store.name_batch(batch.part, batch.remote, done=True)

    def _after(self, number: int, failure: Failure | None) -> None:
        """Decide what becomes of a question of this run; those of earlier runs come by again."""
        ask, question = self._asked.pop(number, (None, None))
        if ask is None or question is None:
            return
        key = question.key
        self._under_way.discard(key)
        if failure is None:
            self.tally.answered += 1
            return
        self.tally.faults[failure.reason] += 1
        attempts = self._attempts.get(key, 0) + (not failure.free)
        self._attempts[key] = attempts
        if failure.retry and attempts < _QUESTION_ATTEMPTS:
            self._again.append(ask)
        else:
            self.tally.failures[key] = failure.reason

    async def _get(self, path: str) -> str | Failure:
        return await self._insist(lambda: self._teacher.get(path))

    async def _insist(self, call: Callable[[], Awaitable[str | Failure]]) -> str | Failure:
        """Make a call of the batch API until it works; stops the run when it never does."""
        found: str | Failure = Failure(reason="UNREACHABLE")
        for attempt in range(_WIRE_ATTEMPTS):
            found = await call()
            if not isinstance(found, Failure):
                return found
            if not found.retry:
                break
            await self._sleep(max(found.retry_after_s or 0.0, backoff_s(attempt)))
        assert isinstance(found, Failure)
        self.stop(found.reason)
        return found
