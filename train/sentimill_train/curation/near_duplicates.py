"""Exact and near-duplicates among millions of texts, in bounded memory.

MinHash (datasketch) turns a text into band keys: two texts whose word pairs overlap much share a
key in some band with high probability. The keys lie on disk and are sorted band by band; texts with
a common key are then compared by their true Jaccard similarity, so no estimate ever drops a row.
"""

from __future__ import annotations

import re
import zlib
from array import array
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import IO, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["ANY_KIND", "BANDS", "Bands", "Groups", "jaccard", "near_groups", "shingles"]

BANDS: Final = 16
_ROWS: Final = 4
"""A pair at Jaccard 0.8 shares a key in some of 16 bands of 4 with probability 0.9998; one at 0.5
with 0.64, and is then told apart by its true similarity (Leskovec, Rajaraman, Ullman, "Mining of
Massive Datasets", section 3.4.2: 1 - (1 - s^r)^b)."""

ANY_KIND: Final = -2
"""The kind of a row that is compared with rows of every kind."""

_WORD: Final = re.compile(r"\w+")
_LEADERS: Final = 16


def shingles(normalised: str) -> set[str]:
    """Return a text's pairs of neighbouring words; a text of one word is its own shingle."""
    words = _WORD.findall(normalised)
    if len(words) < 2:
        return set(words)
    return {f"{first} {second}" for first, second in pairwise(words)}


def jaccard(first: set[str], second: set[str]) -> float:
    """Return the share of common shingles; 0 where there are none at all."""
    union = len(first | second)
    return len(first & second) / union if union else 0.0


class Bands:
    """The band keys of texts in order, on disk: 128 bytes a text."""

    def __init__(self, path: Path, seed: int = 1) -> None:
        from datasketch import MinHash

        self._path = path
        self._file: IO[bytes] = path.open("wb", buffering=1 << 20)
        self._minhash = MinHash(num_perm=BANDS * _ROWS, seed=seed, hashfunc=zlib.crc32)
        self._salt = np.arange(1, BANDS + 1, dtype=np.uint64)
        self.rows = 0

    def append(self, found: set[str]) -> None:
        """Add a text by its shingles."""
        self._minhash.clear()
        self._minhash.update_batch([shingle.encode("utf-8", "replace") for shingle in found])
        values = self._minhash.hashvalues.reshape(BANDS, _ROWS).astype(np.uint64)
        key = np.zeros(BANDS, dtype=np.uint64)
        for column in range(_ROWS):  # FNV-1a over the four values of a band
            key = (key ^ values[:, column]) * np.uint64(1099511628211)
        self._file.write((key ^ self._salt).tobytes())
        self.rows += 1

    def __enter__(self) -> Bands:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def close(self) -> None:
        """Stop writing."""
        self._file.close()

    def columns(self) -> Iterator[NDArray[np.uint64]]:
        """Close the file and yield the keys of one band after the other, (rows,) each."""
        self._file.close()
        if self.rows == 0:
            return
        keys = np.memmap(self._path, dtype=np.uint64, mode="r", shape=(self.rows, BANDS))
        for band in range(BANDS):
            yield np.array(keys[:, band])


class Groups:
    """Union-find over rows: which rows are the same review. The root is the first row."""

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
    bands: Bands,
    alive: NDArray[np.bool_],
    kinds: NDArray[np.int64],
    shingles_of: Callable[[int], set[str]],
    threshold: float,
    progress: Callable[[int], None] = lambda band: None,
) -> Groups:
    """Group the rows that are *alive* by a Jaccard similarity of at least *threshold*.

    kinds: (rows,) only rows of one kind are alike; a row of kind ANY_KIND is like any other.
    Within a band, rows of one key are compared with those that lead their groups so far, and at
    most 16 of them, so a key that half the file shares costs no quadratic time.
    """
    groups = Groups(len(alive))
    rows = np.flatnonzero(alive)
    for band, keys in enumerate(bands.columns()):
        found = keys[rows]
        order = np.argsort(found, kind="stable")  # stable: within a key in the order of rows
        ordered = found[order]
        starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
        ends = np.concatenate((starts[1:], [len(ordered)]))
        many = ends - starts > 1
        for start, end in zip(starts[many].tolist(), ends[many].tolist(), strict=True):
            members = rows[order[start:end]].tolist()
            _compare(groups, members, kinds, shingles_of, threshold)
        progress(band)
    return groups


def _compare(
    groups: Groups,
    members: list[int],
    kinds: NDArray[np.int64],
    shingles_of: Callable[[int], set[str]],
    threshold: float,
) -> None:
    leaders: list[int] = []
    known: dict[int, set[str]] = {}

    def of(row: int) -> set[str]:
        if row not in known:
            known[row] = shingles_of(row)
        return known[row]

    for row in members:
        alike = [n for n in leaders if ANY_KIND in (kinds[n], kinds[row]) or kinds[n] == kinds[row]]
        if any(groups.find(row) == groups.find(leader) for leader in alike):
            continue
        for leader in alike:
            if jaccard(of(leader), of(row)) >= threshold:
                groups.join(leader, row)
                break
        else:
            if len(leaders) < _LEADERS:
                leaders.append(row)
        if row not in leaders:
            known.pop(row, None)
