"""The slot: another model takes over while requests run, and each request stays with its own."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray

from sentimill import Classifier
from sentimill.batching.admission import Admission
from sentimill.batching.scheduler import Scheduler
from sentimill.engine.base import EngineName
from sentimill.errors import UnavailableError
from sentimill.observability.metrics import Metrics
from sentimill.server.model_slot import LoadedModel, ModelSlot, warm_up
from tiny_bundle import write_tiny_bundle

ROW = np.array([1, 4, 2])


@pytest.fixture
def classifier(bundle: Path) -> Classifier:
    """Return the tiny bundle, loaded."""
    return Classifier.load(bundle, threads=1, engine="onnx")


def loaded(classifier: Classifier, *, started: bool = True) -> LoadedModel:
    """Return a model that answers; with *started* false its queue stands still."""
    metrics = Metrics()
    admission = Admission(max_texts=100, max_tokens=1000, metrics=metrics)
    scheduler = Scheduler(classifier.run, admission, metrics, budget=64)
    if started:
        scheduler.start()
    return LoadedModel(classifier, scheduler, tokenizer_threads=1, indexes={})


async def test_new_requests_meet_the_new_model(classifier: Classifier) -> None:
    """What is put in the slot is what the next request gets, and what callers are told of."""
    first, second = loaded(classifier), loaded(classifier)
    slot = ModelSlot(first)
    with slot.use() as model:
        assert model is first
    slot.put(second)
    with slot.use() as model:
        assert model is slot.now is second
    await slot.close()


async def test_a_request_stays_with_its_model_until_it_is_done(classifier: Classifier) -> None:
    """The old model answers what it began, and only then is it closed."""
    first = loaded(classifier)
    slot = ModelSlot(first)
    with slot.use() as model:
        slot.put(loaded(classifier))
        draining = asyncio.create_task(slot.drain())
        answer = await model.scheduler.classify([ROW], None)
        (encoded,) = await model.encode(["good"])
        assert not draining.done()
    await draining

    assert len(answer.logits) == 1
    assert not isinstance(encoded, Exception)
    with pytest.raises(RuntimeError, match="after shutdown"):
        await first.encode(["good"])
    await slot.close()


async def test_closing_fails_what_a_leaving_model_never_answers(classifier: Classifier) -> None:
    """A stop does not wait for a drain: callers hear that the server stopped."""
    slot = ModelSlot(loaded(classifier, started=False))

    async def ask() -> None:
        with slot.use() as model:
            await model.scheduler.classify([ROW], None)

    asking = asyncio.create_task(ask())
    await asyncio.sleep(0)  # it runs up to its wait
    slot.put(loaded(classifier))
    await slot.close()

    with pytest.raises(UnavailableError):
        await asking
    await slot.close()


@pytest.mark.parametrize(
    ("engine", "expected"),
    [
        ("onnx", {(1, 40), (2, 40)}),
        ("openvino", {(1, 16), (6, 16), (1, 32), (3, 32), (1, 40), (2, 40)}),
    ],
)
def test_every_length_that_an_engine_rounds_to_is_warmed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str, expected: set[tuple[int, int]]
) -> None:
    """Alone and as a full batch, up to the model's own limit, which is no whole step here."""
    made = write_tiny_bundle(tmp_path / "tiny", max_tokens=40)
    classifier = Classifier.load(made.path, engine=cast(EngineName, engine), threads=1)
    shapes: set[tuple[int, int]] = set()
    run = classifier.engine.run

    def seen(
        ids: NDArray[np.int64], mask: NDArray[np.int64], *, other_calls: int
    ) -> NDArray[np.float32]:
        shapes.add(ids.shape)
        return run(ids, mask, other_calls=other_calls)

    monkeypatch.setattr(classifier.engine, "run", seen)
    warm_up(classifier, 100)

    assert shapes == expected
