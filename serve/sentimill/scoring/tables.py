"""CSV as bytes: rows keep every byte that they came with, and answers are appended to them.

A file is cut into records without decoding it, so a row that is not valid text loses nothing and
costs no other row. Only the text column is ever decoded.
"""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from sentimill.errors import TableError, TextError

__all__ = ["CsvReader", "Row", "csv_fields"]

MAX_RECORD_BYTES: Final = 64 << 20
"""The longest record. Past it the likely cause is a quote that is never closed."""

# The module's own limit is 128 KiB a field, and it raises where we answer with a row's error.
csv.field_size_limit(MAX_RECORD_BYTES)


@dataclass(frozen=True, slots=True)
class Row:
    """One record of the file.

    raw: its bytes without the line end. text: the text column, or why there is none. missing: how
    many fields it has fewer than the header.
    """

    raw: bytes
    end: bytes
    text: str | TextError
    missing: int = 0


class CsvReader:
    """Reads a header and rows from a binary file with a header row."""

    def __init__(self, file: BinaryIO, *, name: str, delimiter: str, text_column: str) -> None:
        """Read the header.

        Raises:
            TableError: an empty file, an encoding other than UTF-8, a missing or ambiguous text
                column, line ends of CR alone; here or while iterating, a quote that is never
                closed or a record of more than `MAX_RECORD_BYTES`.
        """
        self._name = name
        self._delimiter = delimiter.encode()
        self._records = self._split(file)
        first = next(self._records, None)
        if first is None:
            raise self._error("is empty: it needs a header row", "EMPTY_FILE")
        self.header, self.end = first
        self.columns = self._decode_header()
        self._place = self._find(text_column)

    def __iter__(self) -> Iterator[Row]:
        """Yield the rows in order; a blank line is a row of one empty field."""
        for raw, end in self._records:
            yield self._row(raw, end)

    def _row(self, raw: bytes, end: bytes) -> Row:
        try:
            fields = self._fields(raw.decode("utf-8"))
        except UnicodeDecodeError as error:
            why = f"not valid UTF-8 at byte {error.start} of the row: write the file as UTF-8"
            return Row(raw, end, TextError(why, reason="UNDECODABLE_ROW"))
        except csv.Error as error:
            return Row(raw, end, TextError(f"not valid CSV: {error}", reason="RAGGED_ROW"))
        if len(fields) != len(self.columns):
            why = f"the row has {len(fields)} fields and the header {len(self.columns)}"
            missing = max(0, len(self.columns) - len(fields))
            return Row(raw, end, TextError(why, reason="RAGGED_ROW"), missing)
        return Row(raw, end, fields[self._place])

    def _fields(self, text: str) -> list[str]:
        # `csv` reads an empty line as no field; with answers appended it is one empty field.
        return next(csv.reader([text], delimiter=self._delimiter.decode())) or [""]

    def _decode_header(self) -> list[str]:
        if self.header.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise self._error("is UTF-16: write it as UTF-8", "NOT_UTF8")
        try:
            text = self.header.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            why = f"has a header that is not UTF-8 (byte {error.start}): write it as UTF-8"
            raise self._error(why, "NOT_UTF8") from error
        try:
            return self._fields(text)
        except csv.Error as error:
            # The one thing that `csv` refuses here: a CR outside quotes that ends no line.
            why = "ends its lines with CR alone: convert them to LF"
            raise self._error(why, "CR_LINE_ENDS") from error

    def _find(self, text_column: str) -> int:
        count = self.columns.count(text_column)
        if count == 1:
            return self.columns.index(text_column)
        if count:
            why = f"has {count} columns named {text_column!r}: rename all but one"
            raise self._error(why, "DUPLICATE_COLUMN")
        found = ", ".join(self.columns[:20])
        why = f"has no column {text_column!r}; it has {found}: name one with --text-column"
        raise self._error(why, "MISSING_COLUMN")

    def _split(self, file: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
        """Yield (record, line end) pairs; a line end inside quotes is part of the record."""
        number = began = 1
        parts: list[bytes] = []
        size = 0
        quoted = False
        while line := file.readline(MAX_RECORD_BYTES + 1):
            size += len(line)
            if size > MAX_RECORD_BYTES:
                why = (
                    f"has a record of more than {MAX_RECORD_BYTES >> 20} MiB from line {began} on:"
                    " look for a quote that is never closed"
                )
                raise self._error(why, "RECORD_TOO_LARGE")
            parts.append(line)
            quoted = _open_quote(line, self._delimiter, quoted, first=number == 1)
            number += 1
            if not quoted:
                yield _cut_end(b"".join(parts))
                parts, size, began = [], 0, number
        if parts:
            # An answer appended to this record would be inside its quotes.
            why = f"has a quote in the record from line {began} on that is never closed: close it"
            raise self._error(why, "UNCLOSED_QUOTE")

    def _error(self, why: str, reason: str) -> TableError:
        return TableError(f"{self._name} {why}", reason=reason)


def _cut_end(record: bytes) -> tuple[bytes, bytes]:
    # A file that was converted twice ends its lines with CR CR LF.
    raw = record.rstrip(b"\r\n")
    return raw, record[len(raw) :]


def _open_quote(line: bytes, delimiter: bytes, quoted: bool, *, first: bool) -> bool:
    """Say whether a quoted field is open at the end of *line*, as RFC 4180 and `csv` read it.

    A quote opens a field only as its first character; inside, a doubled quote is a character.
    """
    if b'"' not in line:
        return quoted
    at = 0
    if not quoted:
        at = 3 if first and line.startswith(codecs.BOM_UTF8) else 0
        if line[at : at + 1] == b'"':
            quoted = True
            at += 1
    while True:
        if quoted:
            at = line.find(b'"', at)
            if at < 0:
                return True
            if line[at + 1 : at + 2] == b'"':
                at += 2
                continue
            quoted = False
        at = line.find(delimiter + b'"', at)
        if at < 0:
            return False
        at += len(delimiter) + 1
        quoted = True


def csv_fields(values: Sequence[str], delimiter: str) -> bytes:
    """Return *values* as CSV fields with a leading delimiter each, quoted where they need it."""
    out = io.StringIO()
    # The line end decides which characters the writer quotes, so it gets one and loses it again.
    csv.writer(out, delimiter=delimiter).writerow(["", *values])
    return out.getvalue().removesuffix("\r\n").encode("utf-8")


def delimiter_of(path: Path) -> str:
    """Return the delimiter that the suffix of *path* stands for. Raises TableError otherwise."""
    known = {".csv": ",", ".tsv": "\t"}
    if path.suffix.lower() in known:
        return known[path.suffix.lower()]
    why = f"{path} is of an unknown kind {path.suffix!r}: score reads {' and '.join(known)} files"
    raise TableError(why, reason="UNKNOWN_FORMAT")


def windows(rows: Iterable[Row], max_bytes: int) -> Iterator[list[Row]]:
    """Yield *rows* in lists of about *max_bytes*; one row larger than that is a list of its own."""
    window: list[Row] = []
    size = 0
    for row in rows:
        if window and size + len(row.raw) > max_bytes:
            yield window
            window, size = [], 0
        window.append(row)
        # An object costs memory too: a million empty rows are not nothing.
        size += len(row.raw) + 200
    if window:
        yield window
