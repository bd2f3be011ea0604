"""Typed clients of the service, synchronous and asyncio.

with Client("127.0.0.1:50051") as client:
    client.classify(["The battery died in a week."])[0].label      # "negative"
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from sentimill.classifier import Prediction
from sentimill.errors import (
    OUTCOMES,
    DeadlineError,
    EngineError,
    InputError,
    QuotaError,
    SentimillError,
    TextError,
    UnavailableError,
)
from sentimill.fallback import Fallback, Result
from sentimill.text import check_size
from sentimill.v1 import sentiment_pb2 as pb

__all__ = ["AsyncClient", "Client", "Model"]

_METHOD: Final = "/sentimill.v1.SentimentService/"
_MAX_ITEMS: Final = 256
"""Texts in one request: enough to fill batches, few enough to keep a call's latency even."""

_MAX_BYTES: Final = 2 << 20
"""Bytes of text in one request, a quarter of what the server accepts."""

_OPTIONS: Final = (("grpc.max_receive_message_length", 16 << 20),)


@dataclass(frozen=True, slots=True)
class Model:
    """The model that a server has loaded; fields as in `GetModelResponse`."""

    name: str
    version: str
    digest: str
    labels: tuple[str, ...]
    max_tokens: int
    precision: str
    provider: str
    threshold: float | None


class Client:
    """A connection to one server. Threads may share it."""

    def __init__(
        self, address: str, *, timeout_seconds: float = 30.0, fallback: Fallback | None = None
    ) -> None:
        """Connect lazily to *address* (host:port); each request has *timeout_seconds*.

        *fallback* asks a large model where the student is unsure.
        """
        self._channel = grpc.insecure_channel(address, options=_OPTIONS)
        self._timeout = timeout_seconds
        self._fallback = fallback

    def classify(self, texts: Sequence[str]) -> list[Result]:
        """Return one result a text, in order; a text that cannot be classified gets its error.

        A long list is sent as several requests. Raises `UnavailableError`, `DeadlineError`,
        `InputError` or another `SentimillError` when a whole request failed.
        """
        results: list[Result | None] = [None] * len(texts)
        for places, request in _requests(texts, results):
            data = self._call("Classify", request)
            _fill(results, places, pb.ClassifyResponse.FromString(data))
        found = [result for result in results if result is not None]
        return found if self._fallback is None else self._fallback.improve(texts, found)

    def model(self) -> Model:
        """Return what the server has loaded."""
        data = self._call("GetModel", pb.GetModelRequest())
        return _model(pb.GetModelResponse.FromString(data))

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _call(self, method: str, message: Message) -> bytes:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes]
        call = self._channel.unary_unary(_METHOD + method)
        try:
            return call(message.SerializeToString(), timeout=self._timeout)
        except grpc.RpcError as error:
            raise _error(error) from error


class AsyncClient:
    """A connection to one server for asyncio; use it within one event loop."""

    def __init__(
        self, address: str, *, timeout_seconds: float = 30.0, fallback: Fallback | None = None
    ) -> None:
        """Connect lazily to *address* (host:port); each request has *timeout_seconds*.

        *fallback* asks a large model where the student is unsure.
        """
        self._channel = grpc.aio.insecure_channel(address, options=_OPTIONS)
        self._timeout = timeout_seconds
        self._fallback = fallback

    async def classify(self, texts: Sequence[str]) -> list[Result]:
        """See `Client.classify`."""
        results: list[Result | None] = [None] * len(texts)
        for places, request in _requests(texts, results):
            data = await self._call("Classify", request)
            _fill(results, places, pb.ClassifyResponse.FromString(data))
        found = [result for result in results if result is not None]
        if self._fallback is None:
            return found
        return await asyncio.to_thread(self._fallback.improve, texts, found)

    async def model(self) -> Model:
        """See `Client.model`."""
        data = await self._call("GetModel", pb.GetModelRequest())
        return _model(pb.GetModelResponse.FromString(data))

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def _call(self, method: str, message: Message) -> bytes:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
        call = self._channel.unary_unary(_METHOD + method)
        try:
            return await call(message.SerializeToString(), timeout=self._timeout)
        except grpc.RpcError as error:
            raise _error(error) from error


def _requests(
    texts: Sequence[str], results: list[Result | None]
) -> Iterator[tuple[list[int], pb.ClassifyRequest]]:
    """Yield requests within the limits on items and bytes, and the places of their texts.

    A text that no server takes gets its error in *results* and is not sent: it would take its
    neighbours with it.
    """
    if isinstance(texts, str):
        why = "classify takes a list of texts and was given one string: write classify([text])"
        raise InputError(why, reason="NOT_A_LIST")
    places: list[int] = []
    items: list[pb.ClassifyItem] = []
    size = 0
    for place, text in enumerate(texts):
        # As bytes, so that a lone surrogate fails its own text and not the whole message.
        data = text.encode("utf-8", "surrogatepass")
        try:
            check_size(len(data))
        except TextError as error:
            results[place] = error
            continue
        if items and (len(items) == _MAX_ITEMS or size + len(data) > _MAX_BYTES):
            yield places, pb.ClassifyRequest(items=items)
            places, items, size = [], [], 0
        places.append(place)
        items.append(pb.ClassifyItem(utf8=data))
        size += len(data)
    if items:
        yield places, pb.ClassifyRequest(items=items)


def _fill(results: list[Result | None], places: list[int], response: pb.ClassifyResponse) -> None:
    for place, result in zip(places, response.results, strict=True):
        if result.WhichOneof("outcome") == "prediction":
            got = result.prediction
            results[place] = Prediction(
                label=got.label,
                probs=tuple(got.probs),
                score=got.score if got.HasField("score") else None,
                confidence=got.confidence,
                abstained=got.abstained,
                truncated=got.truncated,
                tokens=got.tokens,
            )
        else:
            kind = EngineError if result.error.code == OUTCOMES[EngineError].code else TextError
            results[place] = kind(result.error.message, reason=_reason(result.error))


def _model(response: pb.GetModelResponse) -> Model:
    return Model(
        name=response.name,
        version=response.version,
        digest=response.digest,
        labels=tuple(response.labels),
        max_tokens=response.max_tokens,
        precision=response.precision,
        provider=response.provider,
        threshold=response.threshold if response.HasField("threshold") else None,
    )


# Codes that say more to a caller than "failed"; gRPC itself raises some of them without ErrorInfo.
_KINDS: Final[dict[grpc.StatusCode, type[SentimillError]]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InputError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: QuotaError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineError,
}


def _error(error: grpc.RpcError) -> SentimillError:
    """Return the error of our own tree for what gRPC raised."""
    assert isinstance(error, grpc.Call | grpc.aio.AioRpcError)
    code = error.code()
    status = status_pb2.Status()
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            status.ParseFromString(value)
    kind = _KINDS.get(code, SentimillError)
    return kind(error.details() or code.name, reason=_reason(status) or code.name)


def _reason(status: status_pb2.Status) -> str:
    for detail in status.details:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            return str(info.reason)
    return ""
