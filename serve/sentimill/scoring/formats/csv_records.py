"""The records of a delimited file, each with its bytes, its line numbers and its error.

The `csv` module reads the decoded lines and decides where a record ends. Commands that only need
rows use `open_rows`; `score` uses `RecordReader`, because it writes the same bytes back.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Final, NamedTuple

from sentimill.errors import TableError, TextError
from sentimill.scoring.formats.compression import Stream, reading
from sentimill.scoring.formats.csv_dialect import (
    MAX_LINE_BYTES,
    Dialect,
    choose_delimiter,
    declared_delimiter,
)
from sentimill.scoring.formats.encodings import encoding_of
from sentimill.scoring.formats.kinds import kind_of
from sentimill.scoring.formats.table import Layout, Position

MAX_RECORD_BYTES: Final = 8 << 20
"""The longest record that spans lines: `csv` holds it at four to eight bytes per character."""

MAX_RECORD_LINES: Final = 100_000
"""The most lines of a record. Beyond either limit, a quote was most likely never closed."""

LONG_LINE_BYTES: Final = 4 << 20
"""A longer line is split as bytes, because `csv` would hold it in memory several times."""

_CUT_BYTES: Final = 2 << 20
"""Of a field in such a line this much is kept: more than the largest text that is classified."""

_DELIMITERS: Final = {"csv": ",", "tsv": "\t"}
_SAMPLE_BYTES: Final = 4096
_NO_NAMES: Final = ' \t\r\n\v\f,;|"'
"""A line of only these is not a header: spreadsheets write blank rows as delimiters."""


class Record(NamedTuple):
    """One record: its fields (none for a blank line), its error, its bytes, and its place.

    line: its first line, from 1. lines: how many it spans. valid: its bytes are in the encoding.
    """

    fields: list[str]
    error: TextError | None
    raw: bytes
    line: int
    lines: int
    valid: bool


@dataclass(slots=True)
class _Pending:
    """The lines of the record that is being read.

    size: their bytes. long: a single line, too long for `csv`. ended: the file has no more lines.
    """

    lines: list[bytes] = field(default_factory=list)
    size: int = 0
    valid: bool = True
    long: bool = False
    ended: bool = False


class RecordReader:
    """An opened delimited file with a header row.

    preamble: the bytes before the header: lines without a name, and a line such as `sep=;`. header:
    the bytes of the header without its line end. end: that line end. start: where the rows begin.
    """

    def __init__(
        self,
        stream: Stream,
        layout: Layout,
        *,
        wanted: Sequence[str] = (),
        whole_fields: bool = True,
    ) -> None:
        """Read the header. *wanted*: columns that the chosen delimiter should yield.

        whole_fields: keep all of a field of more than 2 MiB. Raises TableError or UsageError if
        *layout* does not fit the file.
        """
        self._stream = stream
        self._name = name = stream.name
        self._whole_fields = whole_fields
        first = stream.file.peek(_SAMPLE_BYTES)[:_SAMPLE_BYTES]
        self.encoding = encoding_of(name, layout.encoding, first)
        self._newline = self.encoding.encode("\n")
        self.preamble = b""
        self.columns: tuple[str, ...] = ()
        self.dialect = Dialect(layout.delimiter or "", layout.quote, layout.escape)
        self._read_header(layout, _DELIMITERS[stream.kind.name], wanted)

    def seek(self, start: Position) -> None:
        """Go from the first record to *start*."""
        self._stream.seek(start.offset, at=self.start.offset)

    def rest(self) -> Iterator[Record]:
        """Yield all records after the header."""
        return self.records(self.encoding.lines(self._stream.file), self.start.lines)

    def cut_end(self, raw: bytes) -> tuple[bytes, bytes]:
        """Split a record from its line end; in a file that was converted twice it is CR CR LF."""
        if self.encoding.unit == 1:
            body = raw.rstrip(b"\r\n")
        else:
            body = self.encoding.encode(self.encoding.decode(raw)[0].rstrip("\r\n"))
            if not raw.startswith(body):  # invalid bytes do not survive decoding and encoding
                body = raw.removesuffix(self._newline)
        return body, raw[len(body) :]

    def _read_header(self, layout: Layout, default: str, wanted: Sequence[str]) -> None:
        lines = self.encoding.lines(self._stream.file)
        declared = None
        number = -1
        for raw in lines:
            number += 1
            text = self.encoding.decode(raw)[0].removeprefix("\ufeff")
            declared = declared_delimiter(text) or declared
            if text.strip(_NO_NAMES) and declared_delimiter(text) is None:
                break
            self.preamble += raw
        else:
            why = f"{self._name} is empty: it needs a header row"
            raise TableError(why, reason="EMPTY_FILE")
        delimiter = layout.delimiter or declared
        delimiter = delimiter or choose_delimiter(text, default, layout.quote, wanted)
        self.dialect = Dialect(delimiter, layout.quote, layout.escape)
        record = next(self.records(chain([raw], lines), number))
        self.header, end = self.cut_end(record.raw)
        self.end = end or self._newline
        text, valid = self.encoding.decode(self.header)
        if not valid:
            why = f"{self._name} has a header that is not {self.encoding.codec}: add --encoding"
            why += " cp1252 for a file from Windows, or the name of its encoding"
            raise TableError(why, reason="NOT_UTF8")
        if record.error is not None and "\r" in text:
            why = f"{self._name} ends its lines with CR alone: convert them to LF"
            raise TableError(why, reason="CR_LINE_ENDS")
        if record.error is not None:
            why = f"{self._name} has a bad header: {record.error}"
            raise TableError(why, reason="BAD_HEADER")
        self.columns = tuple(record.fields)
        offset = len(self.preamble) + len(record.raw)
        self.start = Position(offset, number + record.lines, 0)

    def records(self, lines: Iterable[bytes], number: int) -> Iterator[Record]:
        """Yield the records of *lines*, which follow line *number*; blank lines are records too."""
        pending = _Pending()
        reader = self.dialect.read(self._decoded(pending, lines, number))
        while True:
            fields: list[str] = []
            error = None
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as broken:
                error = self._explain(broken, pending, number + 1)
                fields = self._read_loosely(pending.lines)
            if pending.long:
                fields, error = self._split_long(pending.lines[0], number + 1)
            raw = pending.lines[0] if len(pending.lines) == 1 else b"".join(pending.lines)
            if error is None and not pending.long and self._opens_inside(fields, raw):
                what = "opens a quote inside a field"
                error = self._bad_quotes(what, number + 1, pending.lines)
            if error is None and fields and self._is_header(fields):
                why = "the row repeats the header, as in files that were joined: delete the row"
                error = TextError(why, reason="REPEATED_HEADER")
            yield Record(fields, error, raw, number + 1, len(pending.lines), pending.valid)
            number += len(pending.lines)
            pending.lines.clear()
            pending.size, pending.valid, pending.long = 0, True, False

    def _decoded(self, pending: _Pending, lines: Iterable[bytes], number: int) -> Iterator[str]:
        decode = self.encoding.decode
        for raw in lines:
            begins = not pending.lines
            pending.lines.append(raw)
            pending.size += len(raw)
            if begins and len(raw) > LONG_LINE_BYTES and self._splits_bytes():
                pending.long = True
            self._check_size(pending, number)
            if pending.long:
                pending.valid = decode(raw)[1]
                yield "\n"  # `csv` takes it for a blank record; `_split_long` reads the line
            else:
                text, valid = decode(raw)
                pending.valid = pending.valid and valid
                yield text.removeprefix("\ufeff") if number == 0 and self.encoding.bom else text
            number += 1
        pending.ended = True

    def _splits_bytes(self) -> bool:
        return self.encoding.searchable and self.dialect.escape is None

    def _check_size(self, pending: _Pending, number: int) -> None:
        most = MAX_LINE_BYTES if pending.long else MAX_RECORD_BYTES
        if pending.size > most or len(pending.lines) > MAX_RECORD_LINES:
            self._refuse_size(number + 2 - len(pending.lines), most)

    def _refuse_size(self, line: int, most: int) -> None:
        raise TableError(
            f"{self._name} has a record that begins on line {line} and has more than"
            f" {most >> 20} MiB or {MAX_RECORD_LINES:,} lines: close the quote that is open there,"
            " or add --quote none if quotes are ordinary characters",
            reason="RECORD_TOO_LARGE",
        )

    def _explain(self, broken: csv.Error, pending: _Pending, line: int) -> TextError:
        if pending.ended:
            why = "the row opens a quote that is never closed, so it holds the rest of the file"
            why += f" (lines: {len(pending.lines):,}): close it, or add --quote none if quotes are"
            why += " ordinary characters"
            return TextError(why, reason="UNCLOSED_QUOTE")
        if "new-line character" in str(broken):
            why = "the row has a line end (CR) inside a field: put quotes around the field"
            return TextError(why, reason="RAGGED_ROW")
        return self._bad_quotes("has characters after a closing quote", line, pending.lines)

    def _bad_quotes(self, what: str, line: int, lines: list[bytes]) -> TextError:
        where = f"line {line}" if len(lines) == 1 else f"lines {line} to {line + len(lines) - 1}"
        mark = self.dialect.quote or ""
        blank = self.encoding.encode(f"{self.dialect.delimiter} {mark}")
        before, found, _ = b"".join(lines).partition(blank)
        # Inside of quotes, as in `"so, "he" said"`, the blank is text.
        if found and before.count(self.encoding.encode(mark)) % 2 == 0:
            why = f"the row on {where} has a blank between a delimiter and a quote, so the quote"
            why += " opens no field: write the file again without such blanks, as pandas does after"
            why += " read_csv(..., skipinitialspace=True)"
            return TextError(why, reason="BAD_QUOTES")
        why = f"the row on {where} {what}: correct its quotes, or add --quote none if quotes are"
        why += " ordinary characters, or --escape '\\' if a backslash escapes them"
        return TextError(why, reason="BAD_QUOTES")

    def _opens_inside(self, fields: list[str], raw: bytes) -> bool:
        quote = self.dialect.quote
        # An unquoted field is its own value, quotes included, and one with a pair opens none.
        if quote is None or not any(value.count(quote) % 2 for value in fields):
            return False
        return self.dialect.opens_inside(self.encoding.decode(raw)[0])

    def _is_header(self, fields: list[str]) -> bool:
        """Say whether a record is the header again; an appended file may have a byte-order mark."""
        if fields[0].startswith("\ufeff"):
            fields = [fields[0][1:].strip(self.dialect.quote or ""), *fields[1:]]
        return tuple(fields) == self.columns

    def _read_loosely(self, lines: list[bytes]) -> list[str]:
        """Return the fields that a tolerant reader finds in a record that breaks the rules."""
        texts = [self.encoding.decode(raw)[0] for raw in lines]
        try:
            return next(self.dialect.read(iter(texts), strict=False), [])
        except csv.Error:
            return "".join(texts).rstrip("\r\n").split(self.dialect.delimiter)

    def _split_long(self, raw: bytes, line: int) -> tuple[list[str], TextError | None]:
        """Return the fields of a record in one very long line, without copying the line."""
        delimiter = self.encoding.encode(self.dialect.delimiter)
        quote = self.encoding.encode(self.dialect.quote or "")
        stop = len(self.cut_end(raw)[0])
        fields: list[str] = []
        at = 0
        while at <= stop:
            if quote and raw.startswith(quote, at):
                end = raw.find(quote, at + 1)
                while end >= 0 and raw.startswith(quote, end + 1):
                    end = raw.find(quote, end + 2)
                if end < 0:
                    self._refuse_size(line, MAX_RECORD_BYTES)
                value = self._field(raw, at + 1, end).replace(quote.decode() * 2, quote.decode())
                at = end + 1
                if at < stop and not raw.startswith(delimiter, at):
                    error = self._bad_quotes("has characters after a closing quote", line, [raw])
                    return [*fields, value], error
            else:
                end = raw.find(delimiter, at, stop)
                value = self._field(raw, at, stop if end < 0 else end)
                at = stop if end < 0 else end
            fields.append(value)
            at += 1
        return fields, None

    def _field(self, raw: bytes, begin: int, end: int) -> str:
        if self._whole_fields or end - begin <= _CUT_BYTES:
            return self.encoding.decode(raw[begin:end])[0]
        # The cut may split a character, and its first bytes must not look like an invalid byte.
        return self.encoding.decode(raw[begin : begin + _CUT_BYTES])[0][:-4]


def ragged(fields: int, width: int, delimiter: str) -> TextError:
    """Return the error of a row with more or fewer *fields* than the header has."""
    why = f"the row has {fields} fields and the header {width}: "
    more = f"put quotes around a text that contains {delimiter!r}"
    remedy = more if fields > width else "give each column a field, if only an empty one"
    return TextError(why + remedy, reason="RAGGED_ROW")


@dataclass(frozen=True, slots=True)
class Row:
    """One row. number: from 1, the header not counted. line: its first line in the file, from 1.

    error: what is wrong with it; its fields are then what a tolerant reader finds.
    """

    number: int
    line: int
    fields: list[str]
    error: TextError | None


@dataclass(frozen=True, slots=True)
class DelimitedRows:
    """The rows of an opened file; iterate once."""

    columns: tuple[str, ...]
    _reader: RecordReader

    def __iter__(self) -> Iterator[Row]:
        width = len(self.columns)
        number = 0
        for record in self._reader.rest():
            if not record.fields:
                continue
            number += 1
            error = record.error
            if error is None and len(record.fields) != width:
                error = ragged(len(record.fields), width, self._reader.dialect.delimiter)
            if error is None and not record.valid:
                why = f"the row is not valid {self._reader.encoding.codec}: save the file as UTF-8,"
                error = TextError(f"{why} or name its --encoding", reason="UNDECODABLE_ROW")
            yield Row(number, record.line, record.fields, error)


@contextmanager
def open_rows(
    path: Path | str,
    *,
    delimiter: str | None = None,
    quote: str | None = '"',
    escape: str | None = None,
    encoding: str = "utf-8",
    wanted: Sequence[str] = (),
) -> Iterator[DelimitedRows]:
    """Open a CSV or TSV file, also compressed, exactly as `sentimill score` reads it.

    with open_rows("reviews.csv") as rows:
        for row in rows:                       # blank lines are skipped
            print(row.line, dict(zip(rows.columns, row.fields)), row.error)

    delimiter: None lets the header line decide. wanted: columns that the chosen delimiter should
    yield. Raises TableError for a file that is not a table, UsageError for a wrong option. A single
    bad row only gets a `Row.error`.
    """
    name = str(path)
    with reading(name), Path(path).open("rb") as raw:
        layout = Layout(delimiter=delimiter, quote=quote, escape=escape, encoding=encoding)
        kind = kind_of(name)
        if kind.name not in _DELIMITERS:
            raise TableError(f"{name} is not a CSV or TSV file", reason="UNKNOWN_FORMAT")
        reader = RecordReader(Stream(raw, name, kind), layout, wanted=wanted)
        yield DelimitedRows(reader.columns, reader)
