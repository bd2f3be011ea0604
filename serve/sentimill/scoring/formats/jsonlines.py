"""JSON Lines and JSON arrays: a row keeps its bytes, and the answers become its last keys.

Only the text is decoded. A row that is not a JSON object cannot get keys, so the output has an
object that holds the row under `<prefix>source` (`<prefix>source_base64` if the row is not UTF-8).
"""

from __future__ import annotations

import base64
import codecs
import json
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from sentimill.errors import TableError, TextError
from sentimill.scoring.answer_columns import AnswerSchema
from sentimill.scoring.formats.compression import Stream
from sentimill.scoring.formats.json_array import MAX_ROW_BYTES, elements
from sentimill.scoring.formats.table import (
    Layout,
    Position,
    Rows,
    Window,
    has_answer,
)
from sentimill.text.cleaning import join_texts

_BLANKS: Final = b" \t\r\n"
_SAMPLE_BYTES: Final = 4096
_ESCAPED: Final = re.compile("[\udc80-\udcff]")
_Value = msgspec.Raw | msgspec.UnsetType
_RawRow = dict[str, msgspec.Raw]
_RAW: Final = msgspec.json.Decoder(_RawRow)


class _Piece(NamedTuple):
    """A row and the bytes around it; the last piece may have no row.

    end: what follows the row in the output. line: its first line, from 1. size, lines: bytes and
    line ends of the input.
    """

    before: bytes
    row: bytes
    end: bytes
    line: int
    size: int
    lines: int


