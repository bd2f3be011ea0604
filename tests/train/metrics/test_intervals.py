"""Intervals: seeded, paired, of about the right width, honest on few rows."""

from __future__ import annotations

import numpy as np
import pytest

from sentimill_train.metrics.classification import Floats
from sentimill_train.metrics.intervals import figures, resample, share


def test_interval_has_the_width_that_theory_gives() -> None:
    """The interval of a share is 1.96 standard errors to either side."""
    hits = (np.arange(2000) % 4 == 0).astype(float)
    found = figures(2000, {"share": lambda w: w @ hits / w.sum(axis=1)}, draws=4000)["share"]
    half = 1.96 * (0.25 * 0.75 / 2000) ** 0.5
    assert found.value == 0.25
    assert found.low == pytest.approx(0.25 - half, abs=0.002)
    assert found.high == pytest.approx(0.25 + half, abs=0.002)


def test_same_seed_same_draws_whatever_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A draw has every row's count, and the seed fixes it."""
    first = resample(50, lambda w: w, draws=20, seed=3)
    assert first.shape == (20, 50)
    assert (first.sum(axis=1) == 50).all()
    assert (first == resample(50, lambda w: w, draws=20, seed=3)).all()
    assert (first != resample(50, lambda w: w, draws=20, seed=4)).any()
    monkeypatch.setattr("sentimill_train.metrics.intervals.CELLS", 200)
    assert (resample(50, lambda w: w, draws=20, seed=3).sum(axis=1) == 50).all()


def test_draws_without_a_value_are_left_out() -> None:
    """A statistic that is undefined on some draws still gets an interval from the others."""
    rare = np.zeros(30)
    rare[0] = 1.0
    found = figures(30, {"f": lambda w: (w @ rare) / (w @ rare)})["f"]
    assert (found.value, found.low, found.high) == (1.0, 1.0, 1.0)


def test_the_interval_of_a_biased_figure_reaches_down() -> None:
    """ECE reads high on draws, so its interval must not lie above the figure itself."""
    noise = np.random.default_rng(0).normal(size=400)

    def distance(weights: Floats) -> Floats:
        return np.asarray(np.abs(weights @ noise / weights.sum(axis=1)))

    noise -= noise.mean() - 0.001
    assert figures(400, {"ece": distance})["ece"].low <= 0.001


@pytest.mark.parametrize(
    ("hits", "rows", "low", "high"),
    [(0, 20, 0.0, 0.1611), (20, 20, 0.8389, 1.0), (5, 20, 0.1119, 0.4687), (0, 0, 0.0, 1.0)],
)
def test_wilson_interval(hits: int, rows: int, low: float, high: float) -> None:
    """Wilson's interval, as tabulated; no rows say nothing."""
    found = share(hits, rows)
    assert [found.low, found.high] == pytest.approx([low, high], abs=1e-4)
