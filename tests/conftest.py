"""What every test may use: a tiny bundle, an event loop, a clean environment."""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import settings

from cli_in_process import Sentimill
from sentimill.classifier import Classifier
from sentimill.scoring.scorers import LocalScorer
from tiny_bundle import write_tiny_bundle

# A shared machine may stop a test for a second: how long one example takes says nothing.
settings.register_profile("sentimill", deadline=None)
settings.load_profile("sentimill")

_ASYNC_TEST_SECONDS = 240.0


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the suite be run as on a CPU with fast bfloat16, and as on one without."""
    parser.addoption("--bf16", choices=["on", "off"], help="what torch says of this CPU's bfloat16")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put files with slow tests first, so that no worker is left alone with one at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Spare the garbage collector what collecting the tests imports, now and later.

    It is 600,000 objects. To go through them takes 0.4 s, and each model that is closed and many
    tests call for that.
    """
    gc.disable()
    try:
        collected = yield
    finally:
        gc.enable()
    gc.collect()
    gc.freeze()
    return collected


@pytest.fixture(autouse=True)
def _forced_bf16(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Follow `--bf16`: training computes in bfloat16 where torch says the CPU is fast at it."""
    if (wanted := request.config.getoption("--bf16")) is not None:
        import torch

        from sentimill_train.model import autocast

        capabilities = {"avx512_bf16": wanted == "on"}
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
        monkeypatch.setattr(autocast, "bfloat16_speedup", lambda: 3.0)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that is a coroutine in an event loop of its own, and not for ever."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    test = pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names})
    asyncio.run(asyncio.wait_for(test, _ASYNC_TEST_SECONDS))
    return True


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the settings of the person who runs the tests out of them."""
    for name in list(os.environ):
        if name.startswith(("SENTIMILL_", "OTEL_")):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a tiny bundle; tests only read it."""
    return write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny").path


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out fsync: it guards against a power cut, and on a busy machine takes a second."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture(scope="session")
def scorer(bundle: Path) -> LocalScorer:
    """Return the tiny bundle as jobs use it."""
    return LocalScorer(Classifier.load(bundle, threads=1))


@pytest.fixture
def sentimill(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Sentimill:
    """Return the program."""
    return Sentimill(capsys, monkeypatch)
