"""CSV and TSV: rows keep the bytes with which they came, and answers are appended.

What is written back are the bytes of the input's lines. So a row that is not valid text loses
nothing and affects no other row.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from sentimill.errors import TextError, UsageError
from sentimill.scoring.answer_columns import AnswerColumns, AnswerSchema
from sentimill.scoring.formats.compression import Stream
from sentimill.scoring.formats.csv_records import Record, RecordReader, ragged
from sentimill.scoring.formats.kinds import Kind
from sentimill.scoring.formats.table import (
    ROW_BYTES,
    Layout,
    Position,
    Window,
    count_answers,
    find_column,
    has_answer,
)
from sentimill.text.cleaning import join_texts

_ESCAPED: Final = re.compile("[\udc80-\udcff]")
"""What invalid bytes become, see `Encoding.decode`."""


@dataclass(slots=True)
class _Rows:
    """Rows of one window. bodies: the bytes before the answers; ends: the bytes after them."""

    texts: list[str | TextError | None] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    ends: list[bytes] = field(default_factory=list)
    fields: list[list[str]] = field(default_factory=list)
    odd: dict[int, bytes] = field(default_factory=dict)
    cost: int = 0


class DelimitedTable:
    """A delimited file with a header row, opened; see `Table`.

    whole_fields: keep every field for `Window.columns`.
    """

    def __init__(
        self,
        stream: Stream,
        kind: Kind,
        *,
        name: str,
        layout: Layout,
        columns: AnswerSchema,
        whole_fields: bool = False,
    ) -> None:
        """Read the header. Raises TableError or UsageError for a file that cannot be read so."""
        self._stream = stream
        self._name = name
        self._window_bytes = layout.window_bytes
        self._added = columns
        self._fields = whole_fields or bool(layout.keep)
        self._reader = RecordReader(
            stream,
            kind,
            name=name,
            layout=layout,
            wanted=layout.text_columns,
            whole_fields=self._fields,
        )
        self._dialect = self._reader.dialect
        self._encoding = self._reader.encoding
        self.columns = self._reader.columns
        self._texts_at = [find_column(name, self.columns, one) for one in layout.text_columns]
        self._old = count_answers(name, self.columns, columns.names, layout.update)
        self._keep = [find_column(name, self.columns, wanted) for wanted in layout.keep]

    def head(self, added: Sequence[str]) -> bytes:
        """See `Table.head`. Raises UsageError when names or labels cannot be written so."""
        write, encode = self._dialect.write, self._encoding.encode
        reader = self._reader
        try:
            encode(write(self._added.labels))
            names = encode(self._dialect.delimiter + write(added))
        except UnicodeEncodeError as error:
            why = f"the labels or names cannot be written in {self._encoding.codec}: {error}"
            raise UsageError(why, reason="UNKNOWN_ENCODING") from error
        if self._keep:
            kept = encode(write([self.columns[k] for k in self._keep]))
            return (reader.preamble or self._encoding.bom) + kept + names + reader.end
        return reader.preamble + reader.header + (b"" if self._old else names) + reader.end

    def windows(self, start: Position) -> Iterator[Window]:
        """See `Table.windows`."""
        if start == Position():
            start = self._reader.start
        offset, number, rows, _ = start
        found = _Rows()
        blank: list[bytes] = []
        for record in self._reader.records(start):
            offset += len(record.raw)
            number += record.lines
            if not record.fields:  # a blank line is no row, and stays where it is
                blank.append(record.raw)
                found.cost += len(record.raw) + ROW_BYTES
            else:
                self._put(found, record, b"".join(blank))
                found.cost += len(record.raw) + ROW_BYTES
                blank = []
            if found.cost >= self._window_bytes:
                rows += len(found.texts)
                yield self._window(found, Position(offset, number, rows), b"".join(blank))
                found, blank = _Rows(), []
        if found.texts or blank:
            rows += len(found.texts)
            yield self._window(found, Position(offset, number, rows), b"".join(blank))

    def _window(self, rows: _Rows, end: Position, blank: bytes) -> Window:
        return Window(
            texts=rows.texts,
            lines=rows.lines,
            end=end,
            consumed=self._stream.tell(end.offset),
            render=lambda added: self._render(rows, added, blank),
            columns=lambda: self._table(rows),
        )

    def _ends_with_answers(self, fields: list[str], error: TextError | None) -> bool:
        """Say whether a row that does not fit ends with what an earlier job wrote behind it."""
        if len(fields) < len(self.columns):
            return False
        label, *others = fields[-self._old :]
        reason = "RAGGED_ROW" if error is None else error.reason
        return not label and reason in others

    def _put(self, rows: _Rows, record: Record, blank: bytes) -> None:
        """Add one record to *rows*; *blank* are the blank lines before it."""
        fields = record.fields
        body, end = self._reader.cut_end(record.raw)
        text: str | TextError | None
        if record.error is None and len(fields) == len(self.columns):
            text = self._text(fields)
            if self._old:
                if has_answer(fields[-self._old]):
                    text = None
                else:
                    body = self._without_answers(fields, body)
        else:
            rows.odd[len(rows.texts)] = body
            if self._old and self._ends_with_answers(fields, record.error):
                body = self._without_answers(fields, body)
                fields = fields[: -self._old]
            text, fields, body = self._odd(fields, record.error, body)
        if not record.valid:
            rows.odd.setdefault(len(rows.texts), body)
            text = self._check_valid(text)
        if self._fields:
            rows.fields.append(fields)
        if self._keep:
            kept = [fields[k] for k in self._keep]
            kept += fields[-self._old :] if text is None else []
            body = self._dialect.write(kept).encode(self._encoding.codec, "surrogateescape")
        rows.texts.append(text)
        rows.lines.append(record.line)
        rows.bodies.append(blank + body if blank else body)
        rows.ends.append(end or self._reader.end)

    def _text(self, fields: list[str]) -> str:
        if len(self._texts_at) == 1:
            return fields[self._texts_at[0]]
        return join_texts(fields[k] for k in self._texts_at) or ""

    def _check_valid(self, text: str | TextError | None) -> str | TextError | None:
        """Return an error for a text with invalid bytes; in other fields they do not matter."""
        if isinstance(text, str) and (self._encoding.unit > 1 or _ESCAPED.search(text)):
            why = f"the text is not valid {self._encoding.codec}: save the file as UTF-8, or name"
            return TextError(f"{why} its --encoding", reason="UNDECODABLE_ROW")
        return text

    def _odd(
        self, fields: list[str], error: TextError | None, body: bytes
    ) -> tuple[TextError, list[str], bytes]:
        """Return the error of a row that does not fit the header, its fields, and its bytes."""
        width = len(self.columns) - self._old
        if error is None:
            error = ragged(len(fields), width, self._dialect.delimiter)
        elif error.reason == "UNCLOSED_QUOTE":
            body += self._encoding.encode(self._dialect.quote or "")
        body += self._encoding.encode(self._dialect.delimiter) * (width - len(fields))
        padded = fields + [""] * (len(self.columns) - len(fields))
        return error, padded[: len(self.columns)], body

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

    def _render(self, rows: _Rows, added: AnswerColumns, blank: bytes) -> bytes:
        suffixes = self._suffixes(added)
        for place, text in enumerate(rows.texts):
            if text is None:
                suffixes[place] = b""
        lines = zip(rows.bodies, suffixes, rows.ends, strict=True)
        return b"".join(chain(chain.from_iterable(lines), (blank,)))

    def _suffixes(self, added: AnswerColumns) -> list[bytes]:
        """Return the added fields of each row, with a leading delimiter, as bytes."""
        label, *others = added.strings()
        for k in range(len(others) - len(self._added.evidence), len(others)):
            cells = [cell and self._dialect.write([cell]) for cell in others[k].to_pylist()]
            others[k] = pa.array(cells, pa.string())
        quoted = pa.array([self._dialect.write([name]) for name in self._added.labels], pa.string())
        positions = pc.index_in(label, pa.array(self._added.labels, pa.string()))
        columns = [pa.scalar(""), quoted.take(positions), *others]
        joined = pc.binary_join_element_wise(
            *columns, self._dialect.delimiter, null_handling="replace", null_replacement=""
        )
        if self._encoding.codec == "utf-8":
            plain: list[bytes] = joined.cast(pa.binary()).to_pylist()
            return plain
        return [self._encoding.encode(text) for text in joined.to_pylist()]

    def _table(self, rows: _Rows) -> pa.Table:
        """Return the rows as columns of text, and the bytes of those that do not fit in them."""
        positions = self._keep or range(len(self.columns))
        arrays = {
            self.columns[k]: pa.array(
                [
                    row[k].encode("utf-8", "replace").decode() if i in rows.odd else row[k]
                    for i, row in enumerate(rows.fields)
                ],
                pa.string(),
            )
            for k in positions
        }
        source = pa.array([rows.odd.get(i) for i in range(len(rows.fields))], pa.binary())
        return pa.table({**arrays, f"{self._added.prefix}source": source})
