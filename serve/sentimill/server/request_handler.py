"""What every service of this server does with a call, whatever its messages look like.

Identify the caller, admit and classify the texts, and turn what goes wrong into a status. The
services around it translate between their messages and what is here.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, NoReturn, TypeVar, cast

import grpc
import numpy as np
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from sentimill.batching.admission import Admission
from sentimill.batching.jobs import Answer
from sentimill.classifier import Classifier
from sentimill.errors import (
    AuthError,
    DeadlineError,
    InputError,
    QuotaError,
    SentimillError,
    TextError,
    UnavailableError,
    outcome,
)
from sentimill.observability.metrics import Metrics
from sentimill.observability.trace_context import trace_id
from sentimill.observability.tracing import NoSpans, Spans
from sentimill.server.auth import ANYBODY, Caller, Callers
from sentimill.server.model_slot import Slot
from sentimill.text.tokenizer import Encoded
from sentimill.types import Prediction

__all__ = [
    "DOMAIN",
    "Answers",
    "Call",
    "Context",
    "Desk",
    "Limits",
    "code_of_cancelled",
    "decode",
    "parse",
    "seconds_left",
    "status_of",
]

log = logging.getLogger(__name__)

DOMAIN: Final = "sentimill"
"""`google.rpc.ErrorInfo.domain` of every error."""

Context = grpc.aio.ServicerContext[bytes, bytes]
M = TypeVar("M", bound=Message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the server accepts; `GetModel` shows it to callers."""

    max_items: int = 1024
    max_request_bytes: int = 8 << 20
    max_waiting_texts: int = 8192
    max_waiting_tokens: int = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What the texts of one request got, in their order, from which model, and where time went."""

    classifier: Classifier
    results: list[Prediction | SentimillError]
    tokenize_seconds: float
    queue_seconds: float
    engine_seconds: float
    total_seconds: float


@dataclass(slots=True)
class Call:
    """What a call is counted as; for one that turns out to be bulk work, `method` is changed."""

    method: str


class Desk:
    """Classifies the texts of requests with the model in a slot. For the event loop's thread."""

    def __init__(
        self,
        slot: Slot,
        admission: Admission,
        metrics: Metrics,
        *,
        limits: Limits,
        callers: Callers | None = None,
        spans: Spans | None = None,
    ) -> None:
        self.limits = limits
        self.metrics = metrics
        self.spans = spans or NoSpans()
        self.leaving = False
        self.draining = False
        self._slot = slot
        self._admission = admission
        self._callers = callers

    @property
    def classifier(self) -> Classifier:
        """The model that a request would meet now."""
        return self._slot.now.classifier

    def identify(self, context: Context) -> Caller:
        """Return who calls. Raises AuthError."""
        if self._callers is None:
            return ANYBODY
        return self._callers.identify(context.invocation_metadata() or ())

    async def classify(
        self,
        texts: Iterable[str | TextError],
        count: int,
        caller: Caller,
        left: float | None,
        *,
        bulk: bool = False,
    ) -> Answers:
        """Classify *count* texts, which are read in another thread, or raise for all of them.

        left: seconds until the caller's deadline.

        Raises:
            InputError: too many texts, or none.
            UnavailableError, QuotaError: nothing was computed.
            DeadlineError: the answer would come too late, and is computed no further.
        """
        arrived = time.monotonic()
        self._check(count)
        self._admission.enter(count, left, bulk=bulk)
        tokens = 0
        try:
            caller.spend(count, arrived)
            with self._slot.use() as model:
                encoded = await model.encode(texts)
                tokenized = time.monotonic()
                self.metrics.tokenize_seconds.observe(tokenized - arrived)
                good = [text.ids for text in encoded if isinstance(text, Encoded)]
                new_tokens = sum(map(len, good))
                still = None if left is None else left - (tokenized - arrived)
                try:
                    self._admission.enter_tokens(new_tokens, still, bulk=bulk)
                except (InputError, UnavailableError):
                    caller.give_back(count)
                    raise
                tokens = new_tokens
                deadline = None if left is None else arrived + left
                answer = Answer([], 0.0, 0.0)
                if good:
                    answer = await model.scheduler.classify(good, deadline, bulk=bulk)
        finally:
            self._admission.leave(count, tokens, bulk=bulk)
        # The model may be closed by now; what is left needs no engine.
        results = self._results(model.classifier, encoded, answer)
        queued = max(answer.queue_seconds, 0.0)
        if not bulk:  # it may wait for long, and a fleet must not grow for it
            self.metrics.queue_seconds.observe(queued)
        self.spans.parts(arrived, tokenized, queued, answer.engine_seconds)
        return Answers(
            classifier=model.classifier,
            results=results,
            tokenize_seconds=tokenized - arrived,
            queue_seconds=queued,
            engine_seconds=answer.engine_seconds,
            total_seconds=time.monotonic() - arrived,
        )

    def _check(self, count: int) -> None:
        if self.draining:
            raise self.refusal()
        if not 1 <= count <= self.limits.max_items:
            raise InputError(
                f"items has {count} texts, the limits are 1 and"
                f" {self.limits.max_items}: split the list into several requests",
                reason="ITEM_COUNT",
                field="items",
            )

    def _results(
        self, classifier: Classifier, encoded: list[Encoded | TextError], answer: Answer
    ) -> list[Prediction | SentimillError]:
        """Put predictions and errors back in request order."""
        rows = iter(answer.logits)
        got = [text if isinstance(text, TextError) else next(rows) for text in encoded]
        good = [
            (row, text)
            for row, text in zip(got, encoded, strict=True)
            if not isinstance(row, SentimillError) and isinstance(text, Encoded)
        ]
        answered: Iterator[Prediction] = iter(())
        if good:
            # Together: numpy takes as long for one row as for all of a request.
            logits = np.stack([row for row, _ in good])
            answered = iter(classifier.decide(logits, [text for _, text in good]))
        results: list[Prediction | SentimillError] = [
            row if isinstance(row, SentimillError) else next(answered) for row in got
        ]
        self.metrics.observe_answers(
            [one for one in results if isinstance(one, Prediction)],
            [one.reason for one in results if isinstance(one, SentimillError)],
        )
        return results

    async def guard(
        self, call: Call, context: Context, answer: Callable[[], Awaitable[bytes]]
    ) -> bytes:
        """Run *answer*, and turn what it raises into a status: gRPC would show it to the caller."""
        with self.spans.call(call.method, context.invocation_metadata() or ()):
            return await self._guarded(call, context, answer)

    async def _guarded(
        self, call: Call, context: Context, answer: Callable[[], Awaitable[bytes]]
    ) -> bytes:
        began = time.monotonic()
        try:
            with self.metrics.in_flight.track_inprogress():
                data = await answer()
        except Exception as error:  # noqa: BLE001 - the boundary of a request
            self.count(call.method, outcome(error).grpc, began, context)
            await self.abort(context, error)
        except asyncio.CancelledError:
            self.count(call.method, code_of_cancelled(context), began, context)
            raise
        self.count(call.method, "OK", began, context)
        return data

    async def abort(self, context: Context, error: Exception) -> NoReturn:
        """End a call with the status of *error*, and say when to try again where that helps."""
        status = self.status(error)
        trailers: list[tuple[str, str | bytes]] = [
            ("grpc-status-details-bin", status.SerializeToString())
        ]
        if isinstance(error, UnavailableError):
            trailers.append(("grpc-retry-pushback-ms", str(self._pause_ms())))
        code = grpc.StatusCode[outcome(error).grpc]
        await context.abort(code, status.message, tuple(trailers))

    def status(self, error: Exception) -> status_pb2.Status:
        """Return the status of *error*; what we did not raise ourselves is logged, not shown."""
        if isinstance(error, SentimillError):
            if isinstance(error, UnavailableError | DeadlineError | QuotaError | AuthError):
                self.metrics.refused.labels(error.reason).inc()
            status = status_of(error)
            if isinstance(error, UnavailableError):
                # In a stream it is all that tells: the trailers come when the stream is over.
                delay = duration_pb2.Duration()
                delay.FromMilliseconds(self._pause_ms())
                _add(status, error_details_pb2.RetryInfo(retry_delay=delay))
            return status
        log.error("request failed", exc_info=error)
        return status_of(SentimillError("internal error, see the server's log", reason="INTERNAL"))

    def _pause_ms(self) -> int:
        """Return after which pause a call that was refused now may find room."""
        return math.ceil(1000 * min(max(self._admission.wait_seconds(), 0.1), 30.0))

    def count(self, method: str, code: str, began: float, context: Context) -> None:
        """Count one answer to a call that *began* on the clock of `time.monotonic`."""
        seconds = time.monotonic() - began
        trace = trace_id(context.invocation_metadata() or ())
        self.metrics.observe_request(method, code, seconds, trace)
        self.spans.end(code)
        log.debug("request", extra={"method": method, "code": code, "seconds": seconds})

    @staticmethod
    def refusal() -> UnavailableError:
        """Return the error of a call that comes while the server drains."""
        why = "the server is shutting down: call again, another instance will answer"
        return UnavailableError(why, reason="DRAINING")


