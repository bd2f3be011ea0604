"""The interface between the job and the file formats: a table read in windows of rows.

A reader cuts its file into windows of bounded size. A window holds the texts to classify and can
write its own rows with the answers added, so the job does not depend on any format.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

import pyarrow as pa

from sentimill.errors import TableError, TextError

WINDOW_BYTES: Final = 4 << 20
"""Bytes of input in one window. Sorting by length inside 4 MiB leaves about 1 % padding."""

ROW_BYTES: Final = 400
"""Memory that a row needs, in addition to its bytes, until its answer is written."""

_NAMES_IN_FILE: Final = re.compile(r"^hub:|\.(parquet|pq|jsonl?|ndjson)\b", re.IGNORECASE)
"""Sources whose column names are not in a first line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How a table is read, and which of its columns are written.

    text_columns: the columns to classify; several are joined in this order. delimiter: None means
    that the header line decides. quote: None means that no character quotes. escape: None means
    that no character escapes a quote. sheet: the sheet of a workbook; None takes the one that has
    rows. keep: the columns to write; empty means all. update: classify only the rows that have no
    answer yet.
    """

    text_columns: tuple[str, ...] = ("text",)
    delimiter: str | None = None
    quote: str | None = '"'
    escape: str | None = None
    encoding: str = "utf-8"
    sheet: str | None = None
    keep: tuple[str, ...] = ()
    update: bool = False
    window_bytes: int = WINDOW_BYTES


class Position(NamedTuple):
    """Where a window begins: uncompressed bytes, lines and rows before it.

    ended: the end of a JSON array was read; the bytes that follow do not show this.
    """

    offset: int = 0
    lines: int = 0
    rows: int = 0
    ended: bool = False


@dataclass(frozen=True, slots=True)
class Window:
    """Rows that are held in memory together.

    texts: one per row; an error where there is no text, None where the row needs no answer. lines:
    the line on which each row begins, from 1 (for Parquet the row). end: where the next window
    begins. consumed: bytes of the stored file that were read so far. render: returns the rows with
    their answers as bytes of the output. columns: returns the rows as an Arrow table, if the format
    can be converted to another one.
    """

    texts: list[str | TextError | None]
    lines: Sequence[int]
    end: Position
    consumed: int
    render: Callable[[pa.RecordBatch], bytes]
    columns: Callable[[], pa.Table] | None = None


@dataclass(slots=True)
class Rows:
    """Rows of a text format that become one window.

    bodies, ends: the bytes of each row before and after its answer. tail: bytes after the last row
    that are not a row, such as blank lines. size, line_count: bytes and lines of the input. fields,
    odd: the fields of each row, and the bytes of malformed rows, for an output of another format.
    """

    texts: list[str | TextError | None] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    ends: list[bytes] = field(default_factory=list)
    fields: list[list[str]] = field(default_factory=list)
    odd: dict[int, bytes] = field(default_factory=dict)
    tail: list[bytes] = field(default_factory=list)
    cost: int = 0
    size: int = 0
    line_count: int = 0

    def count(self, size: int, lines: int) -> None:
        """Count bytes and lines of the input."""
        self.size += size
        self.line_count += lines
        self.cost += size + ROW_BYTES

    def add(self, text: str | TextError | None, line: int, body: bytes, end: bytes) -> None:
        """Add a row, with the tail so far before it."""
        self.texts.append(text)
        self.lines.append(line)
        self.bodies.append(b"".join([*self.tail, body]) if self.tail else body)
        self.ends.append(end)
        self.tail.clear()

    def end(self, start: Position, *, ended: bool = False) -> Position:
        """Return where the next window begins, after one that began at *start*."""
        rows = start.rows + len(self.texts)
        return Position(start.offset + self.size, start.lines + self.line_count, rows, ended)


class Table(Protocol):
    """One opened and checked input, of any format."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns; empty where every row has its own."""
        ...

    def head(self, added: Sequence[str]) -> bytes:
        """Return the bytes with which the output begins; *added* names the added columns."""
        ...

    def windows(self, start: Position) -> Iterator[Window]:
        """Yield the rows from *start* in order. May be called once."""
        ...


def find_column(
    name: str, columns: Sequence[str], wanted: str, option: str = "--text-column"
) -> int:
    """Return the index of the one column *wanted* of the file *name*. Raises TableError.

    option: the option to name in the error.
    """
    count = list(columns).count(wanted)
    if count == 1:
        return list(columns).index(wanted)
    if count:
        why = f"{name} has {count} columns named {wanted!r}: rename all but one"
        raise TableError(why, reason="DUPLICATE_COLUMN")
    more = f" and {len(columns) - 20} more" if len(columns) > 20 else ""
    shown = [repr(one) if one != one.strip() else one for one in columns[:20]]
    found = ", ".join(one[:100] for one in shown) + more or "no columns"
    near = [one for one in columns if one.strip().casefold() == wanted.strip().casefold()]
    if len(near) == 1:
        why = f"{name} has no column {wanted!r}, but {near[0]!r}: write it so in {option}, as"
        raise TableError(f"{why} {shlex.quote(near[0])}", reason="MISSING_COLUMN")
    outer = next((one for one in columns if wanted.startswith(f"{one}.")), None)
    if outer is not None:
        why = f"{name} has no column {wanted!r}, and a field inside of {outer!r} cannot be named:"
        why += f" make it a column of its own, or name one of {found} with {option}"
        raise TableError(why, reason="MISSING_COLUMN")
    why = f"{name} has no column {wanted!r}; it has {found}: name one with {option}"
    around = columns[0].split(wanted, 1) if len(columns) == 1 else [""]
    mark = (around[0][-1:] or around[1][:1]) if len(around) == 2 else ""
    if mark.strip() and not mark.isalnum():
        why += f", or its delimiter with --delimiter {mark!r}"
    elif not _NAMES_IN_FILE.search(name):
        why += "; if this is the first row, not a header, add a line above it with column names"
        why += f", {wanted!r} among them; if it is a title, delete the lines above the header"
    raise TableError(why, reason="MISSING_COLUMN")


def count_answers(
    name: str, names: Sequence[str], added: Sequence[str], update: bool, *, last: bool = True
) -> int:
    """Return how many columns of answers the file *name* already has: none, or all of *added*.

    last: they have to be its last columns, in this order. Raises TableError if *update* is false
    and there are any, and if they are incomplete or in another place.
    """
    taken = [one for one in added if one in names]
    if not taken:
        return 0
    if not update:
        why = f"{name} already has a column {taken[0]!r}: choose another --prefix"
        why += ", or fill its gaps with --where-missing"
        raise TableError(why, reason="COLUMN_COLLISION")
    for one in taken:
        find_column(name, names, one)
    if len(taken) < len(added) or (last and list(names[-len(added) :]) != list(added)):
        why = f"{name} has {', '.join(taken)}, and --where-missing needs {', '.join(added)}"
        why += " as the last columns, in this order" if last else ""
        raise TableError(f"{why}: choose another --prefix", reason="COLUMN_COLLISION")
    return len(added)


def has_answer(label: object) -> bool:
    """Say whether a row is answered: its label is neither null nor blank, in every format."""
    text = label.decode("utf-8", "replace") if isinstance(label, bytes) else str(label)
    return label is not None and bool(text.strip())
