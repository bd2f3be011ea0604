"""Translates between the messages of `sentimill.v1.SentimentService` and texts and answers.

Handlers get raw bytes and decode them here, so that a malformed message is answered like every
other error, with a code, a reason and a remedy.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final, TypeAlias

import grpc

from sentimill.errors import TextError
from sentimill.server.access.auth import Caller
from sentimill.server.error_interceptor import Call, current_call, release, seconds_left, status_of
from sentimill.server.message_parser import FieldLimit, decode, parse
from sentimill.server.request_handler import Answers, Request, RequestHandler, slices
from sentimill.types import MAX_TEXT_BYTES, Prediction
from sentimill.v1 import sentiment_pb2 as pb

SERVICE: Final = "sentimill.v1.SentimentService"

_STREAM_AHEAD: Final = 4
"""Requests of one stream that may run at once; then the stream is not read further."""

_OTHER_FIELDS: Final = 16
"""Fields that a message may have in addition to its items: more than there are today."""

_ITEM_FIELDS: Final = 256
"""Fields that an item may have: far more than one, so that short items need no counting."""

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class SentimentService:
    """Answers the methods of `sentimill.v1.SentimentService` from the model in a slot."""

    def __init__(self, requests: RequestHandler, *, version: str) -> None:
        self._requests = requests
        self._version = version
        self._readers: set[asyncio.Task[None]] = set()
        item = {pb.ClassifyRequest.ITEMS_FIELD_NUMBER: FieldLimit(_ITEM_FIELDS, "items[]")}
        self._items = FieldLimit(requests.limits.max_items + _OTHER_FIELDS, "items", item)
        request = {pb.ClassifyStreamRequest.REQUEST_FIELD_NUMBER: self._items}
        self._streamed = FieldLimit(_OTHER_FIELDS, "request", request)

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
        """Refuse new requests and stop reading streams from now on; running requests continue.

        Otherwise an idle stream would hold up the drain until its last second.
        """
        self._requests.leaving = self._requests.draining = True
        for reader in self._readers:
            reader.cancel()

    async def classify(self, data: bytes, context: Context) -> bytes:
        """Answer one `Classify` call."""
        caller = self._requests.identify(context)
        with self._requests.hold(data):
            request = parse(pb.ClassifyRequest, data, self._items)
            answer = await self._answer(request, caller, current_call(), context)
            return answer.SerializeToString()

    async def get_model(self, data: bytes, context: Context) -> bytes:
        """Answer one `GetModel` call."""
        self._requests.identify(context)
        parse(pb.GetModelRequest, data)
        return self._model().SerializeToString()

    async def classify_stream(
        self, requests: AsyncIterator[bytes], context: Context
    ) -> AsyncIterator[bytes]:
        """Answer the requests of one stream in their order, a few at a time."""
        self._requests.identify(context)
        started: asyncio.Queue[asyncio.Task[bytes] | None] = asyncio.Queue()
        ahead = asyncio.Semaphore(_STREAM_AHEAD)

        async def read() -> None:
            try:
                async for data in requests:
                    # Acquire first: a task that is not in the queue would miss the clean-up.
                    await ahead.acquire()
                    started.put_nowait(asyncio.create_task(self._answer_streamed(data, context)))
            finally:
                started.put_nowait(None)

        reader = asyncio.create_task(read())
        self._readers.add(reader)
        task: asyncio.Task[bytes] | None = None
        try:
            while (task := await started.get()) is not None:
                yield await task
                ahead.release()
            if self._requests.draining and reader.cancelled():  # else the caller has sent all
                raise self._requests.refusal()
        finally:
            # The caller may have gone: cancel everything that its stream started.
            self._readers.discard(reader)
            reader.cancel()
            if task is not None:
                task.cancel()
            while not started.empty():
                if (rest := started.get_nowait()) is not None:
                    rest.cancel()

    async def _answer_streamed(self, data: bytes, context: Context) -> bytes:
        reply = pb.ClassifyStreamResponse()
        boundary = self._requests.boundary
        try:
            with boundary.record("ClassifyStream", context) as call, self._requests.hold(data):
                message = parse(pb.ClassifyStreamRequest, data, self._streamed)
                reply.id = message.id
                # For each message: a stream may outlive its token, or the quota that it began with.
                caller = self._requests.identify(context)
                answer = await self._answer(message.request, caller, call, context)
                reply.response.CopyFrom(answer)
        except Exception as error:  # noqa: BLE001 - the boundary of one message of a stream
            reply.error.CopyFrom(boundary.status(error))
            release(error)
        return reply.SerializeToString()

    async def _answer(
        self, request: pb.ClassifyRequest, caller: Caller, call: Call, context: Context
    ) -> pb.ClassifyResponse:
        """Classify one request, or raise the error of the whole request."""
        bulk = request.priority == pb.PRIORITY_BULK
        if bulk:
            # Counted separately: the latency objective is only for callers who wait.
            call.method += "Bulk"
        answers = await self._requests.classify(
            Request(
                texts=(_text_of(item) for item in request.items),
                count=len(request.items),
                caller=caller,
                sender=self._requests.sender(caller, context),
                seconds_left=seconds_left(context),
                bulk=bulk,
                explain=request.explain,
                neighbours=request.neighbours,
            )
        )
        return await _response(answers, request.items)

    def _model(self) -> pb.GetModelResponse:
        classifier, limits = self._requests.classifier, self._requests.limits
        manifest = classifier.bundle.manifest
        return pb.GetModelResponse(
            name=manifest.name,
            version=manifest.version,
            digest=classifier.bundle.digest,
            labels=manifest.labels,
            languages=manifest.languages,
            max_tokens=manifest.max_tokens,
            threshold=classifier.threshold,
            precision=classifier.precision,
            provider=classifier.engine.info.provider,
            server_version=self._version,
            limits=pb.Limits(
                max_items=limits.max_items,
                max_text_bytes=MAX_TEXT_BYTES,
                max_request_bytes=limits.max_request_bytes,
                max_waiting_texts=limits.max_waiting_texts,
                max_waiting_tokens=limits.max_waiting_tokens,
            ),
        )


async def _response(answers: Answers, items: Sequence[pb.ClassifyItem]) -> pb.ClassifyResponse:
    response = pb.ClassifyResponse(
        model_digest=answers.classifier.bundle.digest,
        timings=pb.Timings(
            tokenize_seconds=answers.tokenize_seconds,
            queue_seconds=answers.queue_seconds,
            engine_seconds=answers.engine_seconds,
            total_seconds=answers.total_seconds,
        ),
        labels=answers.classifier.labels,
    )

    async for part in slices([*enumerate(answers.results)]):
        for place, one in part:
            result = response.results.add()
            if isinstance(one, Prediction):
                _fill(result.prediction, one)
            else:
                result.error.CopyFrom(status_of(one, _path(place, items[place])))
    return response


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


def _fill(message: pb.Prediction, answer: Prediction) -> None:
    """Write *answer* into *message*, field by field: three times as fast as a new message."""
    message.label = answer.label
    message.probs.extend(answer.probs)
    if answer.score is not None:
        message.score = answer.score
    message.confidence = answer.confidence
    message.abstained = answer.abstained
    message.truncated = answer.truncated
    message.tokens = answer.tokens
    message.abstain_reason = _ABSTAIN_REASONS[answer.abstain_reason]
    for one in answer.sentences:
        message.sentences.add(
            start=one.start, end=one.end, label=one.label, probs=one.probs, change=one.change
        )
    for near in answer.neighbours:
        message.neighbours.add(id=near.id, label=near.label, similarity=near.similarity)
