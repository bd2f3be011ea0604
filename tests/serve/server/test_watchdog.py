"""Health follows the engine: what cannot answer says so, attracts no calls, and is restarted."""

from __future__ import annotations

import asyncio
import threading
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import AsyncMock, Mock

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2
from numpy.typing import NDArray

import sentimill.server.model_loader
from live_server import WAIT_SECONDS
from raw_calls import outcomes, reason_in, request_of
from sentimill.classifier import Classifier
from sentimill.errors import BundleError
from sentimill.observability.metrics import Metrics
from sentimill.server.lifecycle import Signals, start
from sentimill.server.model_slot import warm_up
from sentimill.server.open_inference_service import SERVICE as OPEN_INFERENCE
from sentimill.server.sentiment_service import SERVICE
from sentimill.server.settings import Serve
from sentimill.server.watchdog import Watchdog, WatchdogLimits
from sentimill.v1 import sentiment_pb2 as pb
from tiny_bundle import graph, write_tiny_bundle

LIMITS = WatchdogLimits(failures=2, call_seconds=2.0, load_seconds=60.0, look_seconds=0.01)

Rows = Sequence[NDArray[np.int64]]


@dataclass
class Faults:
    """Breaks the engines of the first models that are loaded.

    broken: how many. how: what a call of a broken engine does. begun: whether they are broken yet,
    so that the first model passes its own golden texts.
    """

    how: Callable[[], None]
    broken: int = 1
    begun: bool = False
    models: list[int] = field(default_factory=list)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Stand before the engine of every model."""
        run = Classifier.run

        def break_or_run(
            classifier: Classifier, rows: Rows, other_calls: int = 0
        ) -> NDArray[np.float32]:
            if id(classifier) not in self.models:
                self.models.append(id(classifier))
            if self.begun and self.models.index(id(classifier)) < self.broken:
                self.how()
            return run(classifier, rows, other_calls)

        monkeypatch.setattr(Classifier, "run", break_or_run)


def hold_loads(monkeypatch: pytest.MonkeyPatch, until: threading.Event) -> None:
    """Let no model be loaded before *until* is set."""

    def wait_and_warm(classifier: Classifier, batch_tokens: int) -> None:
        assert until.wait(WAIT_SECONDS)
        warm_up(classifier, batch_tokens)

    monkeypatch.setattr(sentimill.server.model_loader, "warm_up", wait_and_warm)


def fail() -> None:
    """Fail as an engine whose device is gone may, with an error that is not ours."""
    raise RuntimeError("the device is gone")


@dataclass
class Watched:
    """A server in this event loop, and what it says of its own health."""

    channel: grpc.aio.Channel
    http: str
    signals: Signals

    async def classify(self, text: str, timeout: float | None = WAIT_SECONDS) -> str:
        """Return the label of *text*, or the code and reason of the error."""
        method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
        method = self.channel.unary_unary(f"/{SERVICE}/Classify")
        try:
            data = await method(request_of(text).SerializeToString(), timeout=timeout)
        except grpc.aio.AioRpcError as error:
            return f"{error.code().name} {reason_in(error)}"
        return outcomes(pb.ClassifyResponse.FromString(data))[0]

    async def health(self) -> set[str]:
        """Return what the server says of itself in every place that is asked for it."""
        method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
        method = self.channel.unary_unary("/grpc.health.v1.Health/Check")
        states = health_pb2.HealthCheckResponse
        said = set()
        for name in ("", SERVICE, OPEN_INFERENCE):
            request = health_pb2.HealthCheckRequest(service=name)
            state = states.FromString(await method(request.SerializeToString())).status
            said.add("up" if state == states.SERVING else "down")
        said.add("up" if await self._get("/readyz") == 200 else "down")
        return said

    async def _get(self, path: str) -> int:
        def get() -> int:
            try:
                with urllib.request.urlopen(f"http://{self.http}{path}") as page:
                    return int(page.status)
            except urllib.error.HTTPError as error:
                with error:
                    return error.code

        return await asyncio.to_thread(get)

    async def metric(self, sample: str) -> float:
        """Return a sample of the page of metrics."""
        url = f"http://{self.http}/metrics"
        page = (await asyncio.to_thread(lambda: urllib.request.urlopen(url).read())).decode()
        return float(dict(line.rsplit(" ", 1) for line in page.splitlines())[sample])

    async def until_health(self, wanted: str) -> None:
        """Wait until every place says *wanted*."""
        async with asyncio.timeout(WAIT_SECONDS):
            while await self.health() != {wanted}:
                await asyncio.sleep(0.005)


@asynccontextmanager
async def watched(bundle: Path) -> AsyncIterator[Watched]:
    """Serve *bundle* with a watchdog that loses no time."""
    signals = Signals()
    config = Serve(
        bundle=bundle, port=0, metrics_port=0, threads=1, open_inference=True, watchdog=LIMITS
    )
    async with AsyncExitStack() as stack:
        serving = await start(config, stack, signals)
        async with grpc.aio.insecure_channel(serving.address) as channel:
            yield Watched(channel, serving.metrics_address, signals)


async def test_an_engine_that_always_fails_is_restarted(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server is unready until the bundle has been loaded again, and then answers."""
    faults, seen_down = Faults(fail), threading.Event()
    faults.install(monkeypatch)
    async with watched(bundle) as made:
        assert await made.health() == {"up"}
        assert await made.classify("good") == "positive"
        faults.begun = True
        hold_loads(monkeypatch, seen_down)
        for _ in range(LIMITS.failures):
            assert await made.classify("good") == "UNAVAILABLE ENGINE_FAILED"
        await made.until_health("down")
        seen_down.set()
        await made.until_health("up")
        assert await made.classify("good") == "positive"

        assert await made.metric('sentimill_model_restarts_total{reason="failures"}') == 1
        assert not made.signals.stop.is_set()
    assert len(faults.models) == 2


