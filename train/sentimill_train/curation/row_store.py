"""A spool: rows on disk in order, with random access, so that memory holds a few numbers a row.

Curating looks at every row several times and in several orders. The text stays in one scratch
file; what decides is held in arrays of a fixed width: about 60 bytes a row.
"""

from __future__ import annotations

import mmap
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Final

import msgspec

from sentimill_train.data.jsonl_stream import Labelled

__all__ = ["Spool", "SpoolWriter"]

_ENCODE: Final = msgspec.json.Encoder()


class SpoolWriter:
    """Takes rows in order. `done` gives them back."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] = path.open("wb", buffering=1 << 20)
        self._ends = array("q")
        self._size = 0

    def append(self, row: Labelled) -> None:
        """Add a row."""
        line = _ENCODE.encode(row) + b"\n"
        self._file.write(line)
        self._size += len(line)
        self._ends.append(self._size)

    def close(self) -> None:
        """Stop writing."""
        self._file.close()

    def done(self) -> Spool:
        """Close the file for writing and open it for reading."""
        self._file.close()
        return Spool(self._path, self._ends)


class Spool:
    """Rows on disk. `close` when done; the folder that holds it is the caller's."""

    def __init__(self, path: Path, ends: array[int]) -> None:
        self._ends = ends
        self._file = path.open("rb")
        self._map: mmap.mmap | None = None
        if ends:
            self._map = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        self._decoder = msgspec.json.Decoder(Labelled)

    def __len__(self) -> int:
        """Return how many rows there are."""
        return len(self._ends)

    def line(self, row: int) -> bytes:
        """Return a row as its line of JSON."""
        assert self._map is not None
        return self._map[self._ends[row - 1] if row else 0 : self._ends[row]]

    def row(self, row: int) -> Labelled:
        """Return a row."""
        return self._decoder.decode(self.line(row))

    def texts(self, rows: Sequence[int]) -> list[str]:
        """Return the texts of *rows*."""
        return [self.row(int(row)).text for row in rows]

    def chunks(self, rows: Sequence[int], size: int) -> Iterator[tuple[Sequence[int], list[str]]]:
        """Yield *rows* and their texts, *size* at a time."""
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            yield part, self.texts(part)

    def close(self) -> None:
        """Close the file."""
        if self._map is not None:
            self._map.close()
        self._file.close()
