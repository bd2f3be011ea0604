"""What every table format gives the job: windows of rows, and a way to write them back.

A reader cuts its file into windows of bounded size. A window knows the texts to classify and how to
write its own rows with the answers added, so the job never sees a format.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, Protocol, get_args

import pyarrow as pa

from sentimill.errors import TableError, TextError
from sentimill.scoring.answer_columns import Added

__all__ = [
    "MAX_RECORD_BYTES",
    "ROW_BYTES",
    "WINDOW_BYTES",
    "Compression",
    "Kind",
    "KindName",
    "Position",
    "Table",
    "Window",
    "find_column",
    "kind_of",
    "stem_of",
]

WINDOW_BYTES: Final = 4 << 20
"""Input of one window. Sorting by length inside 4 MiB leaves about 1 % padding."""

ROW_BYTES: Final = 400
"""What a row costs in memory beside its bytes: its objects until its answer is written."""

MAX_RECORD_BYTES: Final = 64 << 20
"""The longest record. Past it the likely cause is a quote that is never closed."""

KindName = Literal["csv", "tsv", "jsonl", "parquet"]
Compression = Literal["", "gzip", "zstd"]

_SUFFIXES: Final[dict[str, KindName]] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_PACKED: Final[dict[str, Compression]] = {".gz": "gzip", ".zst": "zstd", ".zstd": "zstd"}


class Kind(NamedTuple):
    """A format and how its bytes are packed."""

    name: KindName
    compression: Compression


class Position(NamedTuple):
    """Where a window begins: bytes into the unpacked file, lines and rows before it."""

    offset: int = 0
    lines: int = 0
    rows: int = 0


@dataclass(frozen=True, slots=True)
class Window:
    """Rows that are held in memory together.

    texts: one a row; an error where there is no text, None where the row needs no answer. lines:
    the line of each row's first byte, from 1 (rows instead for Parquet). end: where the next window
    begins. consumed: bytes of the file as it is stored, read so far. render: the rows with their
    answers as bytes for the output. columns: the rows as an Arrow table, for another format.
    """

    texts: list[str | TextError | None]
    lines: Sequence[int]
    end: Position
    consumed: int
    render: Callable[[Added], bytes]
    columns: Callable[[], pa.Table]


class Table(Protocol):
    """One input in one format, opened and checked."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns; empty where each row has its own."""
        ...

    def head(self, added: Sequence[str]) -> bytes:
        """Return what the output begins with, given the names of the *added* columns."""
        ...

    def windows(self, start: Position) -> Iterator[Window]:
        """Yield the rows from *start* in order. May be called once."""
        ...


def kind_of(address: str, wanted: str | None = None) -> Kind:
    """Return the format that the suffixes of *address* stand for; *wanted* (csv.gz) overrules them.

    Raises TableError when neither says.
    """
    name = (f"x.{wanted}" if wanted else address).lower()
    compression: Compression = ""
    for suffix, packed in _PACKED.items():
        if name.endswith(suffix):
            name, compression = name[: -len(suffix)], packed
    for suffix, kind in _SUFFIXES.items():
        if name.endswith(suffix):
            if kind == "parquet" and compression:
                why = f"{address}: Parquet compresses inside; give the file as plain .parquet"
                raise TableError(why, reason="UNKNOWN_FORMAT")
            return Kind(kind, compression)
    known = ", ".join(get_args(KindName))
    why = (
        f"{address} is of an unknown kind: score reads and writes {known}, the first three also"
        " with .gz or .zst; name one with --format"
    )
    raise TableError(why, reason="UNKNOWN_FORMAT")


def stem_of(name: str) -> str:
    """Return *name* without the suffixes that `kind_of` reads; other dots belong to it."""
    for suffixes in (_PACKED, _SUFFIXES):
        for suffix in suffixes:
            if name.lower().endswith(suffix):
                name = name[: -len(suffix)]
                break
    return name


def find_column(name: str, columns: Sequence[str], wanted: str) -> int:
    """Return the place of the one column *wanted* of the file *name*. Raises TableError."""
    count = list(columns).count(wanted)
    if count == 1:
        return list(columns).index(wanted)
    if count:
        why = f"{name} has {count} columns named {wanted!r}: rename all but one"
        raise TableError(why, reason="DUPLICATE_COLUMN")
    found = ", ".join(columns[:20])
    why = f"{name} has no column {wanted!r}; it has {found}: name one with --text-column"
    if len(columns) == 1 and any(mark in found for mark in ";|\t"):
        why += ", or its delimiter with --delimiter"
    raise TableError(why, reason="MISSING_COLUMN")
