"""Times engine calls that overlap: how long each took, and for how long the engine was busy."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(slots=True)
class CallTime:
    """One engine call; seconds and busy_seconds are set when it has ended.

    started: time on the clock. busy_seconds: time since the last call ended or, if the engine was
    idle, since this call began. Those of all calls add up to the time in which at least one ran.
    """

    started: float
    seconds: float = 0.0
    busy_seconds: float = 0.0


class CallClock:
    """Measures calls from any thread. now: a test passes its own clock."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._running: dict[int, CallTime] = {}
        self._counted_until = 0.0

    @property
    def running_since(self) -> float | None:
        """When the oldest running call began; None while the engine is idle."""
        with self._lock:
            return min((call.started for call in self._running.values()), default=None)

    @contextmanager
    def measure(self) -> Iterator[CallTime]:
        """Measure the call in this `with` block."""
        with self._lock:
            call = CallTime(self._now())
            if not self._running:
                self._counted_until = call.started
            self._running[id(call)] = call
        try:
            yield call
        finally:
            with self._lock:
                del self._running[id(call)]
                ended = self._now()
                call.seconds = ended - call.started
                call.busy_seconds = ended - self._counted_until
                self._counted_until = ended
