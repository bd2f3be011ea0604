"""Typed clients of the service, one for threads and one for asyncio.

with Client("127.0.0.1:50051") as client:
    client.classify(["The battery is bad."])[0].label      # "negative"

For several servers, the address `dns:///sentimill.internal:50051` uses every address behind the
name in turn. A request that the server did not begin (UNAVAILABLE) is sent up to three more times
within its deadline, after the pause that the server asks for. No other failure is retried.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from itertools import cycle
from types import TracebackType
from typing import TypeAlias

import grpc
from google.protobuf.message import Message

from sentimill.client.channel import METHOD, error_of
from sentimill.client.credentials import Security
from sentimill.client.fallback import Fallback
from sentimill.client.messages import Answers, check_settings, model_of, requests_of
from sentimill.errors import UsageError
from sentimill.progress import progress_bar
from sentimill.types import Limits, Model, Result, list_of_texts
from sentimill.v1 import sentiment_pb2 as pb


class Client:
    """A connection to one server, or to all servers behind one name. Threads may share it."""

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
        """Store the settings; the first call connects.

        Args:
            address: host:port, or a gRPC target such as dns:///host:port.
            timeout_seconds: the deadline of each request, including its retries.
            channels: connections, which requests use in turn. More than one helps where a single
                core cannot pack all the messages.
            concurrency: requests of one long list that are under way at once.
            security: TLS and a token; None connects without either.
            fallback: asks a large model where the student is unsure. Clients may share one.
        """
        check_settings(timeout_seconds, channels, concurrency)
        self._timeout = timeout_seconds
        self._concurrency = concurrency
        self._fallback = fallback
        self._limits: Limits | None = None
        self._closed = False
        credentials = security or Security(tls=False)
        self._metadata = credentials.metadata()
        self._channels = [credentials.channel(address) for _ in range(channels)]
        self._turn = cycle(self._channels)

    def classify(
        self,
        texts: Iterable[object],
        *,
        bulk: bool = False,
        progress: bool = False,
        explain: bool = False,
        neighbours: int = 0,
    ) -> list[Result]:
        """Return one result a text, in order; a text that cannot be classified gets its error.

        with Client("127.0.0.1:50051") as client:
            client.classify(["Good!", ""])[1].reason      # "EMPTY_TEXT"

        texts: a list, a pandas or polars Series, a numpy array or an Arrow array. A long list is
        sent as several requests of at most 256 texts, or fewer where `model` told the client of
        lower limits. bulk: let interactive callers go first. progress: show a progress bar.
        explain: answer the sentences of each text too, see `Prediction.sentences`. neighbours: how
        many reviews of your index on the server an answer shows, at most 32.

        Raises `UnavailableError`, `DeadlineError`, `InputError` or another `SentimillError` when a
        whole request failed.
        """
        answers = Answers(list_of_texts(texts))
        requests = requests_of(
            answers, bulk=bulk, limits=self._limits, explain=explain, neighbours=neighbours
        )
        under_way: deque[tuple[list[int], _Future]] = deque()
        with progress_bar(len(answers.texts), shown=progress) as advance:

            def finish() -> None:
                positions, future = under_way.popleft()
                answers.add(positions, _result(future))
                advance(len(positions))

            try:
                for positions, request in requests:
                    if len(under_way) == self._concurrency:
                        finish()
                    under_way.append((positions, self._begin("Classify", request)))
                while under_way:
                    finish()
            finally:
                for _, future in under_way:
                    future.cancel()
        if self._fallback is None:
            return answers.results()
        return self._fallback.improve(answers.texts, answers.results())

    def model(self) -> Model:
        """Return what the server has loaded and accepts; lists are then split by its limits.

        with Client("127.0.0.1:50051") as client:
            client.model().labels      # ("negative", "neutral", "positive")
        """
        found = model_of(_result(self._begin("GetModel", pb.GetModelRequest())))
        self._limits = found.limits
        return found

    def close(self) -> None:
        """Close the connection. A later call raises UsageError."""
        self._closed = True
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
        if self._closed:
            raise _closed()
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes]
        call = next(self._turn).unary_unary(METHOD + method)
        data = message.SerializeToString()
        return call.future(data, timeout=self._timeout, metadata=self._metadata)


class AsyncClient:
    """The client for asyncio. It may be made before the event loop runs.

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
        """Store the settings, which are those of `Client`; the first call connects."""
        check_settings(timeout_seconds, channels, concurrency)
        self._address = address
        self._timeout = timeout_seconds
        self._concurrency = concurrency
        self._fallback = fallback
        self._limits: Limits | None = None
        self._closed = False
        self._security = security or Security(tls=False)
        self._metadata = self._security.metadata()
        self._count = channels
        self._loop: asyncio.AbstractEventLoop | None = None
        self._channels: list[grpc.aio.Channel] = []
        self._turn = cycle(self._channels)

    async def classify(
        self,
        texts: Iterable[object],
        *,
        bulk: bool = False,
        progress: bool = False,
        explain: bool = False,
        neighbours: int = 0,
    ) -> list[Result]:
        """See `Client.classify`.

        async with AsyncClient("127.0.0.1:50051") as client:
            (await client.classify(["Good!"], bulk=True))[0].label      # "positive"
        """
        answers = Answers(list_of_texts(texts))
        requests = requests_of(
            answers, bulk=bulk, limits=self._limits, explain=explain, neighbours=neighbours
        )
        under_way: deque[tuple[list[int], asyncio.Task[bytes]]] = deque()
        with progress_bar(len(answers.texts), shown=progress) as advance:

            async def finish() -> None:
                positions, task = under_way.popleft()
                answers.add(positions, await task)
                advance(len(positions))

            try:
                for positions, request in requests:
                    if len(under_way) == self._concurrency:
                        await finish()
                    task = asyncio.create_task(self._call("Classify", request))
                    under_way.append((positions, task))
                while under_way:
                    await finish()
            finally:
                for _, task in under_way:
                    task.cancel()
                await asyncio.gather(*(task for _, task in under_way), return_exceptions=True)
        if self._fallback is None:
            return answers.results()
        return await asyncio.to_thread(self._fallback.improve, answers.texts, answers.results())

    async def model(self) -> Model:
        """See `Client.model`.

        async with AsyncClient("127.0.0.1:50051") as client:
            (await client.model()).limits.max_items      # 1024
        """
        found = model_of(await self._call("GetModel", pb.GetModelRequest()))
        self._limits = found.limits
        return found

    async def close(self) -> None:
        """Close the connection. A later call raises UsageError."""
        self._closed = True
        if self._loop is asyncio.get_running_loop():
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
        call = self._next_channel().unary_unary(METHOD + method)
        try:
            data = message.SerializeToString()
            return await call(data, timeout=self._timeout, metadata=self._metadata)
        except grpc.RpcError as error:
            raise error_of(error) from error

    def _next_channel(self) -> grpc.aio.Channel:
        """Return the channel whose turn it is; a channel belongs to one event loop."""
        if self._closed:
            raise _closed()
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop = loop
            self._channels = [self._security.aio_channel(self._address) for _ in range(self._count)]
            self._turn = cycle(self._channels)
        return next(self._turn)


_Future: TypeAlias = "grpc.Future[bytes]"


def _result(future: _Future) -> bytes:
    try:
        return future.result()
    except grpc.RpcError as error:
        raise error_of(error) from error


def _closed() -> UsageError:
    return UsageError("the client is closed: make a new one", reason="CLIENT_CLOSED")
