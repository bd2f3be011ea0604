"""The defaults of `train`, which depend on what training starts from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """The settings of a command that sets none; see `FitConfig`."""

    epochs: int
    learning_rate: float
    head_factor: float


def defaults_for(*, continues: bool, lora: bool) -> Defaults:
    """Return the defaults for a student that *continues* one with these labels, or starts anew.

    Those for continuing are the ones of the first release. An alternative (a third of the rate, no
    faster head, dropout 0.1, as many replayed rows as own ones) gained less on 300 own reviews and
    took almost twice as long (benchmarks/results/own_reviews.md).
    """
    rate = 5e-4 if lora else 1.5e-4 if continues else 1e-4
    head_factor = 1.0 if lora and continues else 10.0
    return Defaults(epochs=3 if continues else 5, learning_rate=rate, head_factor=head_factor)


def replayed_rows(own: int) -> int:
    """Return how many of the packaged reviews are replayed with *own* rows.

    On 1,000 tweets the replay took a third more time, and the loss on other sets rose only a
    quarter as much as without it (same file).
    """
    return own // 4
