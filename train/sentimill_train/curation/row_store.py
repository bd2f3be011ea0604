"""Stores the rows of a curation: texts in a scratch file, and a few numbers a row in memory.

Curation looks at every row several times and in several orders. The rows stay on disk, and the
numbers for its decisions are in arrays of some 40 bytes a row.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from sentimill_train.curation.near_duplicates import BANDS, band_hasher, shingles
from sentimill_train.data.examples import encode_example, stream_examples, stream_texts
from sentimill_train.data.schema import Columns, Example
from sentimill_train.data.splits import cleaned, normalise, split_of_key, text_key

SPLITS: Final = ("train", "validation", "test")
HELD_OUT: Final = -1
"""The split of a row of a held-out file. Its text must not be trained on."""
_REPORT_ROWS: Final = 1000

# The numbers of a row, as written and as read: see `RowStore`.
_NUMBERS: Final = struct.Struct("<qqiibb??")
_READ: Final = np.dtype(
    [
        ("key", "<i8"),
        ("end", "<i8"),
        ("domain", "<i4"),
        ("label", "<i4"),
        ("split", "i1"),
        ("split_by_hash", "i1"),
        ("readable", "?"),
        ("human", "?"),
    ]
)


@dataclass(slots=True)
class RowStore:
    """All rows in order, held-out ones first. Arrays are (rows,).

    key: 63 bits of the hash of the normalised text. label: index in the label set, -1 without one.
    domain: index in `domains`. split: index in `SPLITS` (see `assign` of `data.splits`), or
    HELD_OUT. readable: a model can read the text. human: a person gave the label. bands: the keys
    of every row for near-duplicates, (rows, BANDS).
    """

    key: NDArray[np.int64]
    label: NDArray[np.int64]
    domain: NDArray[np.int64]
    domains: list[str]
    split: NDArray[np.int64]
    readable: NDArray[np.bool_]
    human: NDArray[np.bool_]
    bands: NDArray[np.uint64]
    _ends: NDArray[np.int64]
    _map: mmap.mmap

    def line(self, row: int) -> bytes:
        """Return a row as its line of JSON."""
        return self._map[self._ends[row - 1] if row else 0 : self._ends[row]]

    def row(self, row: int | np.int64) -> Example:
        """Return a row."""
        stored = msgspec.json.decode(self.line(int(row)), type=_Stored)
        return Example(id=stored.id, text=stored.text, label=stored.label, source="")

    def close(self) -> None:
        """Close the scratch file; the caller deletes its folder."""
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
    """Read everything once into *folder*. Raises TableError if a file cannot be read."""
    path, band_path = folder / "rows.jsonl", folder / "bands.bin"
    band_keys = band_hasher()
    numbers, domains = bytearray(), dict[str, int]()
    place = {name: k for k, name in enumerate(labels)}

    def store(examples: Iterable[Example], *, held_out: bool) -> None:
        rows = 0
        for rows, example in enumerate(examples, 1):
            key = text_key(example.text)
            by_hash = split_of_key(key)
            by_model = example.probs is not None or example.teacher is not None
            band_file.write(band_keys(shingles(normalise(example.text))).tobytes())
            file.write(encode_example(example, labels))
            numbers.extend(
                _NUMBERS.pack(
                    key >> 1,
                    file.tell(),
                    domains.setdefault(example.domain or "", len(domains)),
                    -1 if example.label is None else place[example.label],
                    HELD_OUT if held_out else SPLITS.index(example.split or by_hash),
                    SPLITS.index(by_hash),
                    cleaned(example.text) is not None,
                    example.label is not None and not by_model,
                )
            )
            if not held_out and rows % _REPORT_ROWS == 0:
                progress(rows)
        if not held_out:
            progress(rows)

    with path.open("wb", 1 << 20) as file, band_path.open("wb", 1 << 20) as band_file:
        for name in holdout:
            row_id = f"a row of {Path(name).name}"
            texts = (text for text, _ in stream_texts(name, columns))
            store((Example(id=row_id, text=text, source=name) for text in texts), held_out=True)
        examples = stream_examples(source, columns=columns, labels=labels, keep=True)
        store(examples, held_out=False)
    read = np.frombuffer(numbers, dtype=_READ)
    split = read["split"].astype(np.int64)
    for part in range(1, len(SPLITS)):  # as in `assign`, if a file has no rows for a split
        if not (split == part).any():
            split[(split == 0) & (read["split_by_hash"] == part)] = part
    with path.open("rb") as stored:
        mapped = mmap.mmap(stored.fileno(), 0, access=mmap.ACCESS_READ)
    return RowStore(
        key=read["key"],
        label=read["label"].astype(np.int64),
        domain=read["domain"],
        domains=list(domains),
        split=split,
        readable=read["readable"],
        human=read["human"],
        bands=np.memmap(band_path, dtype=np.uint64, mode="r").reshape(-1, BANDS),
        _ends=read["end"],
        _map=mapped,
    )
