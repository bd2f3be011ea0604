"""The tests for a shift: quiet where nothing moved, loud where something did, right in value."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sentimill.observability.history import population_stability
from sentimill_train.metrics.two_sample_tests import (
    AUC_LIMIT,
    KS_LIMIT,
    PSI_LIMIT,
    embedding_shift,
    mix_shift,
    spread,
)

EVEN = {"negative": 0.5, "positive": 0.5}


@pytest.mark.parametrize("counts", [{"negative": 20, "positive": 80}, {"positive": 100}])
def test_the_index_is_that_of_the_dashboard(counts: dict[str, int]) -> None:
    """One formula, whether a server counts or the command does."""
    found = mix_shift(EVEN, counts, reference_rows=None)

    assert found.value == pytest.approx(population_stability(EVEN, counts))
    assert found.value >= PSI_LIMIT
    assert found.p < 1e-6


def test_the_same_mix_has_not_moved() -> None:
    """No distance, and certainty that chance gives as much."""
    found = mix_shift(EVEN, {"negative": 50, "positive": 50}, reference_rows=100)

    assert (found.value, found.p) == (0.0, 1.0)


def test_few_rows_of_the_reference_make_an_index_less_sure() -> None:
    """The same distance is more likely by chance when the shares rest on fewer texts."""
    counts = {"negative": 60, "positive": 40}

    exact, rough = (mix_shift(EVEN, counts, reference_rows=rows) for rows in (None, 50))

    assert rough.value == exact.value
    assert rough.p > exact.p


def test_the_index_cries_wolf_as_seldom_as_it_says() -> None:
    """Of draws from the reference itself, about a twentieth has a p under 0.05."""
    random = np.random.default_rng(1)
    shares = {"negative": 0.2, "neutral": 0.3, "positive": 0.5}
    draws = random.multinomial(500, list(shares.values()), size=2000)

    ps = [
        mix_shift(shares, dict(zip(shares, draw.tolist(), strict=True)), reference_rows=None).p
        for draw in draws
    ]

    assert np.mean(np.array(ps) < 0.05) == pytest.approx(0.05, abs=0.02)


def test_a_spread_is_the_largest_gap_of_the_distribution_functions() -> None:
    """Half of the new values lie above all of the old."""
    old, new = np.linspace(0, 1, 200), np.concatenate([np.linspace(0, 1, 100), np.full(100, 2.0)])

    found = spread(old, new)

    assert found.value == pytest.approx(0.5, abs=0.01)
    assert found.p < 1e-6
    assert spread(old, old).value == 0
    assert found.value > KS_LIMIT


def embedded(rows: int, *, by: float, seed: int) -> np.typing.NDArray[np.float64]:
    """Return points in eight dimensions whose first is *by* off the middle."""
    points = np.random.default_rng(seed).normal(size=(rows, 8))
    points[:, 0] += by
    return points


def test_embeddings_that_moved_are_told_apart() -> None:
    """The AUC nears what the distance allows, and no permutation reaches it."""
    found = embedding_shift(embedded(2000, by=0, seed=1), embedded(1500, by=1.5, seed=2))

    best = 0.5 * (1 + math.erf(1.5 / 2))  # of two normals 1.5 apart
    assert found.value == pytest.approx(best, abs=0.03)
    assert found.value >= AUC_LIMIT
    assert found.p == pytest.approx(1 / 2001)


@pytest.mark.slow
def test_embeddings_that_stayed_are_not() -> None:
    """Of draws of one distribution, about a fifth has a p under 0.2."""
    ps = [
        embedding_shift(embedded(60, by=0, seed=2 * i), embedded(80, by=0, seed=2 * i + 1)).p
        for i in range(40)
    ]

    assert 0.05 <= np.mean(np.array(ps) < 0.2) <= 0.4


def test_one_seed_gives_one_answer() -> None:
    """Halves and permutations are drawn by it alone."""
    old, new = embedded(50, by=0, seed=1), embedded(50, by=0.3, seed=2)

    assert embedding_shift(old, new, seed=3) == embedding_shift(old, new, seed=3)
