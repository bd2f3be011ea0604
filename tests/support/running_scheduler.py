"""A scheduler that runs before a real engine, small and as slow as a test likes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from live_server import Gate
from sentimill.batching.admission import Admission
from sentimill.batching.scheduler import Scheduler
from sentimill.classifier import Classifier
from sentimill.observability.metrics import Metrics
from tiny_bundle import WORDS

GOOD, BAD, BATTERY = [0.0, 0.0, 3.0], [3.0, 0.0, 0.0], [0.0, 0.0, 0.0]
"""Logits of the words `good`, `bad` and `battery`."""


@dataclass(frozen=True)
class Running:
    """A scheduler that runs, and what it is made of."""

    scheduler: Scheduler
    classifier: Classifier
    gate: Gate
    metrics: Metrics
    admission: Admission

    def begin(self, *texts: str, deadline: float | None = None) -> asyncio.Task[list[object]]:
        """Send *texts* as one job; the answer is a list of logits or errors."""
        rows = [np.array([WORDS.index(word) for word in text.split()]) for text in texts]
        return asyncio.create_task(self._answer(rows, deadline))

    async def _answer(
        self, rows: Sequence[NDArray[np.int64]], deadline: float | None
    ) -> list[object]:
        answer = await self.scheduler.classify(rows, deadline)
        return [one if isinstance(one, Exception) else one.tolist() for one in answer.logits]

    def value(self, name: str) -> float | None:
        """Return a metric's value now."""
        return self.metrics.registry.get_sample_value(name)


@asynccontextmanager
async def running(
    bundle: Path,
    *,
    budget: int = 4096,
    gated: bool = False,
    computed_tokens: Callable[[Sequence[int]], int] | None = None,
) -> AsyncIterator[Running]:
    """Run a scheduler before a real engine; with *gated* the engine waits."""
    classifier = Classifier.load(bundle, threads=1)
    metrics = Metrics()
    gate = Gate(classifier)
    counted = Admission(max_texts=1000, max_tokens=100_000, metrics=metrics)
    scheduler = Scheduler(
        gate.run, counted, metrics, budget=budget, computed_tokens=computed_tokens
    )
    scheduler.start()
    if not gated:
        gate.open()
    try:
        yield Running(scheduler, classifier, gate, metrics, counted)
    finally:
        gate.open()
        await scheduler.close()


async def settled() -> None:
    """Let every task that can go on do so."""
    for _ in range(20):
        await asyncio.sleep(0)
