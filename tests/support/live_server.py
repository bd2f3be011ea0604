"""Real servers made small: a service or a whole server in this process, on a free port."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
from numpy.typing import NDArray

from sentimill.batching.admission import Admission
from sentimill.batching.scheduler import Scheduler
from sentimill.classifier import Classifier
from sentimill.observability.metrics import Metrics
from sentimill.observability.tracing import Spans
from sentimill.server.access.auth import TokenAuth
from sentimill.server.error_interceptor import CallBoundary, ErrorInterceptor
from sentimill.server.lifecycle import Serving, start
from sentimill.server.model_slot import LoadedModel, ModelSlot
from sentimill.server.open_inference_service import SERVICE as OPEN_INFERENCE
from sentimill.server.open_inference_service import OpenInferenceService
from sentimill.server.request_handler import Limits, RequestHandler
from sentimill.server.sentiment_service import SERVICE, SentimentService
from sentimill.server.settings import Serve

WAIT_SECONDS = 60.0
"""How long a test waits for what must happen soon; passing it is a failure."""


class Gate:
    """Stands before an engine: each call waits until the gate is open, and tells that it came."""

    def __init__(self, classifier: Classifier) -> None:
        self.calls: list[int] = []
        self._classifier = classifier
        self._came = threading.Event()
        self._open = threading.Event()

    def run(self, rows: Sequence[NDArray[np.int64]], other_calls: int) -> NDArray[np.float32]:
        """Return the logits of *rows* when the gate is open."""
        self.calls.append(len(rows))
        self._came.set()
        assert self._open.wait(WAIT_SECONDS)
        return self._classifier.run(rows, other_calls)

    async def entered(self) -> None:
        """Wait until the engine was called."""
        assert await asyncio.to_thread(self._came.wait, WAIT_SECONDS)

    def open(self) -> None:
        """Let every call through from now on."""
        self._open.set()


@dataclass(frozen=True)
class Live:
    """A service that listens, and what it is made of."""

    address: str
    service: SentimentService
    slot: ModelSlot
    admission: Admission
    metrics: Metrics
    gate: Gate

    def value(self, name: str, **labels: str) -> float | None:
        """Return a metric's value now."""
        return self.metrics.registry.get_sample_value(name, labels)


@asynccontextmanager
async def live_service(
    bundle: Path,
    *,
    limits: Limits | None = None,
    budget: int = 4096,
    gated: bool = False,
    auth: TokenAuth | None = None,
    spans: Spans | None = None,
) -> AsyncIterator[Live]:
    """Serve *bundle* in this event loop, over real sockets; with *gated* the engine waits."""
    limits = limits or Limits()
    classifier = Classifier.load(bundle, threads=1)
    metrics = Metrics()
    gate = Gate(classifier)
    admission = Admission(
        max_texts=limits.max_waiting_texts, max_tokens=limits.max_waiting_tokens, metrics=metrics
    )
    scheduler = Scheduler(gate.run, admission, metrics, budget=budget)
    slot = ModelSlot(LoadedModel(classifier, scheduler, tokenizer_threads=2, indexes={}))
    boundary = CallBoundary(metrics, admission.wait_seconds, spans)
    requests = RequestHandler(slot, admission, boundary, limits=limits, auth=auth)
    service = SentimentService(requests, version="0")
    server = grpc.aio.server(
        options=[("grpc.max_receive_message_length", limits.max_request_bytes)],
        interceptors=[ErrorInterceptor(boundary, [SERVICE, OPEN_INFERENCE])],
    )
    other = OpenInferenceService(requests, version="0")
    server.add_generic_rpc_handlers((service.handler(), other.handler()))
    port = server.add_insecure_port("127.0.0.1:0")
    scheduler.start()
    await server.start()
    if not gated:
        gate.open()
    try:
        yield Live(f"127.0.0.1:{port}", service, slot, admission, metrics, gate)
    finally:
        gate.open()
        await server.stop(None)
        await slot.close()


@contextmanager
def live_server(config: Serve) -> Iterator[Serving]:
    """Run a whole server in another thread, for callers who have no event loop."""
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    found: list[Serving] = []
    ready = threading.Event()

    async def serve() -> None:
        async with AsyncExitStack() as stack:
            found.append(await start(config, stack))
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), name="live server")
    thread.start()
    try:
        assert ready.wait(WAIT_SECONDS)
        yield found[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(WAIT_SECONDS)
        loop.close()


async def until(condition: Callable[[], object]) -> None:
    """Wait until *condition* holds: for what another process, thread or socket must do first."""
    async with asyncio.timeout(WAIT_SECONDS):
        while not condition():
            await asyncio.sleep(0.005)
