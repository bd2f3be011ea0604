"""One of several worker processes behind a port: a server that reports to its supervisor.

The supervisor sends an empty message and gets a `Report`. The first message to it is `Started` or
`Failed`, and a last report follows the drain. When the supervisor is gone, the worker drains too.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeAlias

import msgspec

from sentimill.errors import OUTCOMES, EngineError, SentimillError
from sentimill.observability.json_logging import log_in_background
from sentimill.observability.metrics import Metrics
from sentimill.observability.metrics_aggregation import Family, snapshot
from sentimill.observability.status import Status
from sentimill.server.daemon_thread import end_process
from sentimill.server.lifecycle import Signals, answer
from sentimill.server.settings import Serve


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig:
    """The settings of a worker.

    first: the bundle folder to load first, even if the link now leads elsewhere; None follows the
    link. device: the GPU that the worker sees. prepare: sets up logging.
    """

    serve: Serve
    first: Path | None
    device: str | None
    prepare: Callable[[], None]


class Started(msgspec.Struct, tag=True, frozen=True):
    """Calls are answered."""


class Failed(msgspec.Struct, tag=True, frozen=True):
    """Why the worker cannot start."""

    kind: str
    message: str
    reason: str

    def error(self) -> SentimillError:
        """Return it as the error that was raised."""
        kinds = {kind.__name__: kind for kind in OUTCOMES}
        return kinds.get(self.kind, SentimillError)(self.message, reason=self.reason)


class Report(msgspec.Struct, tag=True, frozen=True):
    """A worker's model, the folder of the model, its metrics, and whether it is ready."""

    facts: dict[str, str]
    labels: tuple[str, ...]
    folder: str
    families: list[Family]
    ready: bool


Message: TypeAlias = Started | Failed | Report
encode = msgspec.msgpack.Encoder().encode
decode: Callable[[bytes], Message] = msgspec.msgpack.Decoder(Message).decode


def work(config: WorkerConfig, parent: Connection) -> None:
    """Run as *config* says, in a process of its own, until SIGTERM or the end of the parent."""
    # A signal to the terminal's group is for the parent, which passes it on.
    os.setpgrp()
    if config.device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = config.device
    config.prepare()
    with log_in_background():
        fault = asyncio.run(_work(config, parent))
        # Everything is drained. The interpreter's own exit was seen to spin for half a minute
        # inside gRPC, with no Python frame left (1.81.1, after calls from several connections).
        end_process(0 if fault is None else 1)


async def _work(config: WorkerConfig, parent: Connection) -> EngineError | None:
    """Serve until a signal, the end of the parent, or a fault of the engine, which is returned."""
    signals = Signals()
    signals.install()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})  # the parent has blocked it
    status = Status(Metrics())
    loop = asyncio.get_running_loop()

    def report() -> bytes:
        families = snapshot(status.metrics.registry)
        ready = status.state == "serving"
        return encode(Report(dict(status.model), status.labels, status.folder, families, ready))

    def asked() -> None:
        try:
            parent.recv_bytes()
            parent.send_bytes(report())
        except (EOFError, OSError):  # the parent is gone
            loop.remove_reader(parent.fileno())
            signals.stop.set()

    async with AsyncExitStack() as stack:
        try:
            starting = answer(config.serve, stack, status, signals, config.first)
            address = await signals.unless_stopped(starting)
        except SentimillError as error:
            parent.send_bytes(encode(Failed(type(error).__name__, str(error), error.reason)))
            return None
        if address is None:
            return None
        parent.send_bytes(encode(Started()))
        loop.add_reader(parent.fileno(), asked)
        await signals.stop.wait()
    loop.remove_reader(parent.fileno())
    with suppress(OSError):  # the parent may be gone
        parent.send_bytes(report())
    return signals.fault
