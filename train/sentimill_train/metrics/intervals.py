"""Confidence intervals: how much a figure would vary on other samples of such rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import msgspec
import numpy as np

from sentimill_train.metrics.classification import Floats

DRAWS: Final = 1000
"""Bootstrap draws; Efron and Tibshirani 1993, section 13.3, ask for about 1000 for percentiles."""

Statistic = Callable[[Floats], Floats]

CELLS: Final = 4_000_000
"""Weights in memory at once: 32 MB."""


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """A value with its 95 % interval. rows: how many it was computed on."""

    value: float
    low: float
    high: float
    rows: int


def resample(rows: int, statistic: Statistic, *, draws: int, seed: int) -> Floats:
    """Return *statistic* on bootstrap draws of *rows* rows: (draws, ...).

    *statistic* takes weights (some draws, rows), how often each row was drawn. The draws depend
    only on the seed and the number of rows, so differences between models are paired.
    """
    random = np.random.default_rng(seed)
    found: list[Floats] = []
    step = max(1, CELLS // rows)
    for start in range(0, draws, step):
        size = min(step, draws - start)
        drawn = random.integers(0, rows, (size, rows)) + np.arange(size)[:, None] * rows
        counts = np.bincount(drawn.ravel(), minlength=size * rows).reshape(size, rows)
        found.append(statistic(counts.astype(np.float64)))
    return np.concatenate(found)


def figures(
    rows: int, statistics: Mapping[str, Statistic], *, draws: int = DRAWS, seed: int = 0
) -> dict[str, Figure]:
    """Return each statistic of *rows* rows with its percentile interval, all on the same draws.

    Efron 1979; Efron and Tibshirani 1993, chapter 13. A draw on which a statistic is undefined is
    left out. The statistic named `ece` is biased upwards on draws, so its lower end is that of the
    basic interval if lower (chapter 13.8 there; Davison and Hinkley 1997, section 5.2).
    """

    def all_at_once(weights: Floats) -> Floats:
        return np.stack([statistic(weights) for statistic in statistics.values()], axis=1)

    values = all_at_once(np.ones((1, rows)))[0]
    with np.errstate(invalid="ignore", divide="ignore"):
        drawn = resample(rows, all_at_once, draws=draws, seed=seed)
    found = {}
    for name, value, column in zip(statistics, values.tolist(), drawn.T, strict=True):
        kept = column[np.isfinite(column)]
        low, high = np.quantile(kept, [0.025, 0.975]).tolist() if len(kept) else (value, value)
        if name == "ece":
            low = max(0.0, min(low, 2 * value - high))
        found[name] = Figure(value=value, low=low, high=high, rows=rows)
    return found


def share(hits: int, rows: int) -> Figure:
    """Return hits / rows with Wilson's 95 % interval (Wilson 1927; Brown, Cai, DasGupta 2001).

    If nothing failed, the interval of a bootstrap would have no width.
    """
    from scipy.stats import binomtest

    if rows == 0:
        return Figure(value=0.0, low=0.0, high=1.0, rows=0)
    interval = binomtest(hits, rows).proportion_ci(method="wilson")
    return Figure(value=hits / rows, low=float(interval.low), high=float(interval.high), rows=rows)


def error_bound(errors: Floats | float, rows: Floats | float, chance: float) -> Floats:
    """Return the upper bound of the error rate, exceeded with a probability of at most *chance*.

    This is the upper end of the one-sided interval of Clopper and Pearson 1934. errors, rows: (n,)
    or numbers.
    """
    from scipy.stats import beta

    found = beta.ppf(1 - chance, errors + 1, np.maximum(rows - errors, 1e-9))
    return np.asarray(np.where(errors >= rows, 1.0, found), dtype=np.float64)
