"""CSV and TSV as bytes: rows keep every byte that they came with, and answers are appended.

`csv` reads decoded lines and says where a record ends; what is written back are the bytes that the
lines were. So a row that is not valid text loses nothing and costs no other row.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from sentimill.errors import TableError, TextError, UsageError
from sentimill.scoring.answer_columns import Added, Columns
from sentimill.scoring.formats.compression import Stream
from sentimill.scoring.formats.csv_dialect import Dialect
from sentimill.scoring.formats.encodings import encoding_of
from sentimill.scoring.formats.table import (
    MAX_RECORD_BYTES,
    ROW_BYTES,
    WINDOW_BYTES,
    Position,
    Window,
    find_column,
)

__all__ = ["DelimitedTable"]

_ESCAPED: Final = re.compile("[\udc80-\udcff]")
"""What bytes that do not decode become, see `Encoding.decode`."""


class _Record(NamedTuple):
    """One record: its fields, what is wrong with it, its bytes, how many lines they are.

    valid: the bytes decode.
    """

    fields: list[str]
    wrong: TextError | None
    raw: bytes
    lines: int
    valid: bool


@dataclass(slots=True)
class _Pending:
    """The lines of the record that is being read, and whether all of them decode.

    ended: there are no more.
    """

    lines: list[bytes] = field(default_factory=list)
    valid: bool = True
    ended: bool = False


@dataclass(slots=True)
class _Rows:
    """Rows of one window. bodies: what comes before the answers; ends: what comes after them."""

    texts: list[str | TextError | None] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    ends: list[bytes] = field(default_factory=list)
    fields: list[list[str]] = field(default_factory=list)
    odd: dict[int, bytes] = field(default_factory=dict)
    cost: int = 0


class DelimitedTable:
    """A delimited file with a header row, opened; see `Table`.

    keep: the columns to write, none for all. update: fill answers in where the file has none.
    fields: keep every field for `Window.columns`.
    """

    def __init__(
        self,
        stream: Stream,
        *,
        name: str,
        dialect: Dialect,
        encoding: str,
        text_column: str,
        columns: Columns,
        keep: tuple[str, ...] = (),
        update: bool = False,
        window_bytes: int = WINDOW_BYTES,
        fields: bool = False,
    ) -> None:
        """Read the header. Raises TableError or UsageError for what cannot be read so."""
        self._stream = stream
        self._name = name
        self._window_bytes = window_bytes
        self._dialect = dialect
        self._encoding = encoding_of(name, encoding, stream.file.peek(4)[:4])
        self._newline = self._encoding.encode("\n")
        self._added = columns
        self.header, self.end, names, self._start = self._read_header()
        self.columns = tuple(names)
        self._place = find_column(name, names, text_column)
        self._old = _answered(name, names, columns, update)
        self._keep = [find_column(name, names, wanted) for wanted in keep]
        self._fields = fields or bool(keep)

    def head(self, added: Sequence[str]) -> bytes:
        """See `Table.head`. Raises UsageError when names or labels cannot be written so."""
        write, encode = self._dialect.write, self._encoding.encode
        try:
            encode(write(self._added.labels))
            names = encode(self._dialect.delimiter + write(added))
        except UnicodeEncodeError as error:
            why = f"the labels or names cannot be written in {self._encoding.codec}: {error}"
            raise UsageError(why, reason="UNKNOWN_ENCODING") from error
        if self._keep:
            kept = write([self.columns[k] for k in self._keep])
            return self._encoding.bom + encode(kept) + names + self.end
        if self._old:
            return self.header + self.end
        return self.header + names + self.end

    def windows(self, start: Position) -> Iterator[Window]:
        """See `Table.windows`."""
        if start == Position():
            start = self._start
        self._stream.seek(start.offset, at=self._start.offset)
        offset, number, rows = start
        found = _Rows()
        lead = b""
        for record in self._records(number):
            raw = record.raw
            first = number + 1
            number += record.lines
            offset += len(raw)
            if not record.fields:  # a blank line is no row, and stays where it is
                if found.ends:
                    found.ends[-1] += raw
                else:
                    lead += raw
                continue
            self._put(found, record, lead)
            found.lines.append(first)
            if not record.valid:
                self._check_text(found)
            lead = b""
            found.cost += len(raw) + ROW_BYTES
            if found.cost >= self._window_bytes:
                rows += len(found.texts)
                yield self._window(found, Position(offset, number, rows))
                found = _Rows()
        if found.texts or lead:
            rows += len(found.texts)
            yield self._window(found, Position(offset, number, rows), lead)

    def _window(self, rows: _Rows, end: Position, lead: bytes = b"") -> Window:
        return Window(
            texts=rows.texts,
            lines=rows.lines,
            end=end,
            consumed=self._stream.tell(end.offset),
            render=lambda added: self._render(rows, added) + lead,
            columns=lambda: self._table(rows),
        )

    def _records(self, number: int) -> Iterator[_Record]:
        pending = _Pending()
        records = self._dialect.read(self._decoded(pending, number))
        while True:
            fields: list[str] = []
            wrong = None
            try:
                fields = next(records)
            except StopIteration:
                return
            except csv.Error as error:
                wrong = TextError(f"not valid CSV: {error}", reason="RAGGED_ROW")
            lines = pending.lines
            if pending.ended:
                # More lines were asked for than there are: a quote was still open.
                why = "the row opens a quote that is never closed, so it holds the last"
                why += f" {len(lines)} lines of the file: close it and score them"
                wrong = TextError(why, reason="UNCLOSED_QUOTE")
            raw = lines[0] if len(lines) == 1 else b"".join(lines)
            if wrong is not None and not fields:
                fields = self._encoding.decode(raw)[0].split(self._dialect.delimiter)
            yield _Record(fields, wrong, raw, len(lines), pending.valid)
            pending.valid = True
            lines.clear()

    def _decoded(self, pending: _Pending, number: int) -> Iterator[str]:
        size = 0
        decode = self._encoding.decode
        for line in self._encoding.lines(self._stream.file):
            number += 1
            size = size + len(line) if pending.lines else len(line)
            if size > MAX_RECORD_BYTES:
                raise TableError(
                    f"{self._name} has a record of more than {MAX_RECORD_BYTES >> 20} MiB that ends"
                    f" at line {number}: look for a quote that is never closed, or say"
                    " --quote none",
                    reason="RECORD_TOO_LARGE",
                )
            pending.lines.append(line)
            text, valid = decode(line)
            if not valid:
                pending.valid = False
            yield text
        pending.ended = True

    def _put(self, rows: _Rows, record: _Record, lead: bytes) -> None:
        """Add one record to *rows*."""
        fields, wrong, raw, _, _ = record
        body, end = self._cut_end(raw)
        text: str | TextError | None
        if wrong is None and len(fields) == len(self.columns):
            text = fields[self._place]
            if self._old:
                if fields[-self._old]:
                    text = None
                else:
                    body = self._without_answers(fields, body)
        else:
            rows.odd[len(rows.texts)] = body
            if self._old and len(fields) > len(self.columns):
                body = self._without_answers(fields, body)
                fields = fields[: -self._old]
            text, fields, body = self._odd(fields, wrong, body)
        if self._fields:
            rows.fields.append(fields)
        if self._keep:
            kept = [fields[k] for k in self._keep]
            kept += fields[-self._old :] if text is None else []
            body = self._dialect.write(kept).encode(self._encoding.codec, "surrogateescape")
        rows.texts.append(text)
        rows.bodies.append(lead + body if lead else body)
        rows.ends.append(end or self.end)

    def _check_text(self, rows: _Rows) -> None:
        """Judge the last row, some of whose bytes are bad; it matters only in the text itself."""
        place = len(rows.texts) - 1
        rows.odd.setdefault(place, rows.bodies[place])
        text = rows.texts[place]
        if isinstance(text, str) and (self._encoding.unit > 1 or _ESCAPED.search(text)):
            why = (
                f"the text is not valid {self._encoding.codec}: convert it, or name its --encoding"
            )
            rows.texts[place] = TextError(why, reason="UNDECODABLE_ROW")

    def _odd(
        self, fields: list[str], wrong: TextError | None, body: bytes
    ) -> tuple[TextError, list[str], bytes]:
        """Return the error of a row that is not as the header says, its fields, and its bytes."""
        width = len(self.columns) - self._old
        if wrong is None:
            why = f"the row has {len(fields)} fields and the header {width}"
            wrong = TextError(why, reason="RAGGED_ROW")
        elif wrong.reason == "UNCLOSED_QUOTE":
            body += self._encoding.encode(self._dialect.quote or "")
        body += self._encoding.encode(self._dialect.delimiter) * (width - len(fields))
        padded = fields + [""] * (len(self.columns) - len(fields))
        return wrong, padded[: len(self.columns)], body

    def _without_answers(self, fields: list[str], body: bytes) -> bytes:
        """Return *body* without its last fields, the old answers; its other bytes stay."""
        delimiter = self._encoding.encode(self._dialect.delimiter)
        count = self._old
        cut = body.rsplit(delimiter, count)
        decoded = [self._encoding.decode(part)[0] for part in cut[1:]]
        if decoded == fields[-count:]:
            return cut[0]
        rest = self._dialect.write(fields[:-count])
        return rest.encode(self._encoding.codec, "surrogateescape")

    def _render(self, rows: _Rows, added: Added) -> bytes:
        suffixes = self._suffixes(added)
        for place, text in enumerate(rows.texts):
            if text is None:
                suffixes[place] = b""
        return b"".join(chain.from_iterable(zip(rows.bodies, suffixes, rows.ends, strict=True)))

    def _suffixes(self, added: Added) -> list[bytes]:
        """Return the added fields of each row, with a leading delimiter, as bytes."""
        label, *others = added.strings()
        quoted = pa.array([self._dialect.write([name]) for name in self._added.labels], pa.string())
        places = pc.index_in(label, pa.array(self._added.labels, pa.string()))
        columns = [pa.scalar(""), quoted.take(places), *others]
        joined = pc.binary_join_element_wise(
            *columns, self._dialect.delimiter, null_handling="replace", null_replacement=""
        )
        if self._encoding.codec == "utf-8":
            plain: list[bytes] = joined.cast(pa.binary()).to_pylist()
            return plain
        return [self._encoding.encode(text) for text in joined.to_pylist()]

    def _table(self, rows: _Rows) -> pa.Table:
        """Return the rows as columns of text, and the bytes of those that do not fit in them."""
        places = self._keep or range(len(self.columns))
        arrays = {
            self.columns[k]: pa.array(
                [
                    row[k].encode("utf-8", "replace").decode() if i in rows.odd else row[k]
                    for i, row in enumerate(rows.fields)
                ],
                pa.string(),
            )
            for k in places
        }
        source = pa.array([rows.odd.get(i) for i in range(len(rows.fields))], pa.binary())
        return pa.table({**arrays, f"{self._added.prefix}source": source})

    def _cut_end(self, raw: bytes) -> tuple[bytes, bytes]:
        """Part a record from its line end; a file that was converted twice ends them CR CR LF."""
        if self._encoding.unit == 1:
            body = raw.rstrip(b"\r\n")
        else:
            body = self._encoding.encode(self._encoding.decode(raw)[0].rstrip("\r\n"))
            if not raw.startswith(body):  # not valid, so it does not come out as it went in
                body = raw.removesuffix(self._newline)
        return body, raw[len(body) :]

    def _read_header(self) -> tuple[bytes, bytes, list[str], Position]:
        for fields, wrong, raw, lines, _ in self._records(0):
            body, end = self._cut_end(raw)
            text, valid = self._encoding.decode(body)
            if not valid:
                why = f"{self._name} has a header that is not {self._encoding.codec}"
                raise TableError(f"{why}: name its --encoding", reason="NOT_UTF8")
            if wrong is not None and "\r" in text:
                why = f"{self._name} ends its lines with CR alone: convert them to LF"
                raise TableError(why, reason="CR_LINE_ENDS")
            if wrong is not None:
                raise TableError(f"{self._name} has a bad header: {wrong}", reason="BAD_HEADER")
            if self._encoding.bom and text.startswith("\ufeff"):
                # A quoted first name is quoted only once the mark is gone.
                fields = next(self._dialect.read(iter([text[1:]])), [])
            return body, end or self._newline, fields, Position(len(raw), lines, 0)
        why = f"{self._name} is empty: it needs a header row"
        raise TableError(why, reason="EMPTY_FILE")


def _answered(name: str, names: Sequence[str], columns: Columns, update: bool) -> int:
    """Return how many columns of answers the file already has; they must be its last."""
    taken = [added for added in columns.names if added in names]
    if not taken:
        return 0
    if not update:
        why = f"{name} already has a column {taken[0]!r}: choose another --prefix"
        why += ", or fill its gaps with --where-missing"
        raise TableError(why, reason="COLUMN_COLLISION")
    count = len(columns.names)
    if tuple(names[-count:]) != columns.names:
        why = (
            f"{name} has {', '.join(taken)}: --where-missing needs {', '.join(columns.names)} as"
            " the last columns, in this order"
        )
        raise TableError(why, reason="COLUMN_COLLISION")
    return count
