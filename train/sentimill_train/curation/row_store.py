"""The rows of a curation: texts in a scratch file, and a few numbers a row in memory.

Curation looks at every row several times and in several orders. The rows stay on disk; what
decides is held in arrays of about 20 bytes a row.
"""

from __future__ import annotations

import mmap
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from sentimill.errors import TextError
from sentimill.text.cleaning import clean
from sentimill_train.curation.near_duplicates import Bands, shingles
from sentimill_train.data.examples import encode_example, stream_examples, stream_texts
from sentimill_train.data.schema import Columns, Example
from sentimill_train.data.splits import normalise, split_of_key, text_key

__all__ = ["HELD_OUT", "SPLITS", "RowStore", "store_rows"]

SPLITS: Final = ("train", "validation", "test")
HELD_OUT: Final = -1
"""The split of a row that is read for its text alone: it must not be trained on."""
_REPORT_ROWS: Final = 1000


@dataclass(slots=True)
class RowStore:
    """All rows in their order, held-out ones first. Arrays are (rows,).

    key: 63 bits of the hash of the normalised text. label: index in the label set, -1 without one.
    domain: index in `domains`. split: index in `SPLITS` (see `assign` of `data.splits`), or
    HELD_OUT. readable: a model can read the text. human: a person gave the label. bands: of every
    row, for near-duplicates.
    """

    key: NDArray[np.int64]
    label: NDArray[np.int64]
    domain: NDArray[np.int64]
    domains: list[str]
    split: NDArray[np.int64]
    readable: NDArray[np.bool_]
    human: NDArray[np.bool_]
    bands: Bands
    _ends: array[int]
    _map: mmap.mmap

    def line(self, row: int) -> bytes:
        """Return a row as its line of JSON."""
        return self._map[self._ends[row - 1] if row else 0 : self._ends[row]]

    def row(self, row: int) -> Example:
        """Return a row."""
        stored = msgspec.json.decode(self.line(row), type=_Stored)
        return Example(id=stored.id, text=stored.text, label=stored.label, source="")

    def texts(self, rows: Sequence[int]) -> list[str]:
        """Return the texts of *rows*."""
        return [self.row(int(row)).text for row in rows]

    def close(self) -> None:
        """Close the scratch file; the folder that holds it is the caller's."""
        self._map.close()


class _Stored(msgspec.Struct):
    id: str
    text: str
    label: str | None = None


def store_rows(
    source: str,
    holdout: Sequence[str],
    folder: Path,
    labels: tuple[str, ...],
    columns: Columns,
    progress: Callable[[int], None] = lambda rows: None,
) -> RowStore:
    """Read everything once into *folder*. Raises TableError where a file cannot be read."""
    with _Writer(folder, labels) as writer:
        for name in holdout:
            for text, _ in stream_texts(name, columns):
                writer.add(Example(id=f"a row of {Path(name).name}", text=text, source=name), True)
        first = len(writer.key)
        for example in stream_examples(source, columns=columns, labels=labels, keep=True):
            writer.add(example, False)
            if len(writer.key) % _REPORT_ROWS == 0:
                progress(len(writer.key) - first)
        progress(len(writer.key) - first)
        return writer.done()


class _Writer:
    """Collects what `RowStore` holds."""

    def __init__(self, folder: Path, labels: tuple[str, ...]) -> None:
        self.key = array("q")
        self._path = folder / "rows.jsonl"
        self._file = self._path.open("wb", buffering=1 << 20)
        self._bands = Bands(folder / "bands.bin")
        self._labels = labels
        self._place = {name: k for k, name in enumerate(labels)}
        self._label, self._domain = array("b"), array("i")
        self._split, self._hash_split = array("b"), array("b")
        self._readable, self._human = array("b"), array("b")
        self._ends = array("q")
        self._domains: dict[str, int] = {}

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._bands.close()

    def add(self, example: Example, held_out: bool) -> None:
        """Add a row."""
        key = text_key(example.text)
        by_hash = SPLITS.index(split_of_key(key))
        split = by_hash if example.split is None else SPLITS.index(example.split)
        self.key.append(key >> 1)
        self._bands.append(shingles(normalise(example.text)))
        self._label.append(-1 if example.label is None else self._place[example.label])
        self._domain.append(self._domains.setdefault(example.domain or "", len(self._domains)))
        self._split.append(HELD_OUT if held_out else split)
        self._hash_split.append(by_hash)
        self._readable.append(_readable(example.text))
        by_model = example.probs is not None or example.teacher is not None
        self._human.append(example.label is not None and not by_model)
        self._file.write(encode_example(example, self._labels))
        self._ends.append(self._file.tell())

    def done(self) -> RowStore:
        """Hand everything over."""
        self._file.close()
        split = np.array(self._split, dtype=np.int64)
        by_hash = np.array(self._hash_split, dtype=np.int64)
        for part in range(1, len(SPLITS)):  # as `assign` will do where a file lacks a split
            if not (split == part).any():
                split[(split == 0) & (by_hash == part)] = part
        with self._path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return RowStore(
            key=np.array(self.key, dtype=np.int64),
            label=np.array(self._label, dtype=np.int64),
            domain=np.array(self._domain, dtype=np.int64),
            domains=list(self._domains),
            split=split,
            readable=np.array(self._readable, dtype=np.bool_),
            human=np.array(self._human, dtype=np.bool_),
            bands=self._bands,
            _ends=self._ends,
            _map=mapped,
        )


def _readable(text: str) -> bool:
    try:
        clean(text)
    except TextError:
        return False
    return True
