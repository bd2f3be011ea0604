"""The gRPC handlers: check a request, queue its texts, build the answer.

Handlers get raw bytes and decode them here, so that a malformed message is answered like every
other error, with a code, a reason and a remedy.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Final, NoReturn, TypeVar, cast

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from sentimill.admission import Admission
from sentimill.batching import Answer
from sentimill.callers import ANYBODY, Caller, Callers
from sentimill.classifier import Classifier, Prediction
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
from sentimill.loaded import Slot
from sentimill.metrics import Metrics
from sentimill.spans import NoSpans, Spans
from sentimill.text import MAX_TEXT_BYTES, Encoded
from sentimill.tracing import trace_id
from sentimill.v1 import sentiment_pb2 as pb

__all__ = ["DOMAIN", "SERVICE", "Limits", "SentimentService"]

log = logging.getLogger(__name__)

SERVICE: Final = "sentimill.v1.SentimentService"
DOMAIN: Final = "sentimill"
"""`google.rpc.ErrorInfo.domain` of every error."""

_STREAM_AHEAD: Final = 4
"""Requests of one stream that may be under way; past that the stream is not read further."""

Context = grpc.aio.ServicerContext[bytes, bytes]
M = TypeVar("M", bound=Message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the server accepts; `GetModel` shows it to callers."""

    max_items: int = 1024
    max_request_bytes: int = 8 << 20
    max_waiting_texts: int = 8192
    max_waiting_tokens: int = 1 << 20


