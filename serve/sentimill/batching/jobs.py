"""The records of a request and of its texts while they wait and run."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sentimill.errors import EngineError


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one job: for each text in order, logits (labels,) float32 or its error."""

    logits: list[NDArray[np.float32] | EngineError]
    queue_seconds: float
    engine_seconds: float


@dataclass(eq=False, slots=True)
class Job:
    """The texts of one request, answered together.

    left: texts without an answer. waiting_texts, waiting_tokens: those that are in no batch yet.
    begun: at least one of the texts has been in a batch.
    """

    arrived: float
    deadline: float
    done: asyncio.Future[Answer]
    logits: list[NDArray[np.float32] | EngineError | None]
    left: int
    waiting_texts: int
    waiting_tokens: int
    begun: bool = False
    queue_seconds: float = 0.0
    engine_seconds: float = 0.0

    def fail(self, error: Exception) -> None:
        """Answer the whole request with *error*, unless it is already answered."""
        if not self.done.done():
            self.done.set_exception(error)


@dataclass(eq=False, slots=True)
class Item:
    """One waiting text; see `fair_queue.Waiting`."""

    ids: NDArray[np.int64]
    job: Job
    place: int
    length: int
    deadline: float
    caller: str
