"""Watches the engine: while it is broken, the server is unready and the model is loaded again.

The watchdog looks at the engine's calls. When several batches in a row have failed, it runs one of
the bundle's golden texts. If the engine answers that, the texts were bad and the engine is fine. If
not, or if a call has run for too long, the server becomes unready. Then the model is loaded from
its bundle, which replays all golden texts. If that fails, or helps only for minutes, the process
ends with an error, so that its supervisor starts another one.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Literal

from sentimill.errors import EngineError
from sentimill.observability.metrics import Metrics
from sentimill.server.daemon_thread import run_in_daemon_thread
from sentimill.server.model_slot import LoadedModel, ModelSlot

log = logging.getLogger(__name__)

Fault = Literal["failures", "timeout"]

_SETTLED_SECONDS: Final = 300.0
"""A fault this soon after a restart of the model was not repaired by the restart."""

_PROBE_SECONDS: Final = 10.0
"""How long one short golden text may take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchdogLimits:
    """failures: batches that may fail in a row. call_seconds: how long one engine call may run.

    load_seconds: how long loading the model again may take. look_seconds: between two checks.
    """

    failures: int = 3
    call_seconds: float = 30.0
    load_seconds: float = 300.0
    look_seconds: float = 0.5


class Watchdog:
    """Watches the model in *slot*. For the event loop's thread.

    load: loads the same bundle as a new model. set_healthy: tells callers, load balancers and
    probes whether the server answers.
    """

    def __init__(
        self,
        slot: ModelSlot,
        limits: WatchdogLimits,
        metrics: Metrics,
        *,
        load: Callable[[], Awaitable[LoadedModel]],
        set_healthy: Callable[[bool], Awaitable[None]],
    ) -> None:
        self._slot = slot
        self._limits = limits
        self._metrics = metrics
        self._load = load
        self._set_healthy = set_healthy
        self._restarted: float | None = None

    async def run(self) -> None:
        """Watch until cancelled. Raises EngineError when the process must be restarted."""
        while True:
            await asyncio.sleep(self._limits.look_seconds)
            await self._look(self._slot.now)  # a name would keep a replaced model alive

    async def _look(self, model: LoadedModel) -> None:
        fault = self._fault(model)
        if fault == "failures" and await self._answers(model):
            model.scheduler.consecutive_failures = 0
        elif fault is not None and self._slot.now is model:
            await self._restart(model, fault)

    def _fault(self, model: LoadedModel) -> Fault | None:
        since = model.scheduler.running_since
        if since is not None and time.monotonic() - since > self._limits.call_seconds:
            return "timeout"
        failed = model.scheduler.consecutive_failures
        return "failures" if failed >= self._limits.failures else None

    async def _answers(self, model: LoadedModel) -> bool:
        """Return whether the engine still gives a golden answer."""
        try:
            async with asyncio.timeout(_PROBE_SECONDS):
                await run_in_daemon_thread(model.classifier.probe)
        except Exception as error:  # noqa: BLE001 - whatever a broken engine raises
            why = str(error) or type(error).__name__
            log.error("the engine does not give a golden answer: %s", why)
            return False
        return True

    async def _restart(self, model: LoadedModel, fault: Fault) -> None:
        """Refuse calls until the bundle has been loaded again."""
        what = {
            "failures": f"the engine failed on {self._limits.failures} batches in a row",
            "timeout": f"an engine call has run for more than {self._limits.call_seconds:g} s",
        }[fault]
        log.error("%s: calls are refused until the model has been loaded again", what)
        self._metrics.model_restarts.labels(fault).inc()
        await self._set_healthy(False)
        closing = asyncio.create_task(model.close(0.0))  # its callers get their errors
        now = time.monotonic()
        if self._restarted is not None and now - self._restarted < _SETTLED_SECONDS:
            again = f"{what}, {now - self._restarted:.0f} s after the model was loaded again"
            raise EngineError(f"{again}: the process must be restarted", reason="ENGINE_FAILED")
        try:
            async with asyncio.timeout(self._limits.load_seconds):
                new = await self._load()
        except Exception as error:
            if self._slot.now is model:
                why = str(error) or type(error).__name__
                raise EngineError(
                    f"{what}, and the model cannot be loaded again ({why}): the process must be"
                    " restarted",
                    reason="ENGINE_FAILED",
                ) from error
        else:
            self._restarted = time.monotonic()
            if self._slot.now is model:
                self._slot.put(new)
            else:  # a reload has replaced the model meanwhile, and its model stays
                await new.close()
        await self._set_healthy(True)
        await closing
        await self._slot.drain()
