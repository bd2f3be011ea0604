"""`sentimill.v1.SentimentService`: its messages to texts, and answers to its messages.

Handlers get raw bytes and decode them here, so that a malformed message is answered like every
other error, with a code, a reason and a remedy.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import Final

import grpc

from sentimill.errors import AuthError, TextError, outcome
from sentimill.server.auth import Caller
from sentimill.server.request_handler import (
    Answers,
    Call,
    Context,
    Desk,
    code_of_cancelled,
    decode,
    parse,
    seconds_left,
    status_of,
)
from sentimill.types import MAX_TEXT_BYTES, Prediction
from sentimill.v1 import sentiment_pb2 as pb

__all__ = ["SERVICE", "SentimentService"]

SERVICE: Final = "sentimill.v1.SentimentService"

_STREAM_AHEAD: Final = 4
"""Requests of one stream that may be under way; past that the stream is not read further."""


class SentimentService:
    """Answers the methods of `sentimill.v1.SentimentService` from the model in a slot."""

    def __init__(self, desk: Desk, *, version: str) -> None:
        self._desk = desk
        self._version = version
        self._readers: set[asyncio.Task[None]] = set()

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

    def leave(self) -> None:
        """Say from now on that the server is not ready; calls are answered as ever."""
        self._desk.leaving = True

    def drain(self) -> None:
        """Refuse new requests from now on, and read no stream further; what is under way goes on.

        An idle stream would otherwise hold the drain up to its last second.
        """
        self.leave()
        self._desk.draining = True
        for reader in self._readers:
            reader.cancel()

    async def classify(self, data: bytes, context: Context) -> bytes:
        """Answer one `Classify` call."""
        call = Call("Classify")

        async def answer() -> bytes:
            caller = self._desk.identify(context)
            request = parse(pb.ClassifyRequest, data)
            response = await self._answer(request, caller, call, seconds_left(context))
            return response.SerializeToString()

        return await self._desk.guard(call, context, answer)

    async def get_model(self, data: bytes, context: Context) -> bytes:
        """Answer one `GetModel` call."""

        async def answer() -> bytes:
            self._desk.identify(context)
            parse(pb.GetModelRequest, data)
            return self._model().SerializeToString()

        return await self._desk.guard(Call("GetModel"), context, answer)

    async def classify_stream(
        self, requests: AsyncIterator[bytes], context: Context
    ) -> AsyncIterator[bytes]:
        """Answer the requests of one stream in their order, a few at a time."""
        began = time.monotonic()
        try:
            self._desk.identify(context)
        except AuthError as error:
            self._desk.count("ClassifyStream", outcome(error).grpc, began, context)
            await self._desk.abort(context, error)
        started: asyncio.Queue[asyncio.Task[bytes] | None] = asyncio.Queue()
        room = asyncio.Semaphore(_STREAM_AHEAD)

        async def read() -> None:
            try:
                async for data in requests:
                    # Room first: a task that is not in the queue would be missed by the clean-up.
                    await room.acquire()
                    answer = self._trace_streamed(data, context)
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
            if self._desk.draining and reader.cancelled():  # else the caller had sent all it would
                # As a call that comes now: how long the stream was open is nobody's latency.
                refusal = self._desk.refusal()
                code, now = outcome(refusal).grpc, time.monotonic()
                self._desk.count("ClassifyStream", code, now, context)
                await self._desk.abort(context, refusal)
        finally:
            # The caller may have gone: nothing of its stream may stay behind.
            self._readers.discard(reader)
            reader.cancel()
            if task is not None:
                task.cancel()
            while not started.empty():
                if (rest := started.get_nowait()) is not None:
                    rest.cancel()

    async def _trace_streamed(self, data: bytes, context: Context) -> bytes:
        with self._desk.spans.call("ClassifyStream", context.invocation_metadata() or ()):
            return await self._answer_streamed(data, context)

    async def _answer_streamed(self, data: bytes, context: Context) -> bytes:
        began = time.monotonic()
        call = Call("ClassifyStream")
        reply = pb.ClassifyStreamResponse()
        try:
            message = parse(pb.ClassifyStreamRequest, data)
            reply.id = message.id
            # Again for each: a stream may outlive its token, or the quota that it began with.
            caller = self._desk.identify(context)
            with self._desk.metrics.in_flight.track_inprogress():
                answer = await self._answer(message.request, caller, call, seconds_left(context))
            reply.response.CopyFrom(answer)
            code = "OK"
        except Exception as error:  # noqa: BLE001 - the boundary of a request
            status = self._desk.status(error)
            reply.error.CopyFrom(status)
            code = outcome(error).grpc
        except asyncio.CancelledError:
            self._desk.count(call.method, code_of_cancelled(context), began, context)
            raise
        self._desk.count(call.method, code, began, context)
        return reply.SerializeToString()

    async def _answer(
        self, request: pb.ClassifyRequest, caller: Caller, call: Call, left: float | None
    ) -> pb.ClassifyResponse:
        """Classify one request, or raise the error of the whole request."""
        bulk = request.priority == pb.PRIORITY_BULK
        if bulk:
            # Apart, for it may take its time: an objective for those who wait is not about it.
            call.method += "Bulk"
        answers = await self._desk.classify(
            (_text_of(item) for item in request.items),
            len(request.items),
            caller,
            left,
            bulk=bulk,
        )
        return _response(answers, request.items)

    def _model(self) -> pb.GetModelResponse:
        classifier, limits = self._desk.classifier, self._desk.limits
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
                max_items=limits.max_items,
                max_text_bytes=MAX_TEXT_BYTES,
                max_request_bytes=limits.max_request_bytes,
                max_waiting_texts=limits.max_waiting_texts,
                max_waiting_tokens=limits.max_waiting_tokens,
            ),
        )


def _response(answers: Answers, items: Sequence[pb.ClassifyItem]) -> pb.ClassifyResponse:
    results = [
        pb.ClassifyResult(prediction=_prediction(one))
        if isinstance(one, Prediction)
        else pb.ClassifyResult(error=status_of(one, _path(place, items[place])))
        for place, one in enumerate(answers.results)
    ]
    return pb.ClassifyResponse(
        results=results,
        model_digest=answers.classifier.bundle.digest,
        timings=pb.Timings(
            tokenize_seconds=answers.tokenize_seconds,
            queue_seconds=answers.queue_seconds,
            engine_seconds=answers.engine_seconds,
            total_seconds=answers.total_seconds,
        ),
        labels=answers.classifier.labels,
    )


def _path(place: int, item: pb.ClassifyItem) -> str:
    content = item.WhichOneof("content")
    return f"items[{place}].{content}" if content else f"items[{place}]"


def _text_of(item: pb.ClassifyItem) -> str | TextError:
    content = item.WhichOneof("content")
    if content == "text":
        return item.text
    if content is None:
        return TextError("neither text nor utf8 is set: set one", reason="EMPTY_TEXT")
    return decode(item.utf8)


_ABSTAIN_REASONS: Final = {
    None: pb.ABSTAIN_REASON_UNSPECIFIED,
    "LOW_CONFIDENCE": pb.ABSTAIN_REASON_LOW_CONFIDENCE,
    "UNSUPPORTED_LANGUAGE": pb.ABSTAIN_REASON_UNSUPPORTED_LANGUAGE,
}


def _prediction(prediction: Prediction) -> pb.Prediction:
    return pb.Prediction(
        label=prediction.label,
        probs=prediction.probs,
        score=prediction.score,
        confidence=prediction.confidence,
        abstained=prediction.abstained,
        truncated=prediction.truncated,
        tokens=prediction.tokens,
        abstain_reason=_ABSTAIN_REASONS[prediction.abstain_reason],
    )