def parse(kind: type[M], data: bytes) -> M:
    """Return the message in *data*. Raises InputError."""
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise InputError(
            f"the message is not a {kind.DESCRIPTOR.full_name} (malformed, or a `text` that is not"
            " UTF-8; send such texts as `utf8`)",
            reason="MALFORMED_REQUEST",
        ) from error


def decode(data: bytes) -> str | TextError:
    """Return the text in *data*, or its error where that is not UTF-8."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        return TextError(
            f"utf8 is not valid UTF-8 at byte {error.start}: decode it from its own encoding first",
            reason="INVALID_UNICODE",
        )


def seconds_left(context: Context) -> float | None:
    """Return how long the caller still waits, None where it set no deadline."""
    # The stubs say float; grpc.aio gives None where the caller set no deadline.
    return cast(float | None, context.time_remaining())


def code_of_cancelled(context: Context) -> str:
    """Return why gRPC cancelled a call: it was too late, or its caller has gone."""
    left = seconds_left(context)
    return "CANCELLED" if left is None or left > 0 else "DEADLINE_EXCEEDED"


def status_of(error: SentimillError, field: str | None = None) -> status_pb2.Status:
    """Return *error* with its code, message, stable reason and, of bad input, the path.

    field: the path where *error* knows none.
    """
    status = status_pb2.Status(code=outcome(error).code, message=str(error))
    _add(status, error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN))
    if isinstance(error, InputError) and (path := error.field or field):
        violation = error_details_pb2.BadRequest.FieldViolation(field=path, description=str(error))
        _add(status, error_details_pb2.BadRequest(field_violations=[violation]))
    return status


def _add(status: status_pb2.Status, detail: Message) -> None:
    packed = any_pb2.Any()
    packed.Pack(detail)
    status.details.append(packed)