class SentimentService:
    """Answers the methods of `sentimill.v1.SentimentService` from the model in a slot."""

    def __init__(
        self,
        slot: Slot,
        admission: Admission,
        metrics: Metrics,
        *,
        limits: Limits,
        version: str,
        callers: Callers | None = None,
        spans: Spans | None = None,
    ) -> None:
        self._slot = slot
        self._admission = admission
        self._metrics = metrics
        self._limits = limits
        self._version = version
        self._callers = callers
        self._spans = spans or NoSpans()
        self._readers: set[asyncio.Task[None]] = set()
        self.draining = False

    def handler(self) -> grpc.GenericRpcHandler:
        """Return the methods in the form that a gRPC server registers."""
        unary = grpc.unary_unary_rpc_method_handler
        stream = grpc.stream_stream_rpc_method_handler
        handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
            "Classify": unary(self.classify),
            "ClassifyStream": stream(self.classify_stream),
            "GetModel": unary(self.get_model),
        }
        return grpc.method_handlers_generic_handler(SERVICE, handlers)

    def drain(self) -> None:
        """Refuse new requests from now on, and read no stream further; what is under way goes on.

        An idle stream would otherwise hold the drain up to its last second.
        """
        self.draining = True
        for reader in self._readers:
            reader.cancel()

    async def classify(self, data: bytes, context: Context) -> bytes:
        """Answer one `Classify` call."""

        async def answer() -> bytes:
            caller = self._identify(context)
            request = _parse(pb.ClassifyRequest, data)
            response = await self._answer(request, caller, _seconds_left(context))
            return response.SerializeToString()

        with self._spans.call("Classify", context.invocation_metadata() or ()):
            return await self._guard("Classify", context, answer)

    async def get_model(self, data: bytes, context: Context) -> bytes:
        """Answer one `GetModel` call."""

        async def answer() -> bytes:
            self._identify(context)
            _parse(pb.GetModelRequest, data)
            return self._model().SerializeToString()

        with self._spans.call("GetModel", context.invocation_metadata() or ()):
            return await self._guard("GetModel", context, answer)

    async def classify_stream(
        self, requests: AsyncIterator[bytes], context: Context
    ) -> AsyncIterator[bytes]:
        """Answer the requests of one stream in their order, a few at a time."""
        began = time.monotonic()
        try:
            caller = self._identify(context)
        except AuthError as error:
            self._count("ClassifyStream", outcome(error).grpc, began, context)
            await self._abort(context, error)
        started: asyncio.Queue[asyncio.Task[bytes] | None] = asyncio.Queue()
        room = asyncio.Semaphore(_STREAM_AHEAD)

        async def read() -> None:
            try:
                async for data in requests:
                    # Room first: a task that is not in the queue would be missed by the clean-up.
                    await room.acquire()
                    answer = self._trace_streamed(data, caller, context)
                    started.put_nowait(asyncio.create_task(answer))
            finally:
                started.put_nowait(None)

        reader = asyncio.create_task(read())
        self._readers.add(reader)
        task: asyncio.Task[bytes] | None = None
        try:
            while (task := await started.get()) is not None:
                yield await task
                room.release()
            if self.draining:
                await self._abort(context, _draining())
        finally:
            # The caller may have gone: nothing of its stream may stay behind.
            self._readers.discard(reader)
            reader.cancel()
            if task is not None:
                task.cancel()
            while not started.empty():
                if (rest := started.get_nowait()) is not None:
                    rest.cancel()

    async def _trace_streamed(self, data: bytes, caller: Caller, context: Context) -> bytes:
        with self._spans.call("ClassifyStream", context.invocation_metadata() or ()):
            return await self._answer_streamed(data, caller, context)

    async def _answer_streamed(self, data: bytes, caller: Caller, context: Context) -> bytes:
        began = time.monotonic()
        reply = pb.ClassifyStreamResponse()
        try:
            message = _parse(pb.ClassifyStreamRequest, data)
            reply.id = message.id
            with self._metrics.in_flight.track_inprogress():
                answer = await self._answer(message.request, caller, _seconds_left(context))
            reply.response.CopyFrom(answer)
            code = "OK"
        except Exception as error:  # noqa: BLE001 - the boundary of a request
            status = self._status_of(error)
            reply.error.CopyFrom(status)
            code = outcome(error).grpc
        self._count("ClassifyStream", code, began, context)
        return reply.SerializeToString()

    async def _answer(
        self, request: pb.ClassifyRequest, caller: Caller, seconds_left: float | None
    ) -> pb.ClassifyResponse:
        """Classify one request, or raise the error of the whole request."""
        arrived = time.monotonic()
        self._check(request)
        count, bulk = len(request.items), request.priority == pb.PRIORITY_BULK
        self._admission.enter(count, seconds_left, bulk=bulk)
        tokens = 0
        try:
            caller.spend(count, arrived)
            with self._slot.use() as model:
                encoded = await model.encode(_text_of(item) for item in request.items)
                tokenized = time.monotonic()
                self._metrics.tokenize_seconds.observe(tokenized - arrived)
                good = [text.ids for text in encoded if isinstance(text, Encoded)]
                new_tokens = sum(map(len, good))
                left = None if seconds_left is None else seconds_left - (tokenized - arrived)
                self._admission.enter_tokens(new_tokens, left, bulk=bulk)
                tokens = new_tokens
                deadline = None if seconds_left is None else arrived + seconds_left
                answer = Answer([], 0.0, 0.0)
                if good:
                    answer = await model.batcher.classify(good, deadline, bulk=bulk)
        finally:
            self._admission.leave(count, tokens, bulk=bulk)
        # The model may be closed by now; what is left needs no engine.
        response = pb.ClassifyResponse(
            results=self._results(model.classifier, encoded, answer),
            model_digest=model.classifier.bundle.digest,
        )
        response.timings.tokenize_seconds = tokenized - arrived
        response.timings.queue_seconds = max(answer.queue_seconds, 0.0)
        response.timings.engine_seconds = answer.engine_seconds
        response.timings.total_seconds = time.monotonic() - arrived
        self._metrics.queue_seconds.observe(max(answer.queue_seconds, 0.0))
        self._spans.parts(arrived, tokenized, max(answer.queue_seconds, 0.0), answer.engine_seconds)
        return response

    def _identify(self, context: Context) -> Caller:
        if self._callers is None:
            return ANYBODY
        return self._callers.identify(context.invocation_metadata() or ())

    def _check(self, request: pb.ClassifyRequest) -> None:
        if self.draining:
            raise _draining()
        if not 1 <= len(request.items) <= self._limits.max_items:
            raise InputError(
                f"items has {len(request.items)} texts, the limits are 1 and"
                f" {self._limits.max_items}: split the list into several requests",
                reason="ITEM_COUNT",
            )

    def _results(
        self, classifier: Classifier, encoded: list[Encoded | TextError], answer: Answer
    ) -> list[pb.ClassifyResult]:
        """Put predictions and errors back in request order."""
        rows = iter(answer.logits)
        results = []
        answers: list[Prediction] = []
        reasons: list[str] = []
        for text in encoded:
            row = text if isinstance(text, TextError) else next(rows)
            if isinstance(row, SentimillError):
                reasons.append(row.reason)
                results.append(pb.ClassifyResult(error=_status(row)))
                continue
            (prediction,) = classifier.decide(row[None, :], [cast(Encoded, text)])
            answers.append(prediction)
            results.append(pb.ClassifyResult(prediction=_prediction(prediction)))
        self._metrics.observe_answers(answers, reasons)
        return results

    def _model(self) -> pb.GetModelResponse:
        classifier = self._slot.now.classifier
        manifest = classifier.bundle.manifest
        return pb.GetModelResponse(
            name=manifest.name,
            version=manifest.version,
            digest=classifier.bundle.digest,
            labels=manifest.labels,
            max_tokens=manifest.max_tokens,
            threshold=manifest.threshold,
            precision=classifier.precision,
            provider=classifier.engine.info().provider,
            server_version=self._version,
            limits=pb.Limits(
                max_items=self._limits.max_items,
                max_text_bytes=MAX_TEXT_BYTES,
                max_request_bytes=self._limits.max_request_bytes,
                max_waiting_texts=self._limits.max_waiting_texts,
                max_waiting_tokens=self._limits.max_waiting_tokens,
            ),
        )

    async def _guard(
        self, method: str, context: Context, answer: Callable[[], Awaitable[bytes]]
    ) -> bytes:
        """Run *answer*, and turn what it raises into a status: gRPC would show it to the caller."""
        began = time.monotonic()
        try:
            with self._metrics.in_flight.track_inprogress():
                data = await answer()
        except Exception as error:  # noqa: BLE001 - the boundary of a request
            self._count(method, outcome(error).grpc, began, context)
            await self._abort(context, error)
        except asyncio.CancelledError:
            # gRPC cancels a call that is too late as it does one whose caller has gone.
            left = _seconds_left(context)
            late = left is not None and left <= 0
            self._count(method, "DEADLINE_EXCEEDED" if late else "CANCELLED", began, context)
            raise
        self._count(method, "OK", began, context)
        return data

    async def _abort(self, context: Context, error: Exception) -> NoReturn:
        """End a call with the status of *error*, and say when to try again where that helps."""
        status = self._status_of(error)
        trailers: list[tuple[str, str | bytes]] = [
            ("grpc-status-details-bin", status.SerializeToString())
        ]
        if isinstance(error, UnavailableError):
            wait_ms = math.ceil(1000 * min(max(self._admission.wait_seconds(), 0.1), 30.0))
            trailers.append(("grpc-retry-pushback-ms", str(wait_ms)))
        code = grpc.StatusCode[outcome(error).grpc]
        await context.abort(code, status.message, tuple(trailers))

    def _status_of(self, error: Exception) -> status_pb2.Status:
        """Return the status of *error*; what we did not raise ourselves is logged, not shown."""
        if isinstance(error, SentimillError):
            if isinstance(error, UnavailableError | DeadlineError | QuotaError | AuthError):
                self._metrics.refused.labels(error.reason).inc()
            return _status(error)
        log.error("request failed", exc_info=error)
        return _status(SentimillError("internal error, see the server's log", reason="INTERNAL"))

    def _count(self, method: str, code: str, began: float, context: Context) -> None:
        seconds = time.monotonic() - began
        trace = trace_id(context.invocation_metadata() or ())
        self._metrics.observe_request(method, code, seconds, trace)
        self._spans.end(code)
        log.debug("request", extra={"method": method, "code": code, "seconds": seconds})


