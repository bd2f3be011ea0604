"""Starts a worker process, asks it for reports, and replaces it when it dies or hangs."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Final

from sentimill.errors import EngineError, SentimillError
from sentimill.observability.metrics import WorkerMetrics
from sentimill.observability.metrics_aggregation import Family, lasting, merged, total
from sentimill.server.workers.worker import (
    Failed,
    Message,
    Report,
    Started,
    WorkerConfig,
    decode,
    work,
)

log = logging.getLogger(__name__)

_HEARTBEAT_SECONDS: Final = 2.0
_ANSWER_SECONDS: Final = 2.0
"""How often a worker is asked for a report, and how long that may take."""

_STUCK_SECONDS: Final = 8.0
"""A worker is killed after this time without a report; under full load one takes some 10 ms."""

_START_SECONDS: Final = 300.0
"""How long a replacement process may load before it is killed."""

_LEAST_WAIT: Final = 0.5
_MOST_WAIT: Final = 30.0
"""Seconds before a dead worker is started again; doubled each time, up to `_MOST_WAIT`."""

_RELOAD_SECONDS: Final = 300.0
"""A process that starts this soon after a reload gets the signal too: it may have been given the
old folder, and the process before may have died because it held two models at once."""

_LIVED_SECONDS: Final = 60.0
"""After a life of this length the start was not at fault, so the next wait is short again."""


class WorkerProcess:
    """Keeps one worker process running: a thread starts it, asks it for reports, and replaces it.

    began: a process of this worker has answered calls. ready: the present one answers calls now.
    failed: why the first process could not start. last: the newest report.
    """

    def __init__(
        self,
        number: int,
        config: Callable[[int], WorkerConfig],
        metrics: WorkerMetrics,
        changed: Callable[[], None],
    ) -> None:
        self.began = False
        self.ready = False
        self.failed: SentimillError | None = None
        self.last: Report | None = None
        self._number = number
        self._config = config
        self._changed = changed
        self._restarts = metrics.restarts.labels(str(number))
        self._texts = metrics.texts.labels(str(number))
        self._counted = 0.0
        self._gone: list[Family] = []
        self._process: SpawnProcess | None = None
        self._reloaded = float("-inf")
        self._pipe: Connection | None = None
        self._stopping = threading.Event()
        self._starting = threading.Lock()
        self._asking = threading.Lock()
        self._thread = threading.Thread(target=self._keep, name=f"worker {number}")

    def start(self) -> None:
        """Start the process, and start it again whenever it dies."""
        self._thread.start()

    def reload(self) -> None:
        """Send SIGHUP to the process, and to a replacement that starts soon after."""
        with self._starting:
            self._reloaded = time.monotonic()
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
        """Get a new report; return whether it came, or whether there is no process."""
        with self._asking:
            answered = self._pipe is None or self._ask(self._pipe)
        if answered and self.last is not None and self.last.ready != self.ready:
            self.ready = self.last.ready
            self._changed()
        return answered

    def families(self) -> list[list[Family]]:
        """Return the counts of the processes that have ended, and the metrics of this one."""
        with self._asking:
            if self._pipe is not None:
                self._ask(self._pipe)
            now = [] if self.last is None else self.last.families
            counted = sum(total(each, "sentimill_texts_total") for each in (self._gone, now))
            self._texts.inc(max(0.0, counted - self._counted))
            self._counted = max(counted, self._counted)
            return [self._gone, now]

    def _keep(self) -> None:
        # A process inherits the signal mask of the thread that starts it. A blocked SIGHUP stays
        # pending until the process can handle it.
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
        process = context.Process(target=work, args=(self._config(self._number), theirs))
        with self._starting:
            if self._stopping.is_set():
                return None
            process.start()
            self._process = process
            recent = time.monotonic() - self._reloaded < _RELOAD_SECONDS
            if self.began and recent and process.pid is not None:
                os.kill(process.pid, signal.SIGHUP)
        theirs.close()
        if not wait([ours, process.sentinel], _START_SECONDS if self.began else None):
            log.error("worker %d did not start in time: it is killed", self._number)
            process.kill()
        said = _received(ours)
        if isinstance(said, Started):
            log.info("worker %d is process %d", self._number, process.pid)
            self._pipe = ours
            self.began = self.ready = True
            self._changed()
            self._watch(process)
        elif isinstance(said, Failed) and self.began:
            log.error("worker %d cannot start: %s", self._number, said.message)
        process.join()
        self._keep_counts(ours)
        self.ready = False
        if not self.began and not self._stopping.is_set():
            why = f"worker {self._number} ended with exit code {process.exitcode} while it started"
            died = EngineError(why, reason="WORKER_DIED")
            self.failed = said.error() if isinstance(said, Failed) else died
        self._changed()
        return process.exitcode

    def _watch(self, process: SpawnProcess) -> None:
        """Ask *process* for reports until it ends; kill it when none comes for too long."""
        heard = time.monotonic()
        while not wait([process.sentinel], _HEARTBEAT_SECONDS):
            # A draining process sends no reports; `join` kills it when its time is over.
            if self._stopping.is_set() or self.answers():
                heard = time.monotonic()
            elif time.monotonic() - heard > _STUCK_SECONDS:
                seconds = time.monotonic() - heard
                log.error("worker %d is stuck for %.0f s: it is killed", self._number, seconds)
                process.kill()
                return

    def _keep_counts(self, pipe: Connection) -> None:
        """Read the last reports of a process that has ended, and keep what only ever grows."""
        with self._asking:
            self._pipe = None
            while isinstance(late := _received(pipe), Report):
                self.last = late
            if self.last is not None:
                self._gone = merged([self._gone, lasting(self.last.families)])
            self.last = None
            pipe.close()

    def _ask(self, pipe: Connection) -> bool:
        """Get a new report into `last`; return whether it came in time."""
        try:
            while pipe.poll():  # a late report, for which nobody waits any more
                if _received(pipe) is None:
                    return True  # the other end is closed, and poll() stays true
            pipe.send_bytes(b"")
            said = _received(pipe) if pipe.poll(_ANSWER_SECONDS) else None
        except OSError:
            return True  # the process has just ended, and will be started again
        if isinstance(said, Report):
            self.last = said
        return said is not None


def _received(pipe: Connection) -> Message | None:
    """Return the next message, None if there is none or only a part of one."""
    try:
        return decode(pipe.recv_bytes()) if pipe.poll() else None
    except (EOFError, OSError):
        return None