async def test_an_engine_that_no_restart_mends_ends_the_process(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new model fails its golden texts: health stays down, and the fault says why."""
    faults = Faults(fail, broken=99)
    faults.install(monkeypatch)
    async with watched(bundle) as made:
        faults.begun = True
        for _ in range(LIMITS.failures):
            assert await made.classify("good") == "UNAVAILABLE ENGINE_FAILED"
        await asyncio.wait_for(made.signals.stop.wait(), WAIT_SECONDS)
        assert await made.health() == {"down"}
        assert await made.classify("good") == "UNAVAILABLE ENGINE_FAILED"

    assert made.signals.fault is not None
    assert "cannot be loaded again (the device is gone)" in str(made.signals.fault)


async def test_an_engine_that_fails_again_soon_ends_the_process(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A restart that helps for a moment only is not tried for ever."""
    faults = Faults(fail)
    faults.install(monkeypatch)
    async with watched(bundle) as made:
        faults.begun = True
        for _ in range(LIMITS.failures):
            await made.classify("good")
        async with asyncio.timeout(WAIT_SECONDS):
            while await made.classify("good") != "positive":
                await asyncio.sleep(0.005)
        faults.broken = 99
        async with asyncio.timeout(WAIT_SECONDS):
            while not made.signals.stop.is_set():
                await made.classify("good")

    assert "s after the model was loaded again" in str(made.signals.fault)


@pytest.mark.parametrize("loads", [True, False])
async def test_a_reload_meanwhile_is_not_undone(loads: bool) -> None:
    """The model that an operator has put in place stays, and the process too."""
    broken, reloaded, again = Mock(close=AsyncMock()), Mock(), Mock(close=AsyncMock())
    broken.scheduler.running_since, broken.scheduler.consecutive_failures = 0.0, 0
    reloaded.scheduler.running_since, reloaded.scheduler.consecutive_failures = None, 0
    slot, healthy = Mock(now=broken, drain=AsyncMock()), AsyncMock()

    async def load() -> Mock:
        slot.now = reloaded
        if not loads:
            raise BundleError("the folder is gone", reason="BUNDLE_UNREADABLE")
        return again

    watchdog = Watchdog(slot, LIMITS, Metrics(), load=load, set_healthy=healthy)
    watching = asyncio.create_task(watchdog.run())
    async with asyncio.timeout(WAIT_SECONDS):
        while not slot.drain.await_count:
            await asyncio.sleep(LIMITS.look_seconds)
    watching.cancel()

    assert slot.now is reloaded
    slot.put.assert_not_called()
    assert again.close.await_count == loads
    assert healthy.await_args_list[-1].args == (True,)


async def test_bad_texts_do_not_make_a_good_engine_unready(tmp_path: Path) -> None:
    """However many come in a row: the golden texts get their answers."""
    made = write_tiny_bundle(tmp_path / "tiny", model=graph(fail_on="poison"))
    async with watched(made.path) as server:
        for _ in range(5 * LIMITS.failures):
            assert await server.classify("poison") == "UNAVAILABLE ENGINE_FAILED"
            await asyncio.sleep(LIMITS.look_seconds)
            assert await server.health() == {"up"}
        assert await server.classify("good") == "positive"
        restarts = await server.metric('sentimill_model_restarts_total{reason="failures"}')

    assert restarts == 0


async def test_an_engine_that_hangs_is_replaced(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its callers hear of it, calls meanwhile are refused, and the hung thread holds nobody up."""
    hung, let_go = threading.Event(), threading.Event()

    def hang() -> None:
        hung.set()
        let_go.wait(2 * WAIT_SECONDS)

    faults = Faults(hang)
    faults.install(monkeypatch)
    seen_down = threading.Event()
    try:
        async with watched(bundle) as made:
            faults.begun = True
            hold_loads(monkeypatch, seen_down)
            call = asyncio.create_task(made.classify("good"))
            assert await asyncio.to_thread(hung.wait, WAIT_SECONDS)
            await made.until_health("down")
            assert await made.classify("good") == "UNAVAILABLE ENGINE_FAILED"
            seen_down.set()
            await made.until_health("up")
            assert await made.classify("good") == "positive"
            assert await call == "UNAVAILABLE DRAINING"
            assert await made.metric('sentimill_model_restarts_total{reason="timeout"}') == 1
    finally:
        seen_down.set()
        let_go.set()
