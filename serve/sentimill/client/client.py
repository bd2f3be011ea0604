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
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import cycle, islice
from typing import Generic, TypeAlias, TypeVar

import grpc
from google.protobuf.message import Message

from sentimill.client.channel import METHOD, Security, error_of
from sentimill.client.fallback import Fallback
from sentimill.client.messages import Answers, model_of
from sentimill.errors import InputError, UsageError
from sentimill.progress import progress_bar
from sentimill.types import Limits, Model, Result, list_of_texts
from sentimill.v1 import sentiment_pb2 as pb

_Future: TypeAlias = "grpc.Future[bytes]"
_AioCall: TypeAlias = "grpc.aio.UnaryUnaryCall[bytes, bytes]"
Call = TypeVar("Call", _Future, _AioCall)


class _Requests(Generic[Call]):
    """What both clients share: their settings, and the requests of one list of texts."""

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
            channels: connections, which requests use in turn. More than one helps if a single core
                cannot pack all the messages.
            concurrency: requests of one long list that run at once.
            security: TLS and a token; None connects without either.
            fallback: asks a large model where the student is unsure. Clients may share one.
        """
        if timeout_seconds <= 0 or channels < 1 or concurrency < 1:
            raise InputError(
                f"timeout_seconds {timeout_seconds}, channels {channels} and concurrency"
                f" {concurrency} must be above 0",
                reason="BAD_CLIENT",
            )
        self._address = address
        self._timeout = timeout_seconds
        self._count = channels
        self._concurrency = concurrency
        self._security = security or Security(tls=False)
        self._fallback = fallback
        self._metadata = self._security.metadata()
        self._limits: Limits | None = None
        self._closed = False
        self._connect()

    def _connect(self) -> None:
        """Make the channels. `AsyncClient` makes them later, in its event loop."""

    def _begin(self, method: str, message: Message) -> Call:
        """Send *message* over the next connection."""
        raise NotImplementedError

    def _check_open(self) -> None:
        if self._closed:
            raise UsageError("the client is closed: make a new one", reason="CLIENT_CLOSED")

    def _calls(
        self, requests: Iterator[tuple[list[int], Message]], texts: int, *, shown: bool
    ) -> Generator[tuple[list[int], Call]]:
        """Send *requests* with *texts* texts in all; yield each with the positions of its texts.

        The next request is sent when the oldest is answered. Closing the iterator cancels those
        that still run.
        """
        under_way: deque[tuple[list[int], Call]] = deque()
        with progress_bar(texts, shown=shown) as advance:
            try:
                while True:
                    for positions, request in islice(requests, self._concurrency - len(under_way)):
                        under_way.append((positions, self._begin("Classify", request)))
                    if not under_way:
                        return
                    positions, call = under_way.popleft()
                    yield positions, call
                    advance(len(positions))
            finally:
                for _, call in under_way:
                    call.cancel()


class Client(_Requests[_Future]):
    """A connection to one server, or to all servers behind one name. Threads may share it."""

    def classify(
        self,
        texts: Iterable[object],
        *,
        bulk: bool = False,
        progress: bool = False,
        explain: bool = False,
        neighbours: int = 0,
    ) -> list[Result]:
        """Return one result per text, in order; a text that cannot be classified gets its error.

        with Client("127.0.0.1:50051") as client:
            client.classify(["Good!", ""])[1].reason      # "EMPTY_TEXT"

        texts: a list, a pandas or polars Series, a numpy array or an Arrow array. A long list is
        sent as several requests of at most 256 texts, or fewer if `model` has told the client of
        lower limits. bulk: let interactive callers go first. progress: show a progress bar.
        explain: answer the sentences of each text too, see `Prediction.sentences`. neighbours: how
        many reviews of your index on the server an answer shows, at most 32.

        Raises `UnavailableError`, `DeadlineError`, `InputError` or another `SentimillError` when a
        whole request failed.
        """
        answers = Answers(list_of_texts(texts))
        requests = answers.requests(
            bulk=bulk, limits=self._limits, explain=explain, neighbours=neighbours
        )
        with closing(self._calls(requests, len(answers.texts), shown=progress)) as calls:
            for positions, call in calls:
                answers.add(positions, _result(call))
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

    def _connect(self) -> None:
        self._channels = [self._security.channel(self._address) for _ in range(self._count)]
        self._turn = cycle(self._channels)

    def _begin(self, method: str, message: Message) -> _Future:
        self._check_open()
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes]
        call = next(self._turn).unary_unary(METHOD + method)
        data = message.SerializeToString()
        return call.future(data, timeout=self._timeout, metadata=self._metadata)

    def close(self) -> None:
        """Close the connection. A later call raises UsageError."""
        self._closed = True
        for channel in self._channels:
            channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class AsyncClient(_Requests[_AioCall]):
    """The client for asyncio. It may be made before the event loop runs.

    async with AsyncClient("127.0.0.1:50051") as client:
        [one.label for one in await client.classify(["Good!", "Bad!"])]  # ["positive", "negative"]
    """

    _loop: asyncio.AbstractEventLoop | None = None
    _channels: Sequence[grpc.aio.Channel] = ()

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
        requests = answers.requests(
            bulk=bulk, limits=self._limits, explain=explain, neighbours=neighbours
        )
        with closing(self._calls(requests, len(answers.texts), shown=progress)) as calls:
            for positions, call in calls:
                answers.add(positions, await _answer(call))
        if self._fallback is None:
            return answers.results()
        return await asyncio.to_thread(self._fallback.improve, answers.texts, answers.results())

    async def model(self) -> Model:
        """See `Client.model`.

        async with AsyncClient("127.0.0.1:50051") as client:
            (await client.model()).limits.max_items      # 1024
        """
        found = model_of(await _answer(self._begin("GetModel", pb.GetModelRequest())))
        self._limits = found.limits
        return found

    def _begin(self, method: str, message: Message) -> _AioCall:
        self._check_open()
        loop = asyncio.get_running_loop()
        if self._loop is not loop:  # a channel belongs to one event loop
            self._loop = loop
            self._channels = [self._security.aio_channel(self._address) for _ in range(self._count)]
            self._turn = cycle(self._channels)
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
        call = next(self._turn).unary_unary(METHOD + method)
        data = message.SerializeToString()
        return call(data, timeout=self._timeout, metadata=self._metadata)

    async def close(self) -> None:
        """Close the connection. A later call raises UsageError."""
        self._closed = True
        if self._loop is asyncio.get_running_loop():
            await asyncio.gather(*(channel.close() for channel in self._channels))

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()


def _result(future: _Future) -> bytes:
    try:
        return future.result()
    except grpc.RpcError as error:
        raise error_of(error) from error


async def _answer(call: _AioCall) -> bytes:
    try:
        return await call
    except grpc.RpcError as error:
        raise error_of(error) from error
