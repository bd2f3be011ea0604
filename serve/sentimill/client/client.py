"""Typed clients of the service, synchronous and asyncio.

with Client("127.0.0.1:50051") as client:
    client.classify(["The battery is bad."])[0].label      # "negative"

Several servers: `dns:///sentimill.internal:50051` takes every address behind the name in turn.
A request that the server did not begin (UNAVAILABLE) is tried three more times within its
deadline, after the pause that the server asks for; nothing else is.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from itertools import cycle
from types import TracebackType
from typing import TypeAlias

import grpc
from google.protobuf.message import Message

from sentimill.client.channel import (
    METHOD,
    Limits,
    Model,
    Result,
    Security,
    check_settings,
    error_of,
    fill,
    model_of,
    requests_of,
)
from sentimill.client.fallback import Fallback
from sentimill.v1 import sentiment_pb2 as pb

__all__ = ["AsyncClient", "Client", "Fallback", "Limits", "Model", "Security"]


class Client:
    """A connection to one server, or to all behind one name. Threads may share it."""

    def __init__(
        self,
        address: str,
        *,
        timeout_seconds: float = 30.0,
        channels: int = 1,
        concurrency: int = 4,
        security: Security | None = None,
        fallback: Fallback | None = None,
    ) -> None:
        """Connect lazily to *address*, host:port or a gRPC target such as dns:///host:port.

        Args:
            address: where the server is.
            timeout_seconds: the deadline of each request, its further tries included.
            channels: connections, over which requests take turns; more than one pays where a
                single core cannot pack all the messages.
            concurrency: requests of one long list that are under way at once.
            security: TLS and a token; None is a bare connection.
            fallback: asks a large model where the student is unsure; clients may share one.
        """
        check_settings(timeout_seconds, channels, concurrency)
        self._timeout = timeout_seconds
        self._concurrency = concurrency
        self._fallback = fallback
        self._limits: Limits | None = None
        known = security or Security(tls=False)
        self._metadata = known.metadata()
        self._channels = [known.channel(address) for _ in range(channels)]
        self._turn = cycle(self._channels)

    def classify(self, texts: Sequence[str], *, bulk: bool = False) -> list[Result]:
        """Return one result a text, in order; a text that cannot be classified gets its error.

        with Client("127.0.0.1:50051") as client:
            client.classify(["Good!", ""])[1].reason      # "EMPTY_TEXT"

        A long list is sent as several requests, of 256 texts at most, or fewer where `model` told
        of lower limits. bulk: let interactive callers go first. Raises `UnavailableError`,
        `DeadlineError`, `InputError` or another `SentimillError` when a whole request failed.
        """
        results: list[Result | None] = [None] * len(texts)
        under_way: deque[tuple[list[int], _Future]] = deque()
        try:
            for places, request in requests_of(texts, results, bulk=bulk, limits=self._limits):
                if len(under_way) == self._concurrency:
                    fill(results, *_finish(under_way))
                under_way.append((places, self._begin("Classify", request)))
            while under_way:
                fill(results, *_finish(under_way))
        finally:
            for _, future in under_way:
                future.cancel()
        found = [result for result in results if result is not None]
        return found if self._fallback is None else self._fallback.improve(texts, found)

    def model(self) -> Model:
        """Return what the server has loaded and accepts; lists are then split by its limits.

        with Client("127.0.0.1:50051") as client:
            client.model().labels      # ("negative", "neutral", "positive")
        """
        found = model_of(_result(self._begin("GetModel", pb.GetModelRequest())))
        self._limits = found.limits
        return found

    def close(self) -> None:
        """Close the connection."""
        for channel in self._channels:
            channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _begin(self, method: str, message: Message) -> _Future:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes]
        call = next(self._turn).unary_unary(METHOD + method)
        data = message.SerializeToString()
        return call.future(data, timeout=self._timeout, metadata=self._metadata)


class AsyncClient:
    """As `Client`, for asyncio; use it within one event loop.

    async with AsyncClient("127.0.0.1:50051") as client:
        [one.label for one in await client.classify(["Good!", "Bad!"])]  # ["positive", "negative"]
    """

    def __init__(
        self,
        address: str,
        *,
        timeout_seconds: float = 30.0,
        channels: int = 1,
        concurrency: int = 4,
        security: Security | None = None,
        fallback: Fallback | None = None,
    ) -> None:
        """Connect lazily to *address*, host:port or a gRPC target such as dns:///host:port.

        The settings are those of `Client`.
        """
        check_settings(timeout_seconds, channels, concurrency)
        self._timeout = timeout_seconds
        self._concurrency = concurrency
        self._fallback = fallback
        self._limits: Limits | None = None
        known = security or Security(tls=False)
        self._metadata = known.metadata()
        self._channels = [known.aio_channel(address) for _ in range(channels)]
        self._turn = cycle(self._channels)

    async def classify(self, texts: Sequence[str], *, bulk: bool = False) -> list[Result]:
        """See `Client.classify`.

        async with AsyncClient("127.0.0.1:50051") as client:
            (await client.classify(["Good!"], bulk=True))[0].label      # "positive"
        """
        results: list[Result | None] = [None] * len(texts)
        under_way: deque[tuple[list[int], asyncio.Task[bytes]]] = deque()
        try:
            for places, request in requests_of(texts, results, bulk=bulk, limits=self._limits):
                if len(under_way) == self._concurrency:
                    first, task = under_way.popleft()
                    fill(results, first, await task)
                under_way.append((places, asyncio.create_task(self._call("Classify", request))))
            while under_way:
                places, task = under_way.popleft()
                fill(results, places, await task)
        finally:
            for _, task in under_way:
                task.cancel()
            await asyncio.gather(*(task for _, task in under_way), return_exceptions=True)
        found = [result for result in results if result is not None]
        if self._fallback is None:
            return found
        return await asyncio.to_thread(self._fallback.improve, texts, found)

    async def model(self) -> Model:
        """See `Client.model`.

        async with AsyncClient("127.0.0.1:50051") as client:
            (await client.model()).limits.max_items      # 1024
        """
        found = model_of(await self._call("GetModel", pb.GetModelRequest()))
        self._limits = found.limits
        return found

    async def close(self) -> None:
        """Close the connection."""
        await asyncio.gather(*(channel.close() for channel in self._channels))

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
        call = next(self._turn).unary_unary(METHOD + method)
        try:
            data = message.SerializeToString()
            return await call(data, timeout=self._timeout, metadata=self._metadata)
        except grpc.RpcError as error:
            raise error_of(error) from error


_Future: TypeAlias = "grpc.Future[bytes]"


def _finish(under_way: deque[tuple[list[int], _Future]]) -> tuple[list[int], bytes]:
    places, future = under_way.popleft()
    return places, _result(future)


def _result(future: _Future) -> bytes:
    try:
        return future.result()
    except grpc.RpcError as error:
        raise error_of(error) from error
