"""`serve --workers N`: several processes behind one port, kept by a parent that serves nothing.

The workers listen on the same port (SO_REUSEPORT), and the kernel gives each new connection to one
of them. The parent holds the port, passes signals on, starts what died again, and has the one HTTP
port: its metrics are the sum of the workers', asked for at each scrape.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Final

from sentimill.engine.hardware import gpus, usable_cores
from sentimill.errors import EngineError, SentimillError
from sentimill.observability.http_server import HttpServer
from sentimill.observability.metrics import Metrics, WorkerMetrics
from sentimill.observability.metrics_aggregation import (
    AggregatedMetrics,
    Family,
    lasting,
    merged,
    snapshot,
    total,
)
from sentimill.observability.status import Status
from sentimill.server.lifecycle import Serve, Serving
from sentimill.server.server import host_port, port_busy
from sentimill.server.worker import Failed, Order, Report, Started, read, work

__all__ = ["Workers"]

log = logging.getLogger(__name__)

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_ANSWER_SECONDS: Final = 2.0
"""A worker that takes longer to report is stuck."""

_LEAST_WAIT: Final = 0.5
_MOST_WAIT: Final = 30.0
"""Seconds before a worker that died is started again; doubled each time, up to the second."""

_LIVED_SECONDS: Final = 60.0
"""A worker that lived so long had no fault in its start: the wait is short again."""

_GRACE_SECONDS: Final = 10.0
"""Past notice and drain, a worker has so long to end before it is killed."""


@dataclass(frozen=True, kw_only=True)
class Workers:
    """Serve one bundle from *count* processes. prepare: sets up logging in each."""

    serve: Serve
    count: int
    prepare: Callable[[], None]

    def run(self, started: Callable[[Serving], None]) -> None:
        """Serve until SIGTERM or SIGINT, then drain all; SIGHUP makes all load the bundle anew.

        For the main thread. Raises what a worker raises that cannot begin.
        """
        with _signals() as wait_for_signal, ExitStack() as stack:
            self._run(stack, started, wait_for_signal)
        log.info("stopped")

    def _run(
        self,
        stack: ExitStack,
        started: Callable[[Serving], None],
        wait_for_signal: Callable[[float | None], int | None],
    ) -> None:
        self.serve.check_host()
        holder = stack.enter_context(_hold(self.serve.host, self.serve.port))
        address = host_port(self.serve.host, holder.getsockname()[1])
        pool = _Pool(self, holder.getsockname()[1])
        port = HttpServer(pool.status, self.serve.metrics_host, self.serve.metrics_port)
        stack.callback(port.close)
        stack.callback(pool.stop)
        pool.start()
        while not pool.begun():
            number = wait_for_signal(0.05)
            if number == signal.SIGHUP:
                pool.reload()
            elif number is not None:
                return
        pool.status.sample()  # so that the page knows the model at once
        web = host_port(self.serve.metrics_host, port.port)
        started(Serving(address=address, metrics_address=web))
        while wait_for_signal(None) == signal.SIGHUP:
            pool.reload()
        log.info("draining %d workers", self.count)


class _Pool:
    """The workers, and what they are together."""

    def __init__(self, config: Workers, port: int) -> None:
        self._seconds = config.serve.notice_seconds + config.serve.drain_seconds + _GRACE_SECONDS
        threads = config.serve.threads or max(1, usable_cores() // config.count)
        self._serve = replace(config.serve, port=port, shared_port=True, threads=threads)
        self._prepare = config.prepare
        self._devices = [] if self._serve.provider == "cpu" else gpus()
        metrics = Metrics(shown=AggregatedMetrics(self.families).registry)
        self._own = metrics.registry
        self._metrics = WorkerMetrics(metrics.registry)
        self._metrics.workers.set(config.count)
        self._folder: Path | None = None
        self._lock = threading.Lock()
        self._workers = [
            _Worker(i, self._order, self._metrics, self._changed) for i in range(config.count)
        ]
        self.status = Status(metrics)

    def start(self) -> None:
        """Start all."""
        for worker in self._workers:
            worker.start()

    def begun(self) -> bool:
        """Return whether all answer calls. Raises the error of one that cannot begin."""
        for worker in self._workers:
            if worker.failed is not None:
                raise worker.failed
        return all(worker.began for worker in self._workers)

    def reload(self) -> None:
        """Make all load the bundle anew."""
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
        """Return the metrics of all, with those of workers that have ended as far as they last."""
        members = [one for worker in self._workers for one in worker.families()]
        reports = [worker.last for worker in self._workers if worker.last is not None]
        if reports:
            self.status.model, self.status.labels = reports[0].facts, reports[0].labels
            # A worker that dies begins anew with what the others have, wherever the link leads.
            self._folder = Path(reports[0].folder)
        return merged([snapshot(self._own), *members])

    def _order(self, number: int) -> Order:
        devices = self._devices
        return Order(
            serve=self._serve,
            first=self._folder,
            device=devices[number % len(devices)] if devices else None,
            prepare=self._prepare,
        )

    def _changed(self) -> None:
        """Say what the number of workers that answer makes of the server."""
        with self._lock:
            ready = sum(worker.ready for worker in self._workers)
            self._metrics.ready.set(ready)
            if ready == 0:
                self.status.pause()
            elif self.status.state == "starting" and all(one.began for one in self._workers):
                self.status.serve(self.status.model, self.status.labels, self._alive)

    def _alive(self) -> bool:
        return all(worker.answers() for worker in self._workers)


class _Worker:
    """One place for a process: a thread keeps one running in it."""

    def __init__(
        self,
        number: int,
        order: Callable[[int], Order],
        metrics: WorkerMetrics,
        changed: Callable[[], None],
    ) -> None:
        self.began = False
        self.ready = False
        self.failed: SentimillError | None = None
        self.last: Report | None = None
        self._number = number
        self._order = order
        self._changed = changed
        self._restarts = metrics.restarts.labels(str(number))
        self._texts = metrics.texts.labels(str(number))
        self._counted = 0.0
        self._gone: list[Family] = []
        self._process: SpawnProcess | None = None
        self._pipe: Connection | None = None
        self._stopping = threading.Event()
        self._starting = threading.Lock()
        self._asking = threading.Lock()
        self._thread = threading.Thread(target=self._keep, name=f"worker {number}")

    def start(self) -> None:
        """Start the process, and start it again whenever it dies."""
        self._thread.start()

    def reload(self) -> None:
        """Send SIGHUP to the process, if there is one."""
        with self._starting:
            process = self._process
            if process is not None and process.is_alive() and process.pid is not None:
                os.kill(process.pid, signal.SIGHUP)

    def stop(self) -> None:
        """Tell the process to drain, and start no other."""
        with self._starting:
            self._stopping.set()
            if self._process is not None:
                self._process.terminate()

    def join(self, end: float) -> None:
        """Wait for the process up to *end* on the clock of `time.monotonic`, then kill it."""
        self._thread.join(max(0.0, end - time.monotonic()))
        if self._thread.is_alive() and self._process is not None:
            log.error("worker %d did not end in time: it is killed", self._number)
            self._process.kill()
        self._thread.join()

    def answers(self) -> bool:
        """Return whether the process reports, or is being started again anyway."""
        with self._asking:
            return self._pipe is None or self._ask(self._pipe)

    def families(self) -> list[list[Family]]:
        """Return what the processes before have left, and what this one says now."""
        with self._asking:
            if self._pipe is not None:
                self._ask(self._pipe)
            now = [] if self.last is None else self.last.families
            counted = sum(total(each, "sentimill_texts_total") for each in (self._gone, now))
            self._texts.inc(max(0.0, counted - self._counted))
            self._counted = max(counted, self._counted)
            return [self._gone, now]

    def _keep(self) -> None:
        # A process begins with the mask of the thread that starts it, and keeps a SIGHUP that comes
        # before it can heed one.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
        pause = _LEAST_WAIT
        while not self._stopping.is_set():
            since = time.monotonic()
            code = self._run()
            if self._stopping.is_set() or not self.began:
                return
            self._restarts.inc()
            if time.monotonic() - since > _LIVED_SECONDS:
                pause = _LEAST_WAIT
            told = (self._number, code, pause)
            log.error("worker %d ended with exit code %s: another starts in %.1f s", *told)
            self._stopping.wait(pause)
            pause = min(2 * pause, _MOST_WAIT)

    def _run(self) -> int | None:
        """Run one process from its start to its end; return its exit code."""
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=work, args=(self._order(self._number), theirs))
        with self._starting:
            if self._stopping.is_set():
                return None
            process.start()
            self._process = process
        theirs.close()
        wait([ours, process.sentinel])
        said = _received(ours)
        if isinstance(said, Started):
            log.info("worker %d is process %d", self._number, process.pid)
            self._pipe = ours
            self.began = self.ready = True
            self._changed()
        elif isinstance(said, Failed) and self.began:
            log.error("worker %d cannot begin: %s", self._number, said.message)
        process.join()
        with self._asking:
            self._pipe = None
            while isinstance(late := _received(ours), Report):
                self.last = late
            if self.last is not None:
                self._gone = merged([self._gone, lasting(self.last.families)])
            self.last = None
            ours.close()
        self.ready = False
        if not self.began and not self._stopping.is_set():
            why = f"worker {self._number} ended with exit code {process.exitcode} while it started"
            died = EngineError(why, reason="WORKER_DIED")
            self.failed = said.error() if isinstance(said, Failed) else died
        self._changed()
        return process.exitcode

    def _ask(self, pipe: Connection) -> bool:
        """Get a new report into `last`; say whether it came in time."""
        try:
            while pipe.poll():  # what came too late for the one who asked
                if _received(pipe) is None:
                    return True  # its end is closed, which poll() takes for a message for ever
            pipe.send_bytes(b"")
            said = _received(pipe) if pipe.poll(_ANSWER_SECONDS) else None
        except OSError:
            return True  # it has just ended, and will be started again
        if isinstance(said, Report):
            self.last = said
        return said is not None


def _received(pipe: Connection) -> Started | Failed | Report | None:
    """Return a message that is there, None where there is none or half of one."""
    try:
        return read(pipe.recv_bytes()) if pipe.poll() else None
    except (EOFError, OSError):
        return None


@contextmanager
def _signals() -> Iterator[Callable[[float | None], int | None]]:
    """Give a call that waits for the next of `_SIGNALS`, or so many seconds and returns None.

    No mask: libraries start threads while they are imported, and a signal that the main thread
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
        # Python writes the numbers of signals that have a handler of its own.
        handlers = {number: signal.signal(number, lambda *_: None) for number in _SIGNALS}
        try:
            yield wait_for_signal
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(fd)


def _hold(host: str, port: int) -> socket.socket:
    """Take *port* without listening, for the workers to share. Raises UsageError if it is taken.

    The kernel gives connections to those that listen only.
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
