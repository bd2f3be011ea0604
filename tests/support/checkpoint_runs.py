"""One small training with a checkpoint, which tests kill and let go on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from sentimill_train.training.checkpoint import Checkpoint
from sentimill_train.training.loop import Fit, FitConfig, Progress, fit
from train_parts import reviews, rows_of, student

CONFIG = FitConfig(
    epochs=3, learning_rate=3e-3, batch_tokens=1024, accumulate=2, average_last=0.5, seed=5
)
TRAIN = rows_of(reviews(120, shares=True))
VALIDATION = rows_of(reviews(40, seed=1))


def trained(
    folder: Path, checkpoint: Checkpoint | None, watch: Callable[[Progress], None]
) -> tuple[dict[str, Tensor], Fit]:
    """Return the weights that one run of the same command gives, and what it did."""
    made = student(folder)
    found = fit(made, TRAIN, VALIDATION, CONFIG, watch, checkpoint=checkpoint)
    return made.state_dict(), found


def at_call(number: int, do: Callable[[], None]) -> Callable[[Progress], None]:
    """Return a watcher that does something when it is told for the *number*-th time."""
    calls = iter(range(1, 1000))

    def watch(progress: Progress) -> None:
        if next(calls) == number:
            do()

    return watch


def nothing() -> None:
    """Let it run."""


def assert_same(found: tuple[dict[str, Tensor], Fit], whole: tuple[dict[str, Tensor], Fit]) -> None:
    """Compare to the bit, and all but the seconds of the record."""
    for name, tensor in whole[0].items():
        assert torch.equal(found[0][name], tensor), name
    assert replace(found[1], seconds=0) == replace(whole[1], seconds=0)
    assert found[1].seconds > 0
