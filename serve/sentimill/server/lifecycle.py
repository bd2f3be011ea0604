"""Runs the server: loads, serves, reloads and drains. It handles signals at any moment."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from sentimill.batching.admission import Admission
from sentimill.classifier import Classifier
from sentimill.engine.hardware import keep_few_heaps
from sentimill.errors import EngineError
from sentimill.observability.http_server import HttpServer
from sentimill.observability.json_logging import log_in_background
from sentimill.observability.metrics import Metrics
from sentimill.observability.status import Status
from sentimill.observability.tracing import configured_spans
from sentimill.server.access.auth import TokenAuth
from sentimill.server.addresses import host_port
from sentimill.server.daemon_thread import end_process, has_busy_threads
from sentimill.server.error_interceptor import CallBoundary
from sentimill.server.model_loader import ModelLoader, reload_when_asked
from sentimill.server.model_slot import LoadedModel, ModelSlot
from sentimill.server.playground import playground
from sentimill.server.request_handler import RequestHandler
from sentimill.server.server import GrpcServer
from sentimill.server.settings import Serve
from sentimill.server.watchdog import Watchdog

log = logging.getLogger(__name__)

T = TypeVar("T")

_ALIVE_SECONDS: Final = 2.0
"""An event loop is stuck if a callback waits this long; under full load it waits 10 ms."""


@dataclass(frozen=True, kw_only=True)
class Serving:
    """The addresses of a started server. Port 0 is replaced by the port that was taken."""

    address: str
    metrics_address: str


@dataclass(slots=True)
class Signals:
    """Events that stop or reload a server. fault: the error to end with, None after a signal."""

    stop: asyncio.Event = field(default_factory=asyncio.Event)
    reload: asyncio.Event = field(default_factory=asyncio.Event)
    fault: EngineError | None = None

    def install(self) -> None:
        """Listen to SIGTERM, SIGINT and SIGHUP. For the main thread's event loop."""
        loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, self.stop.set)
        loop.add_signal_handler(signal.SIGHUP, self.reload.set)

    async def unless_stopped(self, starting: Coroutine[None, None, T]) -> T | None:
        """Return the result of *starting*, or cancel it and return None when `stop` comes first."""
        task, stop = asyncio.create_task(starting), asyncio.create_task(self.stop.wait())
        await asyncio.wait((task, stop), return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if task.done():
            return await task
        await _cancelled(task)
        return None


def run(settings: Serve, started: Callable[[Serving], None]) -> None:
    """Serve until SIGTERM or SIGINT, then drain; *started* is called when calls are answered.

    SIGHUP loads bundle and indexes again; a path may be a link that now leads to another folder. If
    a thread hangs in the engine, this function ends the process, because Python would wait for it.

    Raises:
        UsageError: a port is taken, or the address is not a loopback one without `insecure`.
        BundleError, EngineError: the model does not verify or load.
        EngineError: the engine failed, and loading the model again did not help.
    """
    with log_in_background():
        fault = asyncio.run(_serve(settings, started))
        if has_busy_threads():
            if fault is not None:
                log.error("%s", fault)
            end_process(0 if fault is None else 1)
    if fault is not None:
        raise fault


async def _serve(settings: Serve, started: Callable[[Serving], None]) -> EngineError | None:
    signals = Signals()
    signals.install()
    async with AsyncExitStack() as stack:
        serving = await signals.unless_stopped(start(settings, stack, signals))
        if serving is not None:
            started(serving)
            await signals.stop.wait()
            seconds = settings.drain_seconds
            log.info("draining: no new calls, up to %.0f s for running calls", seconds)
    log.info("stopped")
    return signals.fault


async def start(settings: Serve, stack: AsyncExitStack, signals: Signals | None = None) -> Serving:
    """Start everything, and push on *stack* the callbacks that stop it, in the order of a drain."""
    settings.check_host()
    status = Status(Metrics())
    http = HttpServer(status, settings.metrics_host, settings.metrics_port)
    stack.callback(http.close)
    return Serving(
        address=await answer(settings, stack, status, signals or Signals()),
        metrics_address=host_port(settings.metrics_host, http.port),
    )


async def answer(
    settings: Serve,
    stack: AsyncExitStack,
    status: Status,
    signals: Signals,
    first: Path | None = None,
) -> str:
    """Start all but the HTTP port, as `start` does, and return the address.

    first: the folder to load first, instead of the one that `bundle` leads to.
    """
    keep_few_heaps()  # before the threads that load and compute
    metrics, limits = status.metrics, settings.limits
    spans = configured_spans(os.environ)
    stack.push_async_callback(asyncio.to_thread, spans.close)
    admission = Admission(
        max_texts=limits.max_waiting_texts, max_tokens=limits.max_waiting_tokens, metrics=metrics
    )
    auth = TokenAuth(settings.tokens, share=settings.quota_share) if settings.tokens else None
    loader = ModelLoader(settings, admission, metrics)
    slot = ModelSlot(await loader.load(first))
    stack.push_async_callback(slot.close)
    boundary = CallBoundary(metrics, admission.wait_seconds, spans)
    requests = RequestHandler(slot, admission, boundary, limits=limits, auth=auth)
    server = GrpcServer(requests, settings)
    await server.start()
    stack.push_async_callback(server.drain)
    if settings.playground:
        status.playground = playground(requests, asyncio.get_running_loop())
    announce = partial(_announce, status=status)
    announce(slot.now.classifier)
    stack.callback(status.drain)

    async def set_healthy(healthy: bool) -> None:
        requests.healthy = healthy
        status.set_healthy(healthy)
        await server.set_healthy(healthy)

    async def load_again() -> LoadedModel:
        return await loader.load(slot.now.classifier.bundle.path, slot.now.indexes)

    watchdog = Watchdog(slot, settings.watchdog, metrics, load=load_again, set_healthy=set_healthy)
    reloading = reload_when_asked(signals.reload, loader, slot, announce)
    for task in (reloading, _guard(watchdog, signals)):
        stack.push_async_callback(_cancelled, asyncio.create_task(task))
    return host_port(settings.host, server.port)


async def _guard(watchdog: Watchdog, signals: Signals) -> None:
    """Stop the server when the watchdog gives up or fails itself."""
    try:
        await watchdog.run()
    except EngineError as error:
        signals.fault = error
    except Exception as error:
        log.exception("the watchdog failed")
        why = f"the watchdog failed with {type(error).__name__}"
        signals.fault = EngineError(why, reason="ENGINE_FAILED")
    signals.stop.set()


def _announce(classifier: Classifier, *, status: Status) -> None:
    """Show in metrics, status page and log which model answers; called after each load."""
    info = classifier.engine.info
    manifest = classifier.bundle.manifest
    facts = {
        "name": manifest.name,
        "version": manifest.version,
        "digest": classifier.bundle.digest,
        "precision": classifier.precision,
        "engine": info.engine,
        "provider": info.provider,
    }
    status.metrics.set_model(facts, manifest.labels, manifest.label_mix)
    status.serve(facts, manifest.labels, _turning(asyncio.get_running_loop()))
    status.folder = str(classifier.bundle.path)
    log.info("serving %s (%s)", manifest.name, classifier.bundle.digest[:12])


async def _cancelled(task: asyncio.Task[T]) -> None:
    """Cancel *task* and wait for its end."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _turning(loop: asyncio.AbstractEventLoop) -> Callable[[], bool]:
    """Return a function that tells another thread whether *loop* still runs callbacks."""

    def alive() -> bool:
        came = threading.Event()
        loop.call_soon_threadsafe(came.set)
        return came.wait(_ALIVE_SECONDS)

    return alive
