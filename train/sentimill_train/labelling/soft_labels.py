"""From answers to soft labels: votes to shares, a temperature from gold rows, several teachers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

__all__ = [
    "LEAST_GOLD",
    "agreement",
    "combine",
    "disagreement",
    "fit_temperature",
    "of_votes",
    "temper",
]

Shares = tuple[float, ...]

LEAST_GOLD: Final = 20
"""Gold rows below which a temperature would be noise."""

_FLOOR: Final = 1e-4  # a share of 0 would make one wrong row decide the temperature
_COLDEST, _HOTTEST = 0.2, 10.0
_STEPS: Final = 60


def of_votes(votes: Sequence[Shares]) -> Shares:
    """Return the mean of votes, with one vote's weight spread over all labels (Laplace)."""
    labels = len(votes[0])
    return tuple(
        (math.fsum(vote[k] for vote in votes) + 1 / labels) / (len(votes) + 1)
        for k in range(labels)
    )


def temper(shares: Shares, temperature: float) -> Shares:
    """Return shares raised to 1/temperature and scaled to sum to 1; above 1 is less sure."""
    if temperature == 1.0:
        return shares
    powers = [max(share, _FLOOR) ** (1 / temperature) for share in shares]
    total = math.fsum(powers)
    return tuple(power / total for power in powers)


def fit_temperature(rows: Sequence[tuple[Shares, int]]) -> float:
    """Return the temperature with the least log loss on gold rows (shares, index of the label).

    1 with fewer than `LEAST_GOLD` rows. A golden-section search: the loss has one valley in the
    logarithm of the temperature (Guo et al., "On Calibration of Modern Neural Networks", 2017).
    """
    if len(rows) < LEAST_GOLD:
        return 1.0

    def loss(log_t: float) -> float:
        t = math.exp(log_t)
        return -math.fsum(math.log(max(temper(shares, t)[gold], 1e-12)) for shares, gold in rows)

    low, high = math.log(_COLDEST), math.log(_HOTTEST)
    ratio = (math.sqrt(5) - 1) / 2
    for _ in range(_STEPS):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if loss(left) <= loss(right):
            high = right
        else:
            low = left
    return round(math.exp((low + high) / 2), 4)


def agreement(rows: Sequence[tuple[Shares, int]]) -> float | None:
    """Return the share of gold rows whose label is the teacher's first choice; None without any."""
    if not rows:
        return None
    return sum(shares.index(max(shares)) == gold for shares, gold in rows) / len(rows)


def combine(teachers: Sequence[Shares], weights: Sequence[float]) -> Shares:
    """Return the weighted mean of several teachers' shares: a linear opinion pool.

    A product of them would be sharper than any of them, though they err on the same rows.
    """
    total = math.fsum(weights)
    return tuple(
        math.fsum(weight * shares[k] for weight, shares in zip(weights, teachers, strict=True))
        / total
        for k in range(len(teachers[0]))
    )


def disagreement(teachers: Sequence[Shares]) -> float | None:
    """Return how far teachers are apart, 0 to 1; None for a single one.

    The Jensen-Shannon divergence over its largest value: 1 when each is sure of something else.
    """
    if len(teachers) < 2:
        return None
    middle = combine(teachers, [1.0] * len(teachers))
    spread = _entropy(middle) - math.fsum(map(_entropy, teachers)) / len(teachers)
    most = math.log(min(len(teachers), len(middle)))
    return min(1.0, max(0.0, spread / most))


def _entropy(shares: Shares) -> float:
    return -math.fsum(share * math.log(share) for share in shares if share > 0)
