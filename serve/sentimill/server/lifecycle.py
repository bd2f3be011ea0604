"""The server's life: verify, load, warm, serve, reload, drain."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import signal
import threading
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from sentimill.batching.admission import Admission
from sentimill.batching.scheduler import Scheduler
from sentimill.bundle.reader import open_bundle
from sentimill.classifier import Classifier
from sentimill.engine.base import EngineName, Precision, Provider
from sentimill.engine.hardware import keep_few_heaps
from sentimill.errors import SentimillError, UsageError
from sentimill.observability.http_server import HttpServer
from sentimill.observability.metrics import Metrics
from sentimill.observability.status import Status
from sentimill.observability.tracing import configured_spans
from sentimill.server.auth import TokenAuth
from sentimill.server.error_interceptor import CallBoundary
from sentimill.server.model_slot import LoadedModel, ModelSlot, warm_up
from sentimill.server.request_handler import Limits, RequestHandler
from sentimill.server.server import GrpcServer, ListenOptions, host_port
from sentimill.server.tls import Tls

__all__ = ["Serve", "Serving", "on_signals"]

log = logging.getLogger(__name__)

_LEAST_USEFUL: Final = 0.75
"""Share of a batch on a CPU that is no padding; see `batch_selection.take_batch`."""

_ALIVE_SECONDS: Final = 2.0
"""An event loop that takes longer to come round is stuck; one under full load takes some 10 ms."""


@dataclass(frozen=True, kw_only=True)
class Serving:
    """What a started server listens on; a port given as 0 is here the one that was taken."""

    address: str
    metrics_address: str


@dataclass(frozen=True, kw_only=True)
class Serve:
    """Serve one bundle over gRPC until a signal comes."""

    bundle: Path
    host: str = "127.0.0.1"
    port: int = 50051
    metrics_host: str = "127.0.0.1"
    metrics_port: int = 9464
    precision: Precision = "auto"
    engine: EngineName = "auto"
    provider: Provider = "auto"
    threads: int | None = None
    tokenizer_threads: int = 2
    batch_tokens: int | None = None
    limits: Limits = field(default_factory=Limits)
    notice_seconds: float = 0.0
    drain_seconds: float = 20.0
    max_connection_age_seconds: float | None = None
    reflection: bool = False
    compression: bool = False
    open_inference: bool = False
    insecure: bool = False
    tls: Tls | None = None
    tokens: Path | None = None
    shared_port: bool = False

    def run(self, started: Callable[[Serving], None]) -> None:
        """Serve until SIGTERM or SIGINT, then drain; *started* is told when calls are answered.

        SIGHUP loads the bundle anew. Its path may be a link that meanwhile leads to another folder.

        Raises:
            UsageError: a port is taken, or the address is not a loopback one without `insecure`.
            BundleError, EngineError: the model does not verify or load.
        """
        asyncio.run(self._serve(started))

    async def _serve(self, started: Callable[[Serving], None]) -> None:
        stop, reload = asyncio.Event(), asyncio.Event()
        on_signals(stop, reload)
        async with AsyncExitStack() as stack:
            serving = await self.start(stack, reload)
            started(serving)
            await stop.wait()
            log.info("draining: no new calls, up to %.0f s for those under way", self.drain_seconds)
        log.info("stopped")

    async def start(self, stack: AsyncExitStack, reload: asyncio.Event | None = None) -> Serving:
        """Start everything and leave on *stack* what stops it, in the order of a drain.

        reload: each time it is set, the bundle is loaded anew.
        """
        self.check_host()
        status = Status(Metrics())
        port = HttpServer(status, self.metrics_host, self.metrics_port)
        stack.callback(port.close)
        return Serving(
            address=await self.answer(stack, status, reload),
            metrics_address=host_port(self.metrics_host, port.port),
        )

    async def answer(
        self,
        stack: AsyncExitStack,
        status: Status,
        reload: asyncio.Event | None = None,
        first: Path | None = None,
    ) -> str:
        """Start all but the HTTP port, as `start` does, and return the address.

        first: the folder to begin with, instead of the one that `bundle` leads to.
        """
        keep_few_heaps()  # before the threads that load and compute
        metrics = status.metrics
        spans = configured_spans(os.environ)
        stack.push_async_callback(asyncio.to_thread, spans.close)
        metrics.set_limits(
            texts=self.limits.max_waiting_texts, tokens=self.limits.max_waiting_tokens
        )
        admission = Admission(
            max_texts=self.limits.max_waiting_texts,
            max_tokens=self.limits.max_waiting_tokens,
            metrics=metrics,
        )
        slot = ModelSlot(self._loaded(self._load(first), admission, metrics))
        stack.push_async_callback(slot.close)
        auth = None if self.tokens is None else TokenAuth(self.tokens)
        boundary = CallBoundary(metrics, admission.wait_seconds, spans)
        requests = RequestHandler(slot, admission, boundary, limits=self.limits, auth=auth)
        server = GrpcServer(requests, self._listen())
        await server.start()
        stack.push_async_callback(server.drain)
        self._tell(slot.now.classifier, status)
        stack.callback(status.drain)
        if reload is not None:
            following = asyncio.create_task(self._follow(reload, slot, admission, status))
            stack.push_async_callback(_cancelled, following)
        return host_port(self.host, server.port)

    def _load(self, folder: Path | None = None) -> Classifier:
        """Verify, load and warm the bundle, whose golden texts come out right."""
        # A link is followed once, so that all files are of one folder if it changes meanwhile.
        folder = folder or self.bundle.resolve()
        open_bundle(folder).verify()
        classifier = Classifier.load(
            folder,
            precision=self.precision,
            engine=self.engine,
            provider=self.provider,
            threads=self.threads,
        )
        info = classifier.engine.info()
        shown = (info.engine, info.provider, info.precision, info.threads, classifier.choice.why)
        log.info("engine %s on %s in %s, %d threads: %s", *shown)
        warm_up(classifier, self.batch_tokens or classifier.batch_tokens)
        return classifier

    def _loaded(
        self, classifier: Classifier, admission: Admission, metrics: Metrics
    ) -> LoadedModel:
        """Give *classifier* a queue that runs, and tokenizers."""
        info = classifier.engine.info()
        scheduler = Scheduler(
            classifier.run,
            admission,
            metrics,
            budget=self.batch_tokens or classifier.batch_tokens,
            padded_length=classifier.padded_length,
            # Padding costs a CPU as much as text does; a GPU would rather have full batches.
            least_useful=_LEAST_USEFUL if info.provider == "cpu" else 0.0,
            computed_tokens=classifier.computed_tokens,
            calls=info.calls,
        )
        scheduler.start()
        return LoadedModel(classifier, scheduler, tokenizer_threads=self.tokenizer_threads)

    async def _follow(
        self, reload: asyncio.Event, slot: ModelSlot, admission: Admission, status: Status
    ) -> None:
        """Load the bundle anew whenever *reload* is set; what fails leaves the model as it is.

        A wish that comes while a bundle is loaded is met by one more load after it.
        """
        while True:
            await reload.wait()
            reload.clear()
            before = slot.now.classifier.bundle
            try:
                classifier = await asyncio.to_thread(self._load)
                new = self._loaded(classifier, admission, status.metrics)
            except Exception as error:
                status.metrics.observe_reload(ok=False)
                # What we raise says all there is to say; anything else needs its trace.
                trace = None if isinstance(error, SentimillError) else error
                kept = (before.manifest.name, before.digest[:12], error)
                log.error("no reload, %s %s answers on: %s", *kept, exc_info=trace)
                continue
            slot.put(new)
            self._tell(classifier, status)
            status.metrics.observe_reload(ok=True)
            await slot.drain()  # before another load, so that two models are held at most

    def _tell(self, classifier: Classifier, status: Status) -> None:
        """Say which model answers, and that it does; again after each reload."""
        info = classifier.engine.info()
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
        log.info("%s %s answers", manifest.name, classifier.bundle.digest[:12])

    def _listen(self) -> ListenOptions:
        return ListenOptions(
            host=self.host,
            port=self.port,
            shared_port=self.shared_port,
            tls=self.tls,
            compression=self.compression,
            reflection=self.reflection,
            open_inference=self.open_inference,
            max_connection_age_seconds=self.max_connection_age_seconds,
            notice_seconds=self.notice_seconds,
            drain_seconds=self.drain_seconds,
        )

    def check_host(self) -> None:
        """Raise UsageError where calls would cross a network without encryption."""
        if self.insecure or self.tls is not None or self.host == "localhost":
            return
        try:
            loopback = ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            loopback = False
        if not loopback:
            raise UsageError(
                f"--host {self.host} is not a loopback address and calls are not encrypted: give"
                " --tls-cert and --tls-key, or put a TLS proxy before it and say so with"
                " --insecure",
                reason="INSECURE_BIND",
            )


def on_signals(stop: asyncio.Event, reload: asyncio.Event) -> None:
    """Set *stop* on SIGTERM and SIGINT, *reload* on SIGHUP. For the main thread's event loop."""
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    loop.add_signal_handler(signal.SIGHUP, reload.set)


async def _cancelled(task: asyncio.Task[None]) -> None:
    """Cancel *task* and wait for its end."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _turning(loop: asyncio.AbstractEventLoop) -> Callable[[], bool]:
    """Return what tells another thread whether *loop* still comes round to new work."""

    def alive() -> bool:
        came = threading.Event()
        loop.call_soon_threadsafe(came.set)
        return came.wait(_ALIVE_SECONDS)

    return alive
