"""The request loop: reserve, wait for the rate limit, write, send, write, settle, parse, retry.

Workers share one iterator of questions, so memory does not grow with the number of rows. A
question with an answer in the store is never sent.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from sentimill_train.labelling.providers.teacher import Teacher
from sentimill_train.labelling.requests.budget import Budget, Price
from sentimill_train.labelling.requests.messages import Failure, Key, Question, json_bytes
from sentimill_train.labelling.requests.rate_limit import CallRates, RateLimiter, backoff_s
from sentimill_train.labelling.requests.response_cache import ResponseCache
from sentimill_train.labelling.requests.response_parser import read_answer

_LOG: Final = logging.getLogger(__name__)

_WIDEST: Final = 32
"""The largest factor on the token limit of an answer, which grows after truncated answers."""

MakeQuestion = Callable[[int], Question]
"""Makes a question, given the factor on the token limit of its answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryLimits:
    """When to give up.

    attempts: calls for one question. answers: unusable answers to one question, each of them paid.
    consecutive_failures: failures in a row, of all questions, that stop the run. Unusable answers
    count only before the first usable one: a resumed run starts with rows that failed before, which
    tell nothing about the endpoint.
    """

    attempts: int = 8
    answers: int = 4
    consecutive_failures: int = 200
    first_wait_s: float = 0.5


@dataclass(slots=True)
class Tally:
    """The counts of a run. failures: the reason of the last attempt, by question."""

    answered: int = 0
    stored: int = 0
    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    failures: dict[Key, str] = field(default_factory=dict)
    stopped: str | None = None


def body_bytes(teacher: Teacher, question: Question) -> int:
    """Return the size of the request, which bounds its tokens."""
    return len(json_bytes(teacher.body(question)))


def stored_answer(
    store: ResponseCache, teacher: Teacher, question: Question
) -> tuple[float, ...] | None:
    """Return the stored shares for a question, None if the store has no usable reply."""
    for raw in store.replies(question.key):
        answer = read_answer(teacher.read(raw), question)
        if isinstance(answer, tuple):
            return answer
    return None


def weigh_reply(
    raw: str, question: Question | None, reserved: int, teacher: Teacher, price: Price, tally: Tally
) -> tuple[int, int, str | None]:
    """Return the cost of a reply, its cost at risk, and why it is unusable (None if it is usable).

    question: None if an earlier run asked it. The tokens are added to *tally*.
    """
    reply = teacher.read(raw)
    answer = None if question is None else read_answer(reply, question)
    fault = answer if isinstance(answer, str) else None
    if reply is None or reply.usage is None:
        return 0, reserved, fault  # the reply does not state its tokens
    tally.tokens_in += reply.usage.tokens_in
    tally.tokens_out += reply.usage.tokens_out
    return price.cost(reply.usage), 0, fault


class RequestRunner:
    """Asks one teacher many questions. One event loop uses it, once."""

    def __init__(
        self,
        teacher: Teacher,
        store: ResponseCache,
        budget: Budget,
        *,
        price: Price,
        rates: CallRates,
        retries: RetryLimits,
    ) -> None:
        self.tally = Tally()
        self.progress: Callable[[], None] = lambda: None
        self._teacher = teacher
        self._store = store
        self._budget = budget
        self._limiter = RateLimiter(rates)
        self._price = price
        self._concurrency = rates.concurrency
        self._retries = retries
        self._under_way: set[Key] = set()
        self._widen = 1
        self._failed_in_a_row = 0

    def stop(self, reason: str) -> None:
        """Send nothing more, but wait for open calls."""
        self.tally.stopped = self.tally.stopped or reason

    async def run(self, questions: Iterable[MakeQuestion]) -> Tally:
        """Ask until no question is left, the budget is reached, or the endpoint stops answering."""
        shared = iter(questions)
        async with asyncio.TaskGroup() as group:
            for _ in range(self._concurrency):
                group.create_task(self._work(shared))
        return self.tally

    async def _work(self, shared: Iterator[MakeQuestion]) -> None:
        for n, ask in enumerate(shared):
            if self.tally.stopped is not None:
                return
            question = ask(1)
            key = question.key
            if key in self._under_way or key in self.tally.failures:
                continue
            if stored_answer(self._store, self._teacher, question) is not None:
                self.tally.stored += 1
                if n % 64 == 0:
                    await asyncio.sleep(0)  # let other tasks run between stored answers
                continue
            self._under_way.add(key)
            try:
                await self._retry(ask)
                self.tally.answered += 1
            except Failure as failure:
                if failure.reason != "STOPPED":
                    self.tally.failures[key] = failure.reason
            finally:
                self._under_way.discard(key)
            self.progress()

    async def _retry(self, ask: MakeQuestion) -> None:
        """Ask a question until it is answered. Raises the last Failure if it is not."""
        last = Failure(reason="STOPPED")
        unanswered = unusable = 0
        while unanswered + unusable < self._retries.attempts and unusable < self._retries.answers:
            if self.tally.stopped is not None:
                break
            try:
                await self._call(ask(self._widen))
                return
            except Failure as failure:
                last = failure
            if last.fatal:
                self.stop(last.reason)
            if not last.retry:
                break
            self.progress()
            if last.heard:
                unusable += 1
            elif not last.free:
                await self._limiter.sleep(self._wait_s(unanswered, last))
                unanswered += 1
        raise last

    async def _call(self, question: Question) -> None:
        """Make one call and book it. Raises Failure unless it brings a usable answer."""
        size = body_bytes(self._teacher, question)
        reserved = await self._budget.reserve(self._price.worst(question, size))
        if reserved is None:
            self.stop("BUDGET")
            raise Failure(reason="STOPPED")
        spent = at_risk = 0
        try:
            await self._limiter.wait(size // 4 + question.answer_tokens)
            if self.tally.stopped is not None:
                raise Failure(reason="STOPPED")
            number = await self._store.begin(question.key, reserved)
            at_risk = reserved  # until we know better
            self.tally.calls += 1
            try:
                raw = await self._teacher.send(question)
            except Failure as failure:
                at_risk = reserved if failure.at_risk else 0
                await self._store.finish(number, failure.reason, at_risk=at_risk)
                self._note(question, failure)
                raise
            spent, at_risk, fault = weigh_reply(
                raw, question, reserved, self._teacher, self._price, self.tally
            )
            await self._store.finish(number, "REPLY", spent=spent, at_risk=at_risk, raw=raw)
        finally:
            await self._budget.settle(reserved, spent=spent, at_risk=at_risk)
        if fault == "TRUNCATED":
            self._widen = min(_WIDEST, max(self._widen, 2 * question.widen))
        if fault is not None:
            unusable = Failure(reason=fault, retry=True, heard=True)
            self._note(question, unusable)
            raise unusable
        self._failed_in_a_row = 0

    def _wait_s(self, attempt: int, failure: Failure) -> float:
        wait = backoff_s(attempt, first_s=self._retries.first_wait_s)
        if failure.retry_after_s is not None:
            self._limiter.pause(failure.retry_after_s)
            return failure.retry_after_s + wait
        return wait

    def _note(self, question: Question, failure: Failure) -> None:
        """Count a failure, and stop the run after too many in a row."""
        if failure.free:
            return
        self.tally.faults[failure.reason] += 1
        _LOG.debug("call failed text=%s reason=%s", question.key.text[:12], failure.reason)
        if failure.heard and self.tally.answered + self.tally.stored:
            return
        self._failed_in_a_row += 1
        if self._failed_in_a_row >= self._retries.consecutive_failures:
            self.stop("NO_ANSWERS")