class JsonTable:
    """An opened file of JSON objects: one per line, or the elements of one array.

    The rows may have different keys.
    """

    columns: tuple[str, ...] = ()

    def __init__(self, stream: Stream, layout: Layout, columns: AnswerSchema) -> None:
        """Look at the first bytes. Raises TableError for an empty file or another encoding."""
        self._stream = stream
        self._array = stream.kind.name == "json"
        self._name = name = stream.name
        self._window_bytes = layout.window_bytes
        self._added = columns
        self._text_keys = layout.text_columns
        self._keep = layout.keep
        self._update = layout.update
        first = stream.file.peek(_SAMPLE_BYTES)[:_SAMPLE_BYTES]
        start = first.removeprefix(codecs.BOM_UTF8).lstrip()
        self._looks_like_array = not self._array and start.startswith(b"[")
        if not first:
            raise TableError(f"{name} is empty: it needs a row", reason="EMPTY_FILE")
        if first.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in first[:4]:
            why = f"{name} is not UTF-8, as JSON has to be: convert it to UTF-8"
            raise TableError(why, reason="NOT_UTF8")
        # Only these keys are decoded; all others are skipped.
        texts = {f"text{k}": key for k, key in enumerate(self._text_keys)}
        olds = {f"old{k}": name for k, name in enumerate(columns.names)}
        row = msgspec.defstruct(
            "Row",
            [
                *((name, str | None, None) for name in texts),
                *((name, msgspec.Raw | msgspec.UnsetType, msgspec.UNSET) for name in olds),
            ],
            rename=texts | olds,
        )
        self._decoder = msgspec.json.Decoder(row)

    def head(self, added: Sequence[str]) -> bytes:
        """See `Table.head`: the rows hold every byte of the file."""
        return b""

    def windows(self, start: Position) -> Iterator[Window]:
        """See `Table.windows`."""
        if start.ended:
            return
        self._stream.seek(start.offset, at=0)
        at, rows = start, Rows()
        for piece in self._elements(start) if self._array else self._lines(start):
            rows.count(piece.size, piece.lines)
            rows.tail.append(piece.before)
            if piece.row:
                self._put(rows, piece)
            if rows.cost >= self._window_bytes:
                yield (window := self._window(rows, at))
                at, rows = window.end, Rows()
        if rows.size:
            yield self._window(rows, at, ended=self._array)

    def _window(self, rows: Rows, start: Position, *, ended: bool = False) -> Window:
        if not start.rows:
            self._check_first(rows)
        end = rows.end(start, ended=ended)
        return Window(
            texts=rows.texts,
            lines=rows.lines,
            end=end,
            consumed=self._stream.tell(end.offset),
            render=partial(self._render, rows),
        )

    def _elements(self, start: Position) -> Iterator[_Piece]:
        number = start.lines
        for before, row in elements(self._stream.file, self._name, begun=bool(start.offset)):
            lines = before.count(b"\n")
            line, lines = number + lines + 1, lines + row.count(b"\n")
            number += lines
            yield _Piece(before, row, b"", line, len(before) + len(row), lines)

    def _lines(self, start: Position) -> Iterator[_Piece]:
        number = start.lines
        while line := self._stream.file.readline(MAX_ROW_BYTES + 1):
            number += 1
            if len(line) > MAX_ROW_BYTES:
                raise TableError(
                    f"{self._name} has more than {MAX_ROW_BYTES >> 20} MiB on line {number}: write"
                    " one JSON object per line",
                    reason="RECORD_TOO_LARGE",
                )
            row = line.strip(_BLANKS) if line.isspace() else line.rstrip(_BLANKS)
            before = b"" if row else line
            if number == 1 and row.startswith(codecs.BOM_UTF8):
                before, row = row[:3], row[3:]
            end = line[len(before) + len(row) :] or b"\n"
            yield _Piece(before, row, end if row else b"", number, len(line), 1)

    def _check_first(self, rows: Rows) -> None:
        """Refuse a file whose first rows suggest a wrong option."""
        errors = [text.reason for text in rows.texts if isinstance(text, TextError)]
        if len(errors) < len(rows.texts) or not errors:
            return
        if "COLUMN_COLLISION" in errors:
            why = f"{self._name} already has keys that begin with {self._added.prefix!r}: choose"
            why += " another --prefix, or fill their gaps with --where-missing"
            raise TableError(why, reason="COLUMN_COLLISION")
        if set(errors) == {"NOT_AN_OBJECT"}:
            first = rows.texts[0]
            why = f"{self._name} has no JSON object in its first rows ({first})"
            if self._looks_like_array:
                why += ": add --format json, because the file is one JSON array"
            elif not self._array:
                why += ": write one object per line, and end each line with LF"
            raise TableError(why, reason="NOT_AN_OBJECT")
        if set(errors) == {"MISSING_TEXT"}:
            why = f"none of the first {len(errors):,} rows of {self._name} has the key"
            why += f" {' or '.join(map(repr, self._text_keys))}: name one with --text-column"
            raise TableError(why, reason="MISSING_COLUMN")

    def _put(self, rows: Rows, piece: _Piece) -> None:
        """Add one row to *rows*, with the bytes around it."""
        line = piece.row
        text: str | TextError | None
        try:
            values = msgspec.structs.astuple(self._decoder.decode(line))
            count = len(self._text_keys)
            text, old = self._joined(values[:count]), list(values[count:])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            text, old = self._read_slowly(line)
        body = line[:-1]
        if any(value is not msgspec.UNSET for value in old):
            if not self._update:
                why = f"the row has a key that begins with {self._added.prefix!r} already"
                text = TextError(why, reason="COLUMN_COLLISION")
                body = self._wrapped(line)
            elif old[0] is not msgspec.UNSET and has_answer(msgspec.json.decode(old[0])):
                text, body = None, line
            else:
                body = _only(line, lambda key: key not in self._added.names)
        elif isinstance(text, TextError) and text.reason == "NOT_AN_OBJECT":
            body = self._wrapped(line)
        if self._keep and text is None:
            names = {*self._keep, *self._added.names}
            body = _only(line, lambda key: key in names) + b"}"
        elif self._keep:
            body = _only(body + b"}", lambda key: key in self._keep)
        rows.add(text, piece.line, body, piece.end)

    def _read_slowly(self, line: bytes) -> tuple[str | TextError, list[_Value]]:
        """Return the text and the old answers of a line that the fast decoder rejects.

        The standard library accepts more: NaN, and escapes that are half of a surrogate pair.
        """
        names = self._added.names
        old: list[_Value] = [msgspec.UNSET] * len(names)
        try:
            row = json.loads(line.decode("utf-8", "surrogateescape"))
        except (ValueError, RecursionError) as error:
            return TextError(f"the row is not JSON: {error}", reason="NOT_AN_OBJECT"), old
        if not isinstance(row, dict):
            return TextError("the row is JSON but not an object", reason="NOT_AN_OBJECT"), old
        old = [
            msgspec.Raw(json.dumps(row[name]).encode()) if name in row else msgspec.UNSET
            for name in names
        ]
        values = [row.get(key) for key in self._text_keys]
        for key, value in zip(self._text_keys, values, strict=True):
            # NaN is how a data frame writes a missing text.
            if value is not None and value == value and not isinstance(value, str):
                why = f"{key!r} is of type {type(value).__name__}, not a string"
                return TextError(why, reason="NOT_TEXT"), old
        text = self._joined([value if isinstance(value, str) else None for value in values])
        if isinstance(text, str) and _ESCAPED.search(text) and not _decodes(line):
            return TextError("the text is not valid UTF-8", reason="UNDECODABLE_ROW"), old
        return text, old

    def _joined(self, values: Sequence[str | None]) -> str | TextError:
        found = [value for value in values if value is not None]
        if not found:
            why = f"the row has no {' and no '.join(map(repr, self._text_keys))}, or it is null"
            return TextError(why, reason="MISSING_TEXT")
        return found[0] if len(values) == 1 else join_texts(found) or ""

    def _wrapped(self, line: bytes) -> bytes:
        """Return an object, without its closing brace, that holds a line that cannot get keys."""
        try:
            key, value = "source", line.decode("utf-8")
        except UnicodeDecodeError:
            key, value = "source_base64", base64.b64encode(line).decode()
        return msgspec.json.encode({self._added.prefix + key: value})[:-1]

    def _render(self, rows: Rows, added: pa.RecordBatch) -> bytes:
        pieces: list[bytes] = []
        for text, body, keys, end in zip(
            rows.texts, rows.bodies, _members(added), rows.ends, strict=True
        ):
            if text is None:
                pieces += (body, end)
            else:
                pieces += (body, keys[1:] if body.rstrip(_BLANKS).endswith(b"{") else keys, end)
        return b"".join([*pieces, *rows.tail])