def _parse(kind: type[M], data: bytes) -> M:
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise InputError(
            f"the message is not a {kind.DESCRIPTOR.full_name} (malformed, or a `text` that is not"
            " UTF-8; send such texts as `utf8`)",
            reason="MALFORMED_REQUEST",
        ) from error


def _draining() -> UnavailableError:
    why = "the server is shutting down: call again, another instance will answer"
    return UnavailableError(why, reason="DRAINING")


def _seconds_left(context: Context) -> float | None:
    # The stubs say float; grpc.aio gives None where the caller set no deadline.
    return cast(float | None, context.time_remaining())


def _text_of(item: pb.ClassifyItem) -> str | TextError:
    content = item.WhichOneof("content")
    if content == "text":
        return item.text
    if content is None:
        return TextError("neither text nor utf8 is set: set one", reason="EMPTY_TEXT")
    try:
        return item.utf8.decode("utf-8")
    except UnicodeDecodeError as error:
        return TextError(
            f"utf8 is not valid UTF-8 at byte {error.start}: decode it from its own encoding first",
            reason="INVALID_UNICODE",
        )


def _prediction(prediction: Prediction) -> pb.Prediction:
    return pb.Prediction(
        label=prediction.label,
        probs=prediction.probs,
        score=prediction.score,
        confidence=prediction.confidence,
        abstained=prediction.abstained,
        truncated=prediction.truncated,
        tokens=prediction.tokens,
    )


def _status(error: SentimillError) -> status_pb2.Status:
    info = any_pb2.Any()
    info.Pack(error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN))
    return status_pb2.Status(code=outcome(error).code, message=str(error), details=[info])
