"""Soft labels: the mean of votes, a temperature from gold rows, the mean of several teachers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from scipy.special import entr

from sentimill_train.calibration.temperature import find_temperature

Shares = tuple[float, ...]

LEAST_GOLD: Final = 20
"""With fewer gold rows a temperature would be noise."""

_FLOOR: Final = 1e-4  # with a share of 0, one wrong row would decide the temperature


def of_votes(votes: Sequence[Shares]) -> Shares:
    """Return the mean of the votes and one uniform vote (Laplace smoothing)."""
    labels = len(votes[0])
    return combine([*votes, (1 / labels,) * labels], [1.0] * (len(votes) + 1))


def temper(shares: Shares, temperature: float) -> Shares:
    """Return shares raised to 1/temperature and scaled to sum to 1. Above 1 they are less sure."""
    if temperature == 1.0:
        return shares
    powers = [max(share, _FLOOR) ** (1 / temperature) for share in shares]
    total = math.fsum(powers)
    return tuple(power / total for power in powers)


def fit_temperature(rows: Sequence[tuple[Shares, int]]) -> float:
    """Return the temperature with the least log loss on gold rows (shares, index of the label).

    With fewer than `LEAST_GOLD` rows it is 1. Scaled shares to the power of 1/T are the softmax of
    their logarithms divided by T, so this is the temperature that calibration fits.
    """
    if len(rows) < LEAST_GOLD:
        return 1.0
    logits = np.log(np.maximum(np.array([shares for shares, _ in rows]), _FLOOR))
    gold = np.array([label for _, label in rows], dtype=np.int64)
    return round(find_temperature(logits.astype(np.float32), gold), 4)


def agreement(rows: Sequence[tuple[Shares, int]]) -> float | None:
    """Return the share of gold rows whose label is the teacher's first choice; None without any."""
    if not rows:
        return None
    return sum(shares.index(max(shares)) == gold for shares, gold in rows) / len(rows)


def combine(teachers: Sequence[Shares], weights: Sequence[float]) -> Shares:
    """Return the weighted mean of several teachers' shares: a linear opinion pool.

    Their product would be sharper than each of them, although they often err on the same rows.
    """
    return tuple(np.average(teachers, axis=0, weights=weights).tolist())


def disagreement(teachers: Sequence[Shares]) -> float | None:
    """Return how much teachers disagree, 0 to 1; None for a single one.

    This is the Jensen-Shannon divergence, divided by its largest value: it is 1 if each teacher is
    sure of another label.
    """
    if len(teachers) < 2:
        return None
    middle = combine(teachers, [1.0] * len(teachers))
    spread = entr(middle).sum() - entr(teachers).sum(axis=1).mean()
    return float(np.clip(spread / math.log(min(len(teachers), len(middle))), 0.0, 1.0))
