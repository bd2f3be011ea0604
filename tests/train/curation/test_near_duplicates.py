"""Near-duplicates against a brute-force reference."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest

from sentimill_train.curation import near_duplicates
from sentimill_train.curation.near_duplicates import (
    NEIGHBOURS,
    Groups,
    band_hasher,
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


def groups_of(found: list[str], threshold: float) -> Groups:
    """Group texts as `curate` does."""
    band_keys = band_hasher()
    keys = np.array([band_keys(shingles(text)) for text in found])
    alive, kinds = np.ones(len(found), dtype=np.bool_), np.zeros(len(found), dtype=np.int64)
    return near_groups(keys, alive, kinds, lambda row: shingles(found[row]), threshold)


@pytest.mark.parametrize("seed", range(4))
def test_groups_are_those_of_all_pairs(seed: int) -> None:
    """The same groups as comparing everything with everything: none missed, none invented."""
    found = texts(seed)
    expected = Groups(len(found))
    sets = [shingles(text) for text in found]
    for first, second in itertools.combinations(range(len(found)), 2):
        if jaccard(sets[first], sets[second]) >= 0.8:
            expected.join(first, second)

    got = groups_of(found, 0.8)

    rows = range(len(found))
    assert [got.find(row) for row in rows] == [expected.find(row) for row in rows]
    assert len({got.find(row) for row in rows}) < len(found)


def test_group_is_named_by_its_first_row() -> None:
    """So held-out rows, which come first, win over any other."""
    groups = groups_of(["a b c d e f g h i j"] * 5, 0.8)

    assert {groups.find(row) for row in range(5)} == {0}


def comparisons(found: list[str]) -> tuple[int, int]:
    """Return how many pairs are compared to group *found*, and how many groups come of it."""
    count = 0

    def counted(first: set[str], second: set[str]) -> float:
        nonlocal count
        count += 1
        return jaccard(first, second)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(near_duplicates, "jaccard", counted)
        groups = groups_of(found, 0.8)
    return count, len({groups.find(row) for row in range(len(found))})


def test_one_key_shared_by_all_costs_no_quadratic_time() -> None:
    """Texts without any word share every key and are alike in nothing."""
    count, groups = comparisons(["!!!", "???"] * 2000)

    assert groups == 4000
    assert count <= 4000 * NEIGHBOURS


def test_comparisons_grow_as_the_rows_do() -> None:
    """Half of each text is the same in all, so most keys are shared and no pair is alike."""
    common = " ".join(f"common{n}" for n in range(30))

    def varied(rows: int) -> list[str]:
        return [f"{common} {' '.join(f'own{row}x{n}' for n in range(15))}" for row in range(rows)]

    few, groups = comparisons(varied(800))
    many, more_groups = comparisons(varied(1600))

    assert (groups, more_groups) == (800, 1600)
    assert few > 800
    assert many <= 2.2 * few


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", set()), ("good", {"good"}), ("not good at all", {"not good", "good at", "at all"})],
)
def test_shingles_are_pairs_of_words(text: str, expected: set[str]) -> None:
    """A single word stands for itself."""
    assert shingles(text) == expected
