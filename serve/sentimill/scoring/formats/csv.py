"""CSV and TSV: the output has the bytes of the input's lines, and answers are appended.

So a row that is not valid text loses nothing and affects no other row.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain
from typing import BinaryIO, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sentimill.errors import TextError, UsageError
from sentimill.scoring.answer_columns import AnswerSchema
from sentimill.scoring.formats.compression import Stream
from sentimill.scoring.formats.csv_dialect import MAX_LINE_BYTES
from sentimill.scoring.formats.csv_records import MAX_RECORD_LINES, Record, RecordReader, ragged
from sentimill.scoring.formats.table import (
    ROW_BYTES,
    Layout,
    Position,
    Rows,
    Window,
    count_answers,
    find_column,
    has_answer,
)
from sentimill.text.cleaning import join_texts

_LF, _CR = b"\n\r"
_MORE_BYTES: Final = 64 << 10
"""For the next window this many bytes more are read than the last one took."""

_ESCAPED: Final = re.compile("[\udc80-\udcff]")
"""What invalid bytes become, see `Encoding.decode`."""


class DelimitedTable:
    """An opened delimited file with a header row; see `Table`.

    whole_fields: keep every field for `Window.columns`.
    """

    def __init__(
        self, stream: Stream, layout: Layout, columns: AnswerSchema, *, whole_fields: bool = False
    ) -> None:
        """Read the header. Raises TableError or UsageError if *layout* does not fit the file."""
        self._stream = stream
        self._window_bytes = layout.window_bytes
        self._added = columns
        self._fields = whole_fields or bool(layout.keep)
        self._reader = RecordReader(
            stream, layout, wanted=layout.text_columns, whole_fields=self._fields
        )
        name = stream.name
        self._dialect = self._reader.dialect
        self._encoding = self._reader.encoding
        self.columns = self._reader.columns
        self._texts_at = [find_column(name, self.columns, one) for one in layout.text_columns]
        self._old = count_answers(name, self.columns, columns.names, layout.update)
        self._keep = [find_column(name, self.columns, one, "--only-columns") for one in layout.keep]
        marks = self._dialect.delimiter + (self._dialect.quote or "")
        self._splits_blocks = (
            self._encoding.searchable
            and marks.isascii()
            and not (self._old or self._fields or self._dialect.escape)
        )
        self._block_bytes = self._window_bytes
        self._unused = b""

    def head(self, added: Sequence[str]) -> bytes:
        """See `Table.head`. Raises UsageError for names or labels that cannot be written."""
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
        at = self._reader.start if start == Position() else start
        self._reader.seek(at)
        while rows := self._plain_rows(at.lines) or self._any_rows(at.lines):
            at = rows.end(at)
            yield Window(
                texts=rows.texts,
                lines=rows.lines,
                end=at,
                consumed=self._stream.tell(at.offset),
                render=partial(self._render, rows),
                columns=partial(self._table, rows),
            )

    def _any_rows(self, number: int) -> Rows | None:
        """Return the window of rows after line *number*, read one by one; None at the end."""
        found = Rows()
        held = io.BytesIO(self._unused)
        for record in self._reader.records(self._lines(held), number):
            found.count(len(record.raw), record.lines)
            if record.fields:
                self._put(found, record)
            else:  # a blank line is not a row, and stays where it is
                found.tail.append(record.raw)
            if found.cost >= self._window_bytes:
                break
        self._unused = held.read()
        return found if found.size else None

    def _lines(self, held: BinaryIO) -> Iterator[bytes]:
        """Yield the lines in *held*, which were read ahead, and then those of the file."""
        for line in held:
            if not line.endswith(b"\n"):
                line += self._stream.file.readline(MAX_LINE_BYTES + 1 - len(line))
            yield line
        yield from self._encoding.lines(self._stream.file)

    def _plain_rows(self, number: int) -> Rows | None:
        """Return the same rows as `_any_rows`, faster, by splitting whole blocks.

        None at the end, and if a row is unusual: `_any_rows` then looks at each row.
        """
        if not self._splits_blocks:
            return None
        while self._block_bytes <= 2 * self._window_bytes:
            missing = self._block_bytes - len(self._unused)
            self._unused += self._stream.file.read(max(0, missing))
            ended = len(self._unused) < self._block_bytes
            rows = self._split(self._unused, number)
            if (
                rows
                and rows.size
                and (rows.cost >= self._window_bytes or (ended and rows.size == len(self._unused)))
            ):
                self._unused = self._unused[rows.size :]
                self._block_bytes = rows.size + _MORE_BYTES
                return rows
            if ended or rows is None:
                break
            self._block_bytes *= 2
        self._block_bytes = self._window_bytes
        return None

    def _split(self, data: bytes, number: int) -> Rows | None:
        """Split *data* into rows until a window is full; None if a row is unusual.

        In usual rows, every line end outside quotes ends a row, and each row has as many delimiters
        as the header. A quote opens or closes a field, or is doubled. A CR only stands before a
        line end, and no row looks like the header.
        """
        codes = np.frombuffer(data, np.uint8)
        newlines = np.flatnonzero(codes == _LF)
        delimiters = np.flatnonzero(codes == ord(self._dialect.delimiter))
        quotes = np.flatnonzero(codes == ord(self._dialect.quote)) if self._dialect.quote else None
        ends = newlines
        if quotes is not None and len(quotes):
            ends = newlines[np.searchsorted(quotes, newlines) % 2 == 0]
            delimiters = delimiters[np.searchsorted(quotes, delimiters) % 2 == 0]
        if not len(ends) or len(newlines) - len(ends) > MAX_RECORD_LINES:
            return Rows() if not len(ends) else None
        starts = np.concatenate([[0], ends[:-1] + 1])
        full = np.cumsum(ends + 1 - starts + ROW_BYTES)
        count = min(len(ends), int(np.searchsorted(full, self._window_bytes)) + 1)
        starts, ends, size = starts[:count], ends[:count], int(ends[count - 1]) + 1
        codes = codes[:size]
        fields = len(self.columns) - 1
        delimiters = delimiters[: np.searchsorted(delimiters, size)]
        places = np.searchsorted(delimiters, ends)
        if not np.array_equal(places, np.arange(1, count + 1) * fields):
            return None
        crs = codes[ends - 1] == _CR
        if np.count_nonzero(codes == _CR) != np.count_nonzero(crs):
            return None
        if quotes is not None and not self._are_well_placed(quotes, codes):
            return None
        bodies = ends - crs
        if (starts == bodies).any():
            return None
        edges = np.column_stack([starts - 1, delimiters.reshape(count, fields), bodies])
        texts = self._texts_of(data, edges)
        if texts is None:
            return None
        bounds = starts.tolist(), bodies.tolist(), (ends + 1).tolist()
        return Rows(
            texts=texts,
            lines=(np.searchsorted(newlines, starts) + number + 1).tolist(),
            bodies=[data[begin:end] for begin, end in zip(*bounds[:2], strict=True)],
            ends=[data[begin:end] for begin, end in zip(*bounds[1:], strict=True)],
            cost=int(full[count - 1]),
            size=size,
            line_count=int(np.searchsorted(newlines, size)),
        )

    def _are_well_placed(self, quotes: NDArray[np.intp], codes: NDArray[np.uint8]) -> bool:
        """Say whether each of *quotes* opens a field, closes one, or doubles another."""
        quotes = quotes[: np.searchsorted(quotes, len(codes))]
        opening, closing = quotes[::2], quotes[1::2]
        mark, delimiter = ord(self._dialect.quote or ""), ord(self._dialect.delimiter)
        before = np.where(opening, codes[opening - 1], _LF)
        return bool(
            np.isin(before, (_LF, delimiter, mark)).all()
            and np.isin(codes[closing + 1], (_LF, _CR, delimiter, mark)).all()
        )

    def _texts_of(
        self, data: bytes, edges: NDArray[np.intp]
    ) -> list[str | TextError | None] | None:
        """Return the texts of rows with *edges* between fields; None if one cannot be decoded."""
        quote = self._dialect.quote
        codes = np.frombuffer(data, np.uint8)
        found: list[list[str]] = []
        for place in self._texts_at:
            begins, ends = edges[:, place] + 1, edges[:, place + 1]
            quoted = codes[begins] == ord(quote) if quote else 0
            bounds = zip((begins + quoted).tolist(), (ends - quoted).tolist(), strict=True)
            try:
                cells = [str(data[begin:end], self._encoding.codec) for begin, end in bounds]
            except UnicodeDecodeError:
                return None
            # A field that is not quoted contains no quotes.
            found.append([cell.replace(quote * 2, quote) for cell in cells] if quote else cells)
        name = self.columns[self._texts_at[0]]
        if any(map({name, f"\ufeff{name}"}.__contains__, found[0])):
            return None  # the row may be the header again
        if len(found) == 1:
            return [*found[0]]
        return [join_texts(parts) or "" for parts in zip(*found, strict=True)]

    def _ends_with_answers(self, fields: list[str], error: TextError | None) -> bool:
        """Say whether a malformed row ends with the answer columns of an earlier job."""
        if len(fields) < len(self.columns):
            return False
        label, *others = fields[-self._old :]
        reason = "RAGGED_ROW" if error is None else error.reason
        return not label and reason in others

    def _put(self, rows: Rows, record: Record) -> None:
        """Add one record to *rows*, with the blank lines before it."""
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
        rows.add(text, record.line, body, end or self._reader.end)

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

    def _render(self, rows: Rows, added: pa.RecordBatch) -> bytes:
        suffixes = self._suffixes(added)
        if self._old:
            pairs = zip(rows.texts, suffixes, strict=True)
            suffixes = [b"" if text is None else suffix for text, suffix in pairs]
        lines = zip(rows.bodies, suffixes, rows.ends, strict=True)
        return b"".join(chain(chain.from_iterable(lines), rows.tail))

    def _suffixes(self, added: pa.RecordBatch) -> list[bytes]:
        """Return the added fields of each row, with a leading delimiter, as bytes."""
        label, *others = (column.cast(pa.string()) for column in added.columns)
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

    def _table(self, rows: Rows) -> pa.Table:
        """Return the rows as columns of text, and a column with the bytes of malformed rows."""
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
