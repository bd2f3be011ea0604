"""Finds near-duplicates among millions of texts, in bounded memory and about linear time.

MinHash (datasketch) turns a text into band keys: two texts with many common word pairs share a key
in some band with high probability. The keys are on disk and sorted band by band. Texts with a
common key are then compared by their exact Jaccard similarity, so no row is dropped by an estimate.
"""

from __future__ import annotations

import re
import zlib
from array import array
from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

BANDS: Final = 16
_ROWS: Final = 4
"""A pair at Jaccard 0.8 shares a key in one of 16 bands of 4 with probability 0.9998. A pair at 0.5
does so with probability 0.64, and its exact similarity then rejects it (Leskovec, Rajaraman,
Ullman, "Mining of Massive Datasets", section 3.4.2: 1 - (1 - s^r)^b)."""

NEIGHBOURS: Final = 16
"""A row is compared with at most this many rows before it in a band, as many may share its key."""

ANY_KIND: Final = -2
"""The kind of a row that is compared with rows of every kind."""

_WORD: Final = re.compile(r"\w+")
_CACHED_ROWS: Final = 1000  # enough, since rows with a common key are compared consecutively


def shingles(normalised: str) -> set[str]:
    """Return the pairs of neighbouring words of a text; a single word is its own shingle."""
    words = _WORD.findall(normalised)
    if len(words) < 2:
        return set(words)
    return {f"{first} {second}" for first, second in pairwise(words)}


def jaccard(first: set[str], second: set[str]) -> float:
    """Return the share of common shingles; 0 if there are no shingles."""
    union = len(first | second)
    return len(first & second) / union if union else 0.0


def band_hasher(seed: int = 1) -> Callable[[set[str]], NDArray[np.uint64]]:
    """Return a function from the shingles of a text to its key in each band, (BANDS,)."""
    from datasketch import MinHash

    minhash = MinHash(num_perm=BANDS * _ROWS, seed=seed, hashfunc=zlib.crc32)

    def keys_of(found: set[str]) -> NDArray[np.uint64]:
        minhash.clear()
        minhash.update_batch([shingle.encode("utf-8", "replace") for shingle in found])
        values = minhash.hashvalues.reshape(BANDS, _ROWS).astype(np.uint64)
        keys = np.zeros(BANDS, dtype=np.uint64)
        for column in range(_ROWS):  # FNV-1a over the four values of a band
            keys = (keys ^ values[:, column]) * np.uint64(1099511628211)
        return keys

    return keys_of


class Groups:
    """Union-find over rows that are the same review. The root of a group is its first row."""

    def __init__(self, rows: int) -> None:
        self.parent = array("l", range(rows))

    def find(self, row: int) -> int:
        """Return the first row of the group."""
        parent = self.parent
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    def join(self, first: int, second: int) -> None:
        """Make two groups one."""
        one, other = self.find(first), self.find(second)
        self.parent[max(one, other)] = min(one, other)


def near_groups(
    keys: NDArray[np.uint64],
    alive: NDArray[np.bool_],
    kinds: NDArray[np.int64],
    shingles_of: Callable[[int], set[str]],
    threshold: float,
    progress: Callable[[int], None] = lambda band: None,
) -> Groups:
    """Group the rows that are *alive* by a Jaccard similarity of at least *threshold*.

    keys: (rows, BANDS), see `band_hasher`. kinds: (rows,), only rows of the same kind are compared;
    a row of ANY_KIND is compared with all kinds. Each row is compared with at most the `NEIGHBOURS`
    rows before it with the same key, and no pair twice, so a key that half the file shares does not
    cost quadratic time.
    """
    groups = Groups(len(alive))
    rows = np.flatnonzero(alive)
    cached = lru_cache(_CACHED_ROWS)(shingles_of)
    for band in range(BANDS):
        first, second = _neighbours(keys, rows, band)
        alike = kinds[first] == kinds[second]
        alike |= (kinds[first] == ANY_KIND) | (kinds[second] == ANY_KIND)
        for one, other in zip(first[alike].tolist(), second[alike].tolist(), strict=True):
            if groups.find(one) != groups.find(other) and (
                jaccard(cached(one), cached(other)) >= threshold
            ):
                groups.join(one, other)
        progress(band)
    return groups


def _neighbours(
    keys: NDArray[np.uint64], rows: NDArray[np.int64], band: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the pairs (first row, second row) with a common key in *band* and in none before."""
    order = rows[np.argsort(keys[rows, band], kind="stable")]
    sorted_keys = keys[order, band]
    gaps = range(1, NEIGHBOURS + 1)
    starts = [np.flatnonzero(sorted_keys[gap:] == sorted_keys[:-gap]) for gap in gaps]
    ends = np.concatenate([start + gap for gap, start in zip(gaps, starts, strict=True)])
    by_key = np.argsort(ends, kind="stable")
    first, second = order[np.concatenate(starts)[by_key]], order[ends[by_key]]
    fresh = np.ones(len(first), dtype=np.bool_)
    for earlier in range(band):
        fresh &= keys[first, earlier] != keys[second, earlier]
    return first[fresh], second[fresh]