def _members(added: pa.RecordBatch) -> list[bytes]:
    """Return the added keys of each row: a comma, the members and the closing brace."""
    pieces: list[pa.Array | pa.Scalar] = []
    for name, array in zip(added.schema.names, added.columns, strict=True):
        text = array.cast(pa.string())
        if pa.types.is_string(array.type):
            values = text.dictionary_encode()
            quoted = [
                msgspec.json.encode(value).decode() for value in values.dictionary.to_pylist()
            ]
            text = pa.array(quoted, pa.string()).take(values.indices)
        pieces += [pa.scalar(f",{json.dumps(name)}:"), text]
    joined = pc.binary_join_element_wise(
        *pieces, pa.scalar("}"), pa.scalar(""), null_handling="replace", null_replacement="null"
    )
    members: list[bytes] = joined.cast(pa.binary()).to_pylist()
    return members


def _only(line: bytes, wanted: Callable[[str], bool]) -> bytes:
    """Return *line* with only the *wanted* keys, without its closing brace; values keep bytes."""
    try:
        members = {k: bytes(v) for k, v in _RAW.decode(line).items()}
    except (msgspec.DecodeError, UnicodeDecodeError):
        row = json.loads(line.decode("utf-8", "surrogateescape"))
        members = {k: json.dumps(v).encode() for k, v in row.items()}
    pairs = [json.dumps(k).encode() + b":" + v for k, v in members.items() if wanted(k)]
    return b"{" + b",".join(pairs)


def _decodes(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
