"""Near-duplicates against a brute-force reference."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import numpy as np
import pytest

from sentimill_train.curation.near_duplicates import (
    Bands,
    Groups,
    jaccard,
    near_groups,
    shingles,
)

WORDS = [f"w{n}" for n in range(300)]


def texts(seed: int) -> list[str]:
    """Return texts of many lengths, some with near copies."""
    rng = random.Random(seed)
    found = []
    for _ in range(60):
        words = [rng.choice(WORDS) for _ in range(rng.randint(4, 60))]
        found.append(" ".join(words))
        for _ in range(rng.randint(0, 3)):
            copy = list(words)
            for _ in range(rng.randint(0, 4)):
                copy[rng.randrange(len(copy))] = rng.choice(WORDS)
            found.append(" ".join(copy))
    rng.shuffle(found)
    return found


def groups_of(found: list[str], folder: Path, threshold: float) -> Groups:
    """Group texts as `curate` does."""
    bands = Bands(folder / "bands.bin")
    for text in found:
        bands.append(shingles(text))
    alive, kinds = np.ones(len(found), dtype=np.bool_), np.zeros(len(found), dtype=np.int64)
    return near_groups(bands, alive, kinds, lambda row: shingles(found[row]), threshold)


@pytest.mark.parametrize("seed", range(4))
def test_groups_are_those_of_all_pairs(tmp_path: Path, seed: int) -> None:
    """The same groups as comparing everything with everything: none missed, none invented."""
    found = texts(seed)
    expected = Groups(len(found))
    sets = [shingles(text) for text in found]
    for first, second in itertools.combinations(range(len(found)), 2):
        if jaccard(sets[first], sets[second]) >= 0.8:
            expected.join(first, second)

    got = groups_of(found, tmp_path, 0.8)

    rows = range(len(found))
    assert [got.find(row) for row in rows] == [expected.find(row) for row in rows]
    assert len({got.find(row) for row in rows}) < len(found)


def test_group_is_named_by_its_first_row(tmp_path: Path) -> None:
    """So held-out rows, which come first, win over any other."""
    groups = groups_of(["a b c d e f g h i j"] * 5, tmp_path, 0.8)

    assert {groups.find(row) for row in range(5)} == {0}


def test_one_key_shared_by_all_costs_no_quadratic_time(tmp_path: Path) -> None:
    """Texts without any word share every key and are alike in nothing."""
    groups = groups_of(["!!!", "???"] * 2000, tmp_path, 0.8)

    assert len({groups.find(row) for row in range(4000)}) == 4000


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", set()), ("good", {"good"}), ("not good at all", {"not good", "good at", "at all"})],
)
def test_shingles_are_pairs_of_words(text: str, expected: set[str]) -> None:
    """A single word stands for itself."""
    assert shingles(text) == expected
