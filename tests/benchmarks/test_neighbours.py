"""The blend that the benchmark of neighbours judges: votes, and a weight only where it helps."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.evidence.blend import Blend, blended, fit_blend
from benchmarks.evidence.neighbours import nearest


def test_the_nearest_has_the_strongest_vote() -> None:
    """By the softmax of similarity over temperature, as in the paper's equation 2."""
    similarity = np.array([[0.9, 0.8]], dtype=np.float32)
    voted = np.array([[2, 0]])
    probs = np.array([[0.2, 0.6, 0.2]], dtype=np.float32)

    found = blended(probs, similarity, voted, Blend(0.5, 0.1))

    strong = 1 / (1 + np.exp(-1))
    assert found[0] == pytest.approx([0.1 + (1 - strong) / 2, 0.3, 0.1 + strong / 2], abs=1e-6)


def test_a_row_is_no_neighbour_of_its_own() -> None:
    """Or the fit would trust every label that is there."""
    states = np.eye(3, dtype=np.float32)
    gold = np.array([0, 1, 2])

    similarity, voted = nearest(states, (states, states, gold), itself=True)

    assert similarity.shape == (3, 2)
    assert all(row not in found for row, found in enumerate(voted.tolist()))


@pytest.mark.parametrize(("right", "weight"), [(True, True), (False, False)])
def test_neighbours_that_do_not_help_have_no_weight(right: bool, weight: bool) -> None:
    """Chance is no help; neighbours that are always right are."""
    draw = np.random.default_rng(0)
    gold = draw.integers(0, 3, 300)
    probs = np.full((300, 3), 0.2, dtype=np.float32)
    probs[np.arange(300), gold] = 0.6
    voted = np.repeat(gold[:, None], 4, axis=1) if right else draw.integers(0, 3, (300, 4))

    found = fit_blend(probs, gold, np.full((300, 4), 0.9, dtype=np.float32), voted)

    assert (found.weight > 0) is weight
