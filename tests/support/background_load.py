"""Calls that keep a server busy from a thread of their own, until they are told to stop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import grpc

from live_server import WAIT_SECONDS
from raw_calls import request_of
from sentimill.server.sentiment_service import SERVICE


class Load:
    """What was asked, and how it was answered: calls by code."""

    def __init__(self) -> None:
        self.codes: dict[str, int] = {}
        self._stop = threading.Event()

    def stopped(self) -> bool:
        """Return whether to make no more calls."""
        return self._stop.is_set()

    def stop(self) -> None:
        """Make no more calls."""
        self._stop.set()

    def count(self, code: grpc.StatusCode) -> None:
        """Count one answer."""
        self.codes[code.name] = self.codes.get(code.name, 0) + 1


@contextmanager
def load(address: str, texts: Sequence[str], *, callers: int, pause: float = 0.0) -> Iterator[Load]:
    """Have *callers* send *texts* in one call after the other; each waits *pause* in between."""
    made = Load()
    data = request_of(*texts).SerializeToString()

    async def call(channel: grpc.aio.Channel) -> None:
        method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
        method = channel.unary_unary(f"/{SERVICE}/Classify")
        while not made.stopped():
            try:
                await method(data, timeout=WAIT_SECONDS)
                made.count(grpc.StatusCode.OK)
            except grpc.aio.AioRpcError as error:
                made.count(error.code())
            await asyncio.sleep(pause)

    async def everybody() -> None:
        async with grpc.aio.insecure_channel(address) as channel:
            await asyncio.gather(*(call(channel) for _ in range(callers)))

    thread = threading.Thread(target=lambda: asyncio.run(everybody()), name="load")
    thread.start()
    try:
        yield made
    finally:
        made.stop()
        thread.join(WAIT_SECONDS)
