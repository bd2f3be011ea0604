"""Parquet: the job reads the texts, and writes the file at the end.

A Parquet file cannot be continued once its writer is gone. So the job writes an Arrow stream of the
answers alone, and `parquet_writer` makes the file from the input and that stream.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import BinaryIO, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sentimill.errors import TableError, TextError
from sentimill.scoring.answer_columns import AnswerSchema
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

_SHARED: Final = frozenset({"PLAIN", "RLE", "BIT_PACKED", "PLAIN_DICTIONARY", "RLE_DICTIONARY"})
"""The encodings that Arrow reads as dictionaries."""

_READ_BYTES: Final = 4 << 20
"""Bytes of a column that are read at once: remote storage takes tens of ms per read."""


class ParquetTable:
    """An opened Parquet file. update: answer only the rows that have no answer yet."""

    def __init__(
        self,
        file: BinaryIO,
        *,
        name: str,
        size_bytes: int,
        layout: Layout,
        columns: AnswerSchema,
    ) -> None:
        """Read the footer. Raises TableError for a file that is not Parquet or lacks a column."""
        try:
            self.file = _open(file)
        except (pa.ArrowInvalid, OSError) as error:
            why = f"{name} is not a complete Parquet file ({error}): copy it again, or name its"
            why += " format with --format"
            raise TableError(why, reason="UNREADABLE") from error
        self.name = name
        self.raw = file
        self._window_bytes = layout.window_bytes
        self._size_bytes = size_bytes
        self._added = columns
        self._text_columns = layout.text_columns
        self.schema: pa.Schema = self.file.schema_arrow
        self.columns = tuple(self.schema.names)
        for one in layout.text_columns:
            kind = self.schema.field(find_column(name, self.columns, one)).type
            if not is_text(kind):
                why = f"{name}: the column {one!r} is {kind}, not text: name one with --text-column"
                raise TableError(why, reason="NOT_TEXT")
        kept = [find_column(name, self.columns, one, "--only-columns") for one in layout.keep]
        self.kept = kept or [*range(len(self.columns))]
        self.answers_schema = columns.schema()
        self.keep = layout.keep
        found = count_answers(name, self.columns, columns.names, layout.update, last=False)
        self.update = found > 0
        self._raw = file
        self._dictionaries = self._repeating()
        self._texts_file = _open(file, self._dictionaries)

    def head(self, added: Sequence[str]) -> bytes:
        """See `Table.head`: an Arrow stream begins with its schema."""
        return bytes(self._added.schema().serialize())

    def windows(self, start: Position) -> Iterator[Window]:
        """See `Table.windows`; all numbers of a position are rows."""
        texts: list[str | TextError | None] = []
        cost, row = 0, start.rows
        total = max(1, self.file.metadata.num_rows)
        for batch in self._batches(start.rows):
            for text in self._texts(batch):
                texts.append(text)
                cost += ROW_BYTES + (len(text) if isinstance(text, str) else 0)
                if cost >= self._window_bytes:
                    row += len(texts)
                    yield self._window(texts, row, self._size_bytes * row // total)
                    texts, cost = [], 0
        if texts:
            yield self._window(texts, row + len(texts), self._size_bytes)

    def _window(self, texts: list[str | TextError | None], end: int, consumed: int) -> Window:
        return Window(
            texts=texts,
            lines=range(end - len(texts) + 1, end + 1),
            end=Position(end, end, end),
            consumed=consumed,
            render=message,
        )

    def _batches(self, start: int) -> Iterator[pa.RecordBatch]:
        """Yield the needed columns, from the row *start*, in pieces of a few megabytes."""
        wanted = [*self._text_columns]
        if self.update:
            wanted.append(self._added.names[0])
        metadata = self.file.metadata
        before = 0
        for group in range(metadata.num_row_groups):
            rows = metadata.row_group(group).num_rows
            skip = max(0, start - before)
            before += rows
            if skip >= rows:
                continue
            for batch in self._group_batches(group, self._batch_rows(group, rows), wanted):
                if skip < len(batch):
                    yield batch.slice(skip)
                skip = max(0, skip - len(batch))

    def _group_batches(self, group: int, rows: int, wanted: list[str]) -> Iterator[pa.RecordBatch]:
        """Yield the columns *wanted* of a row group, as dictionaries as far as it has them.

        If a dictionary grows, the writer has given it up, because texts seldom repeat. Arrow would
        still collect all texts of the group in one dictionary, so the rest of that column is read
        plain.
        """
        file, names, yielded = self._texts_file, self._dictionaries, 0
        while True:
            read, sizes, grown = 0, dict[str, int](), set[str]()
            for batch in file.iter_batches(rows, row_groups=[group], columns=wanted):
                if read + len(batch) > yielded:
                    yield batch.slice(max(0, yielded - read))
                read += len(batch)
                for name in names:
                    size = _dictionary_size(batch.column(name))
                    if size > sizes.setdefault(name, size):
                        grown.add(name)
                    sizes[name] = size
                if grown:
                    break
            else:
                return
            yielded = max(yielded, read)
            names = [name for name in names if name not in grown]
            file = _open(self._raw, names) if names else self.file

    def _repeating(self) -> list[str]:
        """Return the text columns that Arrow can read as dictionaries.

        A long text that is stored once may occur in thousands of rows.
        """
        metadata = self.file.metadata
        groups = [metadata.row_group(k) for k in range(metadata.num_row_groups)]
        chunks = [group.column(k) for group in groups for k in range(metadata.num_columns)]
        other = {c.path_in_schema for c in chunks if not _SHARED.issuperset(c.encodings)}
        return [name for name in self._text_columns if name not in other]

    def _batch_rows(self, group: int, rows: int) -> int:
        metadata = self.file.metadata.row_group(group)
        chunks = [metadata.column(k) for k in range(metadata.num_columns)]
        size: int = sum(
            chunk.total_uncompressed_size
            for chunk in chunks
            if chunk.path_in_schema in self._text_columns
        )
        return max(1, min(rows, self._window_bytes // (size // max(1, rows) + ROW_BYTES)))

    def _texts(self, batch: pa.RecordBatch) -> list[str | TextError | None]:
        found = [_decoded(batch.column(name)) for name in self._text_columns]
        texts = found[0] if len(found) == 1 else [*map(_joined, zip(*found, strict=True))]
        why = f"{' and '.join(map(repr, self._text_columns))} is null"
        texts = [TextError(why, reason="MISSING_TEXT") if t is None else t for t in texts]
        if self.update:
            done = map(has_answer, batch.column(self._added.names[0]).to_pylist())
            texts = [None if old else text for old, text in zip(done, texts, strict=True)]
        return texts


def message(rows: pa.RecordBatch | pa.Table) -> bytes:
    """Return *rows* as messages of an Arrow stream."""
    batches = rows.combine_chunks().to_batches() if isinstance(rows, pa.Table) else [rows]
    return b"".join(bytes(batch.serialize()) for batch in batches)


def _open(file: BinaryIO, repeating: Sequence[str] = ()) -> pq.ParquetFile:
    """Open *file* to be read in blocks; otherwise Arrow would hold a whole stored row group."""
    return pq.ParquetFile(
        file, read_dictionary=[*repeating], pre_buffer=False, buffer_size=_READ_BYTES
    )


def is_text(kind: pa.DataType) -> bool:
    """Say whether a column of this type may hold text; one with only nulls counts as text."""
    types = pa.types
    if types.is_dictionary(kind):
        kind = kind.value_type
    checks = (types.is_string, types.is_large_string, types.is_string_view, types.is_null)
    return any(check(kind) for check in checks) or _is_bytes(kind)


def _dictionary_size(column: pa.Array) -> int:
    return len(column.dictionary) if pa.types.is_dictionary(column.type) else 0


def _is_bytes(kind: pa.DataType) -> bool:
    """Say whether *kind* is binary; Spark used to write text as binary."""
    types = pa.types
    return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind))


def _decoded(column: pa.Array) -> list[str | TextError | None]:
    """Return the texts of *column*; Parquet does not promise that they are valid UTF-8."""
    if pa.types.is_dictionary(column.type):  # a repeated text stays one object
        used, places = np.unique(column.indices.fill_null(-1), return_inverse=True)
        values = _decoded(column.dictionary.take(pa.array(used, mask=used < 0)))
        return [*map(values.__getitem__, places.tolist())]
    if _is_bytes(column.type):
        return [*map(_text, column.to_pylist())]
    try:
        plain: list[str | TextError | None] = column.to_numpy(zero_copy_only=False).tolist()
    except (UnicodeDecodeError, pa.ArrowException):
        return _decoded(column.cast(pa.large_binary()))
    return plain


def _text(value: bytes | None) -> str | TextError | None:
    try:
        return None if value is None else value.decode("utf-8")
    except UnicodeDecodeError:
        return TextError("the text is not valid UTF-8", reason="UNDECODABLE_ROW")


def _joined(texts: Sequence[str | TextError | None]) -> str | TextError | None:
    """Return the texts of a row as one, None when all of them are null."""
    found = [text for text in texts if text is not None]
    wrong = next((text for text in found if isinstance(text, TextError)), None)
    return wrong or ((join_texts(found) or "") if found else None)
