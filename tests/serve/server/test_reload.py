"""Another bundle under the same path: it answers when it is proven, and never breaks what runs."""

from __future__ import annotations

import asyncio
import logging
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import sentimill.server.model_loader
from live_server import WAIT_SECONDS
from reload_server import reloading, version
from sentimill.bundle.manifest import Golden
from sentimill.classifier import Classifier
from tiny_bundle import graph


async def test_a_reload_follows_the_link_anew(tmp_path: Path) -> None:
    """There and back: `GetModel` and every answer carry the digest of the model that answered."""
    first, second = version(tmp_path / "v1"), version(tmp_path / "v2")
    async with reloading(first.path) as made:
        assert await made.digests() == {first.digest}
        made.lead_to(second.path)
        assert await made.digests() == {first.digest}  # a link alone changes nothing
        assert await made.reload() == (1, 0)
        assert await made.digests() == {second.digest}
        made.lead_to(first.path)
        assert await made.reload() == (2, 0)
        assert await made.digests() == {first.digest}


def torn(path: Path) -> None:
    """Write a bundle, one of whose files is another than its manifest says."""
    made = version(path)
    (made.path / "onnx/fp32.onnx").write_bytes(graph(fail_on="poison"))


def changed_answers(path: Path) -> None:
    """Write a bundle whose golden texts do not come out."""
    version(path, golden=(Golden(text="good", probs=(0.9, 0.05, 0.05)),))


def no_warm_up(path: Path) -> None:
    """Write a bundle that cannot run a padded batch."""
    version(path, pad_id=99)


def nothing(path: Path) -> None:
    """Write no bundle at all."""


@pytest.mark.parametrize(
    ("write", "why"),
    [
        (torn, "onnx/fp32.onnx has"),
        (changed_answers, "a golden text changed its label"),
        (no_warm_up, "the engine failed"),
        (nothing, "there is no such folder"),
    ],
)
async def test_a_bundle_that_fails_leaves_the_model_as_it_is(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    write: Callable[[Path], None],
    why: str,
) -> None:
    """The log says why and who answers on, the counter counts it, and the next bundle is taken."""
    first, third = version(tmp_path / "v1"), version(tmp_path / "v3")
    write(tmp_path / "v2")
    async with reloading(first.path) as made:
        made.lead_to(tmp_path / "v2")
        with caplog.at_level(logging.ERROR):
            assert await made.reload() == (0, 1)
        assert await made.metric("sentimill_last_reload_successful") == 0
        assert await made.digests() == {first.digest}
        made.lead_to(third.path)
        assert await made.reload() == (1, 1)
        assert await made.metric("sentimill_last_reload_successful") == 1
        assert await made.digests() == {third.digest}

    (record,) = [each for each in caplog.records if each.name == "sentimill.server.model_loader"]
    assert f"reload failed, still serving tiny ({first.digest[:12]}): " in record.getMessage()
    assert why in record.getMessage()
    assert record.exc_info is None


async def test_a_surprise_leaves_the_model_as_it_is_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error that is none of ours is logged with its trace."""
    first = version(tmp_path / "v1")

    def surprise(classifier: Classifier, batch_tokens: int) -> None:
        raise MemoryError("no room for two")

    async with reloading(first.path) as made:
        monkeypatch.setattr(sentimill.server.model_loader, "warm_up", surprise)
        assert await made.reload() == (0, 1)
        assert await made.digests() == {first.digest}

    (record,) = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert record.exc_info is not None


class Slow:
    """Stands in for the warm-up: it waits to be let through, and counts."""

    def __init__(self) -> None:
        self.calls = 0
        self.came = threading.Event()
        self.go = threading.Event()

    def __call__(self, classifier: Classifier, batch_tokens: int) -> None:
        """Stand for `warm_up`."""
        self.calls += 1
        self.came.set()
        assert self.go.wait(WAIT_SECONDS)

    async def entered(self) -> None:
        """Wait until a bundle is being warmed."""
        assert await asyncio.to_thread(self.came.wait, WAIT_SECONDS)


@pytest.mark.slow
async def test_wishes_during_a_load_are_met_by_one_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bundle that the link leads to last answers in the end; calls are answered meanwhile."""
    first, second, third = (version(tmp_path / f"v{i}") for i in (1, 2, 3))
    async with reloading(first.path) as made:
        slow = Slow()
        monkeypatch.setattr(sentimill.server.model_loader, "warm_up", slow)
        made.lead_to(second.path)
        made.wish.set()
        await slow.entered()
        assert await made.digests() == {first.digest}
        made.lead_to(third.path)
        made.wish.set()
        made.wish.set()
        slow.go.set()
        async with asyncio.timeout(WAIT_SECONDS):
            while await made.reloads() != (2, 0):
                await asyncio.sleep(0.005)
        assert await made.digests() == {third.digest}

    assert slow.calls == 2


async def test_a_stop_does_not_wait_for_a_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is being loaded when the server drains is never served."""
    first = version(tmp_path / "v1")
    slow = Slow()
    try:
        async with reloading(first.path) as made:
            monkeypatch.setattr(sentimill.server.model_loader, "warm_up", slow)
            made.wish.set()
            await slow.entered()
    finally:
        slow.go.set()


async def test_a_bundle_replaced_in_its_place_is_loaded_too(tmp_path: Path) -> None:
    """A path that is no link works as well: the folder may be another one now."""
    first = version(tmp_path / "v1")
    async with reloading(first.path) as made:
        second = version(tmp_path / "v2")
        shutil.rmtree(first.path)
        second.path.rename(first.path)
        assert await made.reload() == (1, 0)
        assert await made.digests() == {second.digest}


async def test_a_reload_leaves_no_memory_that_grows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few heaps are chosen before a model is loaded, in whatever process; freed pages go back.

    What that does to the resident memory is measured in `benchmarks/serving/reloads.py`.
    """
    told: list[str] = []
    monkeypatch.setattr(
        "sentimill.server.lifecycle.keep_few_heaps", lambda: told.append("few heaps")
    )
    monkeypatch.setattr(
        "sentimill.server.model_slot.give_memory_back", lambda: told.append("given back")
    )
    load = Classifier.load

    def loading(*args: Any, **named: Any) -> Classifier:
        told.append("loaded")
        return load(*args, **named)

    monkeypatch.setattr(Classifier, "load", loading)
    async with reloading(version(tmp_path / "v1").path) as made:
        made.lead_to(version(tmp_path / "v2").path)
        await made.reload()
        async with asyncio.timeout(WAIT_SECONDS):
            while "given back" not in told:
                await asyncio.sleep(0.005)

    assert told == ["few heaps", "loaded", "loaded", "given back"]
