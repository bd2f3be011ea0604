"""`serve --workers N`: several processes behind one port, and a supervisor that serves no calls.

The workers listen on the same port (SO_REUSEPORT), and the kernel gives each new connection to one
of them. The supervisor holds the port, passes signals on, replaces workers that die or hang, and
serves the one HTTP port: its metrics are the sum of the workers', collected at each scrape.
"""

from __future__ import annotations

import logging
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from sentimill.engine.hardware import gpus, usable_cores
from sentimill.errors import UsageError
from sentimill.observability.http_server import HttpServer
from sentimill.observability.metrics import Metrics, WorkerMetrics
from sentimill.observability.metrics_aggregation import AggregatedMetrics, Family, merged, snapshot
from sentimill.observability.status import Status
from sentimill.server.addresses import host_port, port_busy
from sentimill.server.lifecycle import Serving
from sentimill.server.settings import Serve
from sentimill.server.workers.worker import WorkerConfig
from sentimill.server.workers.worker_process import WorkerProcess

log = logging.getLogger(__name__)

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

_GRACE_SECONDS: Final = 10.0
"""How long a worker may take to end after notice and drain, before it is killed."""


def run_workers(
    settings: Serve, count: int, prepare: Callable[[], None], started: Callable[[Serving], None]
) -> None:
    """Serve from *count* processes until SIGTERM or SIGINT, then drain all.

    SIGHUP makes all load the bundle again. For the main thread. prepare: sets up logging in each.
    Raises the error of a worker that cannot start.
    """
    settings.check_host()
    if settings.playground:
        why = "--playground needs a single process: leave --workers out"
        raise UsageError(why, reason="BAD_WORKERS")
    with _signals() as wait_for_signal, ExitStack() as stack:
        holder = stack.enter_context(_hold(settings.host, settings.port))
        port = holder.getsockname()[1]
        pool = _WorkerPool(settings, count, prepare, port)
        http = HttpServer(pool.status, settings.metrics_host, settings.metrics_port)
        stack.callback(http.close)
        stack.callback(pool.stop)
        pool.start()
        if _begun(pool, wait_for_signal):
            pool.status.sample()  # so that the page knows the model at once
            started(
                Serving(
                    address=host_port(settings.host, port),
                    metrics_address=host_port(settings.metrics_host, http.port),
                )
            )
            while wait_for_signal(None) == signal.SIGHUP:
                pool.reload()
            log.info("draining %d workers", count)
    log.info("stopped")


def _begun(pool: _WorkerPool, wait_for_signal: Callable[[float | None], int | None]) -> bool:
    """Wait until all workers answer calls; return False if a signal stops the server before."""
    while not pool.begun():
        number = wait_for_signal(0.05)
        if number == signal.SIGHUP:
            pool.reload()
        elif number is not None:
            return False
    return True


class _WorkerPool:
    """All workers: starts, reloads and stops them, and adds up their metrics."""

    def __init__(self, settings: Serve, count: int, prepare: Callable[[], None], port: int) -> None:
        self._seconds = settings.notice_seconds + settings.drain_seconds + _GRACE_SECONDS
        threads = settings.threads or max(1, usable_cores() // count)
        self._settings = replace(
            settings,
            port=port,
            shared_port=True,
            threads=threads,
            # Workers do not share their counts, so each grants its part of every quota.
            quota_share=1 / count,
        )
        self._prepare = prepare
        self._devices = [] if self._settings.provider == "cpu" else gpus()
        metrics = Metrics(shown=AggregatedMetrics(self.families).registry)
        self._own = metrics.registry
        self._metrics = WorkerMetrics(metrics.registry)
        self._metrics.workers.set(count)
        self._folder: Path | None = None
        self._lock = threading.Lock()
        self._workers = [
            WorkerProcess(i, self._worker_config, self._metrics, self._changed)
            for i in range(count)
        ]
        self.status = Status(metrics)

    def start(self) -> None:
        """Start all."""
        for worker in self._workers:
            worker.start()

    def begun(self) -> bool:
        """Return whether all answer calls. Raises the error of a worker that cannot start."""
        for worker in self._workers:
            if worker.failed is not None:
                raise worker.failed
        return all(worker.began for worker in self._workers)

    def reload(self) -> None:
        """Make all load the bundle again."""
        for worker in self._workers:
            worker.reload()

    def stop(self) -> None:
        """Drain all at once, and return when they have ended."""
        self.status.drain()
        for worker in self._workers:
            worker.stop()
        end = time.monotonic() + self._seconds
        for worker in self._workers:
            worker.join(end)

    def families(self) -> list[Family]:
        """Return the metrics of all workers, with the counts of those that have ended."""
        members = [one for worker in self._workers for one in worker.families()]
        reports = [worker.last for worker in self._workers if worker.last is not None]
        if reports:
            self.status.model, self.status.labels = reports[0].facts, reports[0].labels
            # A replacement worker starts with the model that the others have.
            self._folder = Path(reports[0].folder)
        return merged([snapshot(self._own), *members])

    def _worker_config(self, number: int) -> WorkerConfig:
        devices = self._devices
        return WorkerConfig(
            serve=self._settings,
            first=self._folder,
            device=devices[number % len(devices)] if devices else None,
            prepare=self._prepare,
        )

    def _changed(self) -> None:
        """Update the readiness of the server from that of the workers."""
        with self._lock:
            ready = sum(worker.ready for worker in self._workers)
            self._metrics.ready.set(ready)
            if self.status.state == "starting" and all(one.began for one in self._workers):
                # Health is only of this process: a stuck worker is replaced, and the others serve.
                self.status.serve(self.status.model, self.status.labels, lambda: True)
            self.status.set_healthy(ready > 0)


@contextmanager
def _signals() -> Iterator[Callable[[float | None], int | None]]:
    """Yield a function that returns the next of `_SIGNALS`, or None after a number of seconds.

    The signals are not masked: imported libraries start threads, and a signal that the main thread
    blocks would end the process through one of those.
    """
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)

    def wait_for_signal(seconds: float | None) -> int | None:
        ours.settimeout(seconds)
        try:
            return ours.recv(1)[0]
        except TimeoutError:
            return None

    with ours, theirs:
        fd = signal.set_wakeup_fd(theirs.fileno())
        # Python only writes the numbers of signals that have a Python handler.
        handlers = {number: signal.signal(number, lambda *_: None) for number in _SIGNALS}
        try:
            yield wait_for_signal
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(fd)


def _hold(host: str, port: int) -> socket.socket:
    """Take *port* without listening, for the workers to share. Raises UsageError if it is taken.

    The kernel gives connections only to sockets that listen.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            # Without SO_REUSEPORT: a second server must not share the port.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            address = probe.getsockname()
        holder = socket.socket(family, kind, protocol)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind(address)
    except OSError as error:
        raise port_busy(host, port) from error
    return holder
