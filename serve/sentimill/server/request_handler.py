"""Protocol-independent request handling: authentication, admission, tokenization, classification.

The services translate between their messages and the texts and answers here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from sentimill.batching.admission import Admission
from sentimill.batching.jobs import Answer
from sentimill.classifier import Classifier
from sentimill.errors import (
    DeadlineError,
    EngineError,
    InputError,
    SentimillError,
    TextError,
    UnavailableError,
)
from sentimill.evidence.sentences import Explanation
from sentimill.server.access.auth import ANONYMOUS, Caller, TokenAuth
from sentimill.server.error_interceptor import AnyContext, CallBoundary
from sentimill.server.model_slot import LoadedModel, ModelSlot
from sentimill.text.tokenizer import Encoded
from sentimill.types import EXPLAINED_SHARE, Neighbour, Prediction, check_neighbours

T = TypeVar("T")

_SLICE: Final = 64
"""Texts that the event loop handles in one go, in about 1 ms."""


async def slices(items: Sequence[T]) -> AsyncIterator[Sequence[T]]:
    """Yield *items* in slices, between which the event loop serves other calls.

    A request of 1,000 texts would otherwise keep a health check waiting for 20 ms on an idle core.
    """
    for at in range(0, len(items), _SLICE):
        if at:
            await asyncio.sleep(0)
        yield items[at : at + _SLICE]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the server accepts; `GetModel` shows the limits on requests to callers.

    max_request_bytes: twice the most that Sentimill's client sends, and gRPC's own default.
    max_waiting_bytes: the size on the wire of all requests that are being answered.
    max_calls: how many calls and streams may be open, health checks included. connection_calls: how
    many of them one connection may have; further calls on it wait for their turn.
    default_deadline_seconds: how long a call without a deadline may take.
    """

    max_items: int = 1024
    max_request_bytes: int = 4 << 20
    max_waiting_texts: int = 8192
    max_waiting_tokens: int = 1 << 20
    max_waiting_bytes: int = 64 << 20
    max_calls: int = 10_000
    connection_calls: int = 2500
    default_deadline_seconds: float = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The texts of one request, which are read in another thread, and who sent them.

    count: how many texts there are. caller: has the quota. sender: whose share of queue and engine
    the request uses. seconds_left: until the caller's deadline, None for none. explain: answer the
    sentences of each text too. neighbours: how many reviews of the caller's index to show.
    """

    texts: Iterable[str | TextError]
    count: int
    caller: Caller
    sender: str
    seconds_left: float | None
    bulk: bool = False
    explain: bool = False
    neighbours: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """The results of the texts of one request, in order, the model that answered, and the times."""

    classifier: Classifier
    results: list[Prediction | SentimillError]
    tokenize_seconds: float
    queue_seconds: float
    engine_seconds: float
    total_seconds: float


class RequestHandler:
    """Classifies the texts of requests with the model in a slot. For the event loop's thread.

    healthy: the engine answers. leaving: the server is about to stop, and says so to load
    balancers. draining: new requests are refused.
    """

    def __init__(
        self,
        slot: ModelSlot,
        admission: Admission,
        boundary: CallBoundary,
        *,
        limits: Limits,
        auth: TokenAuth | None = None,
    ) -> None:
        self.limits = limits
        self.boundary = boundary
        self.healthy = True
        self.leaving = False
        self.draining = False
        self._slot = slot
        self._admission = admission
        self._auth = auth
        self._held_bytes = 0

    @property
    def ready(self) -> bool:
        """Whether load balancers should send calls here."""
        return self.healthy and not self.leaving

    @property
    def classifier(self) -> Classifier:
        """The model that would answer a request now."""
        return self._slot.now.classifier

    def identify(self, context: AnyContext) -> Caller:
        """Return who calls. Raises AuthError."""
        if self._auth is None:
            return ANONYMOUS
        return self._auth.identify(context.invocation_metadata() or ())

    def sender(self, caller: Caller, context: AnyContext) -> str:
        """Return whose share a call uses: that of its token, else that of its connection."""
        return context.peer() if caller is ANONYMOUS else caller.name

    @contextmanager
    def hold(self, data: bytes) -> Iterator[None]:
        """Count the bytes of a request while it is parsed and answered.

        Raises UnavailableError, before anything is parsed, if too many bytes are held.
        """
        held, limit = self._held_bytes, self.limits.max_waiting_bytes
        if held + len(data) > limit:
            raise UnavailableError(
                f"requests of {held} bytes are being answered, {len(data)} more would exceed the"
                f" limit of {limit}: try again later",
                reason="QUEUE_FULL",
            )
        self._held_bytes += len(data)
        try:
            yield
        finally:
            self._held_bytes -= len(data)

    async def classify(self, request: Request) -> Answers:
        """Classify the texts of *request*, or raise for all of them.

        Raises:
            InputError: too many texts, or none; or neighbours for a caller who has no index.
            UnavailableError, QuotaError: nothing was computed.
            UnavailableError: the engine failed on every text.
            DeadlineError: the answer would come too late, so it is not computed to its end.
        """
        arrived = time.monotonic()
        if self.draining:
            raise self.refusal()
        if not self.healthy:
            why = "the engine failed and is being restarted: another server may answer"
            raise UnavailableError(why, reason="ENGINE_FAILED")
        most = self.limits.max_items
        if request.explain:
            most = max(1, most // EXPLAINED_SHARE)
        if not 1 <= request.count <= most:
            raise InputError(
                f"items has {request.count} texts, the limit is 1 to {most}: split the list into"
                " several requests",
                reason="ITEM_COUNT",
                field="items",
            )
        explanation = Explanation(request.texts) if request.explain else None
        texts = request.texts if explanation is None else explanation
        left, limit = request.seconds_left, None
        if left is None:
            left = limit = self.limits.default_deadline_seconds
        with self._slot.use() as model:
            _check_index(request, model)
            try:
                # gRPC itself cancels a call that set a deadline.
                async with asyncio.timeout(limit):
                    encoded, answer, tokenized = await self._compute(
                        model, request, texts, arrived, left
                    )
            except TimeoutError:
                why = f"no answer in {limit} s, the limit without a deadline: set a deadline"
                raise DeadlineError(why, reason="DEADLINE_EXCEEDED") from None
            results = await self._results(model, request, encoded, answer, explanation)
        queued = max(answer.queue_seconds, 0.0)
        if not request.bulk:  # bulk work may wait long, and autoscaling must ignore it
            self.boundary.metrics.queue_seconds.observe(queued)
        self.boundary.spans.parts(arrived, tokenized, queued, answer.engine_seconds)
        return Answers(
            classifier=model.classifier,
            results=results,
            tokenize_seconds=tokenized - arrived,
            queue_seconds=queued,
            engine_seconds=answer.engine_seconds,
            total_seconds=time.monotonic() - arrived,
        )

    async def _compute(
        self,
        model: LoadedModel,
        request: Request,
        texts: Iterable[str | TextError],
        arrived: float,
        left: float,
    ) -> tuple[list[Encoded | TextError], Answer, float]:
        """Admit, tokenize and run; return the tokens, the logits, and when tokenizing ended.

        left: seconds from *arrived* until the caller gives up.
        """
        count, bulk, sender = request.count, request.bulk, request.sender
        self._admission.enter(count, left, bulk=bulk, caller=sender)
        tokens = 0
        try:
            request.caller.spend(count, arrived)
            encoded = await model.encode(texts)
            request.caller.give_back(count - len(encoded))  # spends the sentences too
            tokenized = time.monotonic()
            self.boundary.metrics.tokenize_seconds.observe(tokenized - arrived)
            good = [text.ids for text in encoded if isinstance(text, Encoded)]
            new_tokens = sum(map(len, good))
            try:
                self._admission.enter_tokens(
                    new_tokens, left - (tokenized - arrived), bulk=bulk, caller=sender
                )
            except (InputError, UnavailableError):
                request.caller.give_back(len(encoded))
                raise
            tokens = new_tokens
            answer = Answer([], 0.0, 0.0)
            if good:
                answer = await model.scheduler.classify(
                    good, arrived + left, bulk=bulk, caller=sender
                )
        finally:
            self._admission.leave(count, tokens, bulk=bulk, caller=sender)
        return encoded, answer, tokenized

    async def _results(
        self,
        model: LoadedModel,
        request: Request,
        encoded: list[Encoded | TextError],
        answer: Answer,
        explanation: Explanation | None,
    ) -> list[Prediction | SentimillError]:
        """Put predictions and errors back in request order, and evidence into the answers."""
        rows = iter(answer.logits)
        got = [text if isinstance(text, TextError) else next(rows) for text in encoded]
        good = [
            (row, text)
            for row, text in zip(got, encoded, strict=True)
            if not isinstance(row, SentimillError) and isinstance(text, Encoded)
        ]
        own = [row for row in got[: request.count] if not isinstance(row, SentimillError)]
        near = iter(await self._neighbours(model, request, own))
        predictions: list[Prediction] = []
        async for part in slices(good):
            # Numpy takes as long for one row as for all rows of a slice.
            logits = np.stack([row for row, _ in part])
            predictions += model.classifier.decide(logits, [text for _, text in part], near)
        answered = iter(predictions)
        results: list[Prediction | SentimillError] = [
            row if isinstance(row, SentimillError) else next(answered) for row in got
        ]
        if explanation is not None:
            results = explanation.attach(results, model.classifier.labels)
        self.boundary.metrics.observe_answers(results)
        if answer.logits and all(isinstance(row, EngineError) for row in answer.logits):
            # Another server may have a better engine, so this is an error that callers retry.
            why = "the engine failed on every text of the request: another server may answer"
            raise UnavailableError(why, reason="ENGINE_FAILED")
        return results

    async def _neighbours(
        self, model: LoadedModel, request: Request, rows: list[NDArray[np.float32]]
    ) -> list[tuple[Neighbour, ...]]:
        """Return the neighbours of each of *rows* (logits and states), where they are asked for."""
        found: list[tuple[Neighbour, ...]] = []
        if not request.neighbours:
            return found
        began = time.monotonic()
        async for part in slices(rows):  # so that other requests can tokenize in between
            found += await model.nearest(request.caller.name, part, request.neighbours)
        self.boundary.metrics.lookup_seconds.observe(time.monotonic() - began)
        return found

    @staticmethod
    def refusal() -> UnavailableError:
        """Return the error of a call that comes while the server drains."""
        why = "the server is shutting down: call again, another instance will answer"
        return UnavailableError(why, reason="DRAINING")


def _check_index(request: Request, model: LoadedModel) -> None:
    """Raise InputError if the caller asks for neighbours and has no index of its own."""
    check_neighbours(request.neighbours)
    name = request.caller.name
    if request.neighbours and name not in model.indexes:
        why = f"the server has no index for {name}, so there are no neighbours: ask for none, or"
        why += " ask the server's operator for an index (`sentimill serve --index`)"
        raise InputError(why, reason="NO_INDEX", field="neighbours")
