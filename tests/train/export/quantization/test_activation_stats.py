"""What the states of a graph look like, on the texts that are given."""

from __future__ import annotations

import numpy as np
import pytest

from sentimill_train.export.quantization.activation_stats import collect_activation_stats
from tiny_bundle import graph

TEXTS = [np.array([1, 4, 4, 2]), np.array([1, 5, 2])]


def test_the_largest_value_and_the_moments_are_those_of_all_tokens() -> None:
    """`looked_up` of the tiny graph is the word's own weights."""
    words = np.zeros((10, 3))
    words[1, 1], words[4, 2], words[5, 0] = 1, 3, 3
    tokens = words[np.concatenate(TEXTS)]

    seen = collect_activation_stats(graph(), ["looked_up"], TEXTS)["looked_up"]

    assert seen.largest.tolist() == [3, 1, 3]
    assert np.allclose(seen.moments, tokens.T @ tokens)


def test_without_a_text_there_is_nothing_to_go_by() -> None:
    """Said at once, and not by a graph of nonsense."""
    with pytest.raises(ValueError, match="need at least one text"):
        collect_activation_stats(graph(), ["looked_up"], [])
