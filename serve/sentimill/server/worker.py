"""One process of several behind a port: a server without an HTTP port, which reports to its parent.

The parent sends an empty message and gets a `Report`; a message is also the first thing that it
hears (`Started` or `Failed`), and a last report follows the drain. A parent that is gone, however
it went, is the end of the worker: it drains.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import msgspec

from sentimill.errors import OUTCOMES, SentimillError
from sentimill.observability.metrics import Metrics
from sentimill.observability.metrics_aggregation import Family, snapshot
from sentimill.observability.status import Status
from sentimill.server.lifecycle import Serve, on_signals

__all__ = ["Failed", "Order", "Report", "Started", "read", "work"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a worker is told to do.

    first: the bundle's folder to begin with, which may no longer be where the link leads; None for
    there. device: the GPU that it sees. prepare: sets up logging.
    """

    serve: Serve
    first: Path | None
    device: str | None
    prepare: Callable[[], None]


class Started(msgspec.Struct, tag=True, frozen=True):
    """Calls are answered."""

    address: str


class Failed(msgspec.Struct, tag=True, frozen=True):
    """Why no call is answered."""

    kind: str
    message: str
    reason: str

    def error(self) -> SentimillError:
        """Return it as what was raised."""
        kinds = {kind.__name__: kind for kind in OUTCOMES}
        return kinds.get(self.kind, SentimillError)(self.message, reason=self.reason)


class Report(msgspec.Struct, tag=True, frozen=True):
    """What a worker says of itself: its model, the folder that this is from, its metrics."""

    facts: dict[str, str]
    labels: tuple[str, ...]
    folder: str
    families: list[Family]


_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(Started | Failed | Report)


def read(data: bytes) -> Started | Failed | Report:
    """Return the message in *data*."""
    message: Started | Failed | Report = _decoder.decode(data)
    return message


def work(order: Order, parent: Connection) -> None:
    """Run as *order* says, in a process of its own, until SIGTERM or the end of the parent."""
    # A signal to the terminal's group is for the parent, which tells us.
    os.setpgrp()
    if order.device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = order.device
    order.prepare()
    asyncio.run(_work(order, parent))
    # All is said and drained. The interpreter's own end was seen to spin for half a minute inside
    # gRPC, with no Python frame left (1.81.1, after calls from several connections).
    logging.shutdown()
    os._exit(0)


async def _work(order: Order, parent: Connection) -> None:
    stop, reload = asyncio.Event(), asyncio.Event()
    on_signals(stop, reload)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})  # blocked by the parent till now
    status = Status(Metrics())
    loop = asyncio.get_running_loop()

    def report() -> Report:
        families = snapshot(status.metrics.registry)
        return Report(dict(status.model), status.labels, status.folder, families)

    def asked() -> None:
        try:
            parent.recv_bytes()
            parent.send_bytes(_encode(report()))
        except (EOFError, OSError):  # the parent is gone
            loop.remove_reader(parent.fileno())
            stop.set()

    async with AsyncExitStack() as stack:
        try:
            address = await order.serve.answer(stack, status, reload, order.first)
        except SentimillError as error:
            parent.send_bytes(_encode(Failed(type(error).__name__, str(error), error.reason)))
            return
        parent.send_bytes(_encode(Started(address)))
        loop.add_reader(parent.fileno(), asked)
        await stop.wait()
    loop.remove_reader(parent.fileno())
    try:
        parent.send_bytes(_encode(report()))
    except OSError:
        return  # nobody listens any more
