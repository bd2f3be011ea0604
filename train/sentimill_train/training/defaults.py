"""The defaults of `train`, which depend on what training starts from."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Defaults", "defaults_for", "replayed_rows"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """The settings that a command takes where it is given none; see `FitConfig`.

    dropout: None keeps that of the base.
    """

    epochs: int
    learning_rate: float
    head_factor: float
    dropout: float | None


def defaults_for(*, continues: bool, lora: bool) -> Defaults:
    """Return the defaults for a student that *continues* one with these labels, or starts anew.

    A new head starts from noise, so it learns at ten times the rate of the encoder. A trained head
    does not, and at that rate it forgets other reviews.
    """
    if lora:
        epochs, head_factor = (3, 1.0) if continues else (5, 10.0)
        return Defaults(epochs=epochs, learning_rate=5e-4, head_factor=head_factor, dropout=None)
    if continues:
        return Defaults(epochs=3, learning_rate=5e-5, head_factor=1.0, dropout=0.1)
    return Defaults(epochs=5, learning_rate=1e-4, head_factor=10.0, dropout=None)


def replayed_rows(own: int) -> int:
    """Return how many of the packaged reviews are learnt again among *own* rows."""
    return max(1000, own // 4)
