"""Writes Parquet: the input's bytes with columns added, or a new file of whole rows.

The columns of the input are not decoded. Their bytes are copied, the answers are written as Parquet
columns after them, and the footer lists both. So types, encodings, statistics and the page index of
the input stay exactly as they were, whatever wrote them. The output depends only on the input and
the job's stream, so a resumed job writes the same bytes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sentimill.errors import TableError
from sentimill.scoring.answer_columns import AnswerSchema
from sentimill.scoring.formats.parquet import ParquetTable, is_text
from sentimill.scoring.formats.parquet_footer import (
    MAGIC,
    Chunk,
    chunks_of,
    read_footer,
    row_group,
    rows_of,
)
from sentimill.scoring.formats.thrift import Struct

_PIECE_ROWS: Final = 1 << 20
"""Rows of answers that are encoded at once; a larger row group is made of several pieces."""

_NEW_GROUP_BYTES: Final = 32 << 20
"""Size of a row group, if the input is not Parquet."""

_COPY_BYTES: Final = 4 << 20
_CODECS: Final = {"UNCOMPRESSED": "NONE", "LZ4_RAW": "LZ4"}


def check_output(table: ParquetTable, columns: AnswerSchema) -> None:
    """Raise TableError when the output would not have the input's columns and the answers.

    It compares the schemas of the input and of an output without rows, field by field.
    """
    added = _added_schema(table, columns)
    for field, ours in zip(added, columns.schema(), strict=True):
        if not _fits(ours.type, field.type):
            why = f"{table.name}: its column {field.name!r} is {field.type}, and answers are"
            why += f" {ours.type}: choose another --prefix"
            raise TableError(why, reason="COLUMN_COLLISION")
    with tempfile.TemporaryFile() as answers, tempfile.TemporaryFile() as target:
        _writer(answers, added, table).close()
        merge = _Merge(table, answers, added)
        target.write(MAGIC + merge.footer.serialize([], 0))
        _check_schema(table, target, added)


def add_columns(
    table: ParquetTable,
    stream: BinaryIO,
    target: BinaryIO,
    columns: AnswerSchema,
    step: Callable[[], None],
) -> None:
    """Write *table* to *target* with the answers of *stream*; *step* is called between groups.

    Raises TableError when the output's schema is not what `check_output` allowed.
    """
    added = _added_schema(table, columns)
    with tempfile.TemporaryFile(dir=Path(target.name).parent) as answers:
        pieces = _write_answers(table, stream, answers, added, step)
        _Merge(table, answers, added).write(target, pieces, step)
    target.flush()
    with open(target.name, "rb") as written:
        _check_schema(table, written, added)


class _Merge:
    """Merges an input and a file of answers. footer: that of the output, without row groups.

    leaves: for each leaf of the output, its number in the input, or the name of an answer.
    """

    def __init__(self, table: ParquetTable, answers: BinaryIO, added: pa.Schema) -> None:
        self._table = table
        self._answers = answers
        self._input = read_footer(table.raw, table.name)
        self._added = read_footer(answers, "the answers")
        names = list(table.columns)
        kept = [*table.kept]
        if table.keep and table.update:
            kept += [names.index(name) for name in added.names if name not in table.keep]
        columns = list(self._input.columns().values())
        self.leaves: list[int | str] = []
        for position in kept:
            if names[position] in added.names:
                self.leaves.append(names[position])
            else:
                self.leaves += columns[position]
        self.leaves += [name for name in added.names if name not in self.leaves]
        self.footer = self._input.with_columns(
            kept, self._added, lambda schema: _merged_schema(schema, kept, added)
        )

    def write(self, target: BinaryIO, pieces: list[int], step: Callable[[], None]) -> None:
        """Write the whole file; *pieces*: how many row groups of answers each row group has."""
        moved = bool(self._table.keep)
        target.write(MAGIC)
        if not moved:
            # Every byte keeps its offset, so offsets into the input's data stay right.
            _copy(self._table.raw, len(MAGIC), self._input.begin - len(MAGIC), target)
        names = self._added.names()
        found = iter(self._added.row_groups)
        groups: list[Struct] = []
        rows = 0
        for group, count in zip(self._input.row_groups, pieces, strict=True):
            step()
            parts = [chunks_of(next(found)) for _ in range(count)]
            answers = dict(zip(names, zip(*parts, strict=True), strict=True))
            theirs = chunks_of(group)
            chunks: list[Chunk] = []
            for leaf in self.leaves:
                if isinstance(leaf, str):
                    chunks.append(_append(self._answers, answers[leaf], target))
                elif moved:
                    chunks.append(_append(self._table.raw, [theirs[leaf]], target))
                else:
                    chunks.append(theirs[leaf])
            groups.append(row_group(group, chunks, moved=moved))
            rows += rows_of(group)
        target.write(self.footer.serialize(groups, rows))


def write_new(
    schema: pa.Schema, stream: BinaryIO, target: BinaryIO, step: Callable[[], None]
) -> None:
    """Write the whole rows of *stream* to *target* as Parquet."""
    held: list[pa.RecordBatch] = []
    size = 0
    with pq.ParquetWriter(target, schema, compression="zstd") as writer:
        for batch in _whole(stream).to_batches():
            held.append(batch)
            size += batch.nbytes
            if size >= _NEW_GROUP_BYTES:
                writer.write_table(pa.Table.from_batches(held), row_group_size=1 << 30)
                held, size = [], 0
                step()
        if held:
            writer.write_table(pa.Table.from_batches(held), row_group_size=1 << 30)


def _whole(stream: BinaryIO) -> pa.Table:
    """Return the rows of *stream*, which are mapped into memory and not read."""
    return pa.ipc.open_stream(pa.memory_map(stream.name)).read_all()


def _write_answers(
    table: ParquetTable,
    stream: BinaryIO,
    answers: BinaryIO,
    added: pa.Schema,
    step: Callable[[], None],
) -> list[int]:
    """Write the added columns as Parquet; return how many row groups each of *table*'s gets."""
    counts: list[int] = []
    rows, begin = _whole(stream), 0
    with _writer(answers, added, table) as writer:
        for group in range(table.file.metadata.num_row_groups):
            step()
            count = 0
            for old in _old_answers(table, group):
                new = rows.slice(begin, len(old))
                begin += len(old)
                arrays = [_merged(old, new, field) for field in added]
                writer.write_table(pa.table(arrays, schema=added), row_group_size=max(1, len(old)))
                count += 1
            counts.append(count)
    answers.flush()
    return counts


def _old_answers(table: ParquetTable, group: int) -> Iterator[pa.Table]:
    """Yield the old answers of a row group, in pieces; without columns if it has none."""
    rows = table.file.metadata.row_group(group).num_rows
    if table.update and rows:
        names = list(table.answers_schema.names)
        for batch in table.file.iter_batches(_PIECE_ROWS, row_groups=[group], columns=names):
            yield pa.Table.from_batches([batch])
        return
    for begin in range(0, max(rows, 1), _PIECE_ROWS):
        length = min(_PIECE_ROWS, rows - begin)
        yield pa.table({"": pa.nulls(length)})


def _merged(old: pa.Table, new: pa.Table, field: pa.Field) -> pa.ChunkedArray:
    """Return one added column; old answers stay."""
    column = new.column(field.name)
    if field.name not in old.column_names:
        return column
    label = _as_text(old.column(new.column_names[0]))
    answered = pc.fill_null(pc.not_equal(pc.utf8_trim_whitespace(label), ""), False)
    if pa.types.is_string(column.type):
        merged = pc.if_else(answered, _as_text(old.column(field.name)), column)
    else:
        merged = pc.if_else(answered, old.column(field.name), column.cast(field.type))
    return merged.cast(field.type)


def _as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return text as plain strings: Arrow computes with neither dictionaries nor views."""
    return column.cast(pa.string())


def _added_schema(table: ParquetTable, columns: AnswerSchema) -> pa.Schema:
    """Return the added columns; those that the input already has keep their types."""
    fields = list(columns.schema())
    if table.update:
        types = [table.schema.field(field.name).type for field in fields]
        fields = [
            field if pa.types.is_null(kind) else pa.field(field.name, kind)
            for field, kind in zip(fields, types, strict=True)
        ]
    return pa.schema(fields)


def _fits(ours: pa.DataType, theirs: pa.DataType) -> bool:
    """Say whether a column of the type *theirs* can hold our answers without loss."""
    if pa.types.is_string(ours):
        return is_text(theirs)
    wide = pa.types.is_float64(theirs) and pa.types.is_floating(ours)
    return bool(theirs == ours or wide)


def _merged_schema(schema: pa.Schema, kept: list[int], added: pa.Schema) -> pa.Schema:
    """Return the Arrow schema of the output, with the metadata of the input."""
    fields = [schema.field(k) for k in kept]
    fields += [field for field in added if field.name not in schema.names]
    return pa.schema(fields, metadata=schema.metadata)


def _check_schema(table: ParquetTable, written: BinaryIO, added: pa.Schema) -> None:
    """Raise TableError unless *written* has the columns of *table* as they are, and the answers."""
    found = pq.read_schema(written)
    columns = map(table.schema.field, table.kept)
    expected = [field for field in columns if field.name not in added.names]
    ours = [field for field in found if field.name in added.names]
    kept = [field for field in found if field.name not in added.names]
    same = (
        len(kept) == len(expected)
        and all(a.equals(b, check_metadata=True) for a, b in zip(kept, expected, strict=True))
        and {field.name: field.type for field in ours}
        == dict(zip(added.names, added.types, strict=True))
        and (found.metadata or {}) == (table.schema.metadata or {})
    )
    if not same:
        why = f"{table.name} has columns that would be changed: convert it to CSV or"
        raise TableError(f"{why} JSON Lines, or write it again with pyarrow", reason="UNREADABLE")


def _writer(target: BinaryIO, schema: pa.Schema, table: ParquetTable) -> pq.ParquetWriter:
    """Return a writer of answers with the compression of the input.

    It uses no dictionaries, because only then can a chunk be made of the pages of several pieces.
    """
    metadata = table.file.metadata
    codec = "SNAPPY"
    if metadata.num_row_groups and metadata.num_columns:
        codec = metadata.row_group(0).column(0).compression
    codec = _CODECS.get(codec, codec)
    if codec != "NONE" and not pa.Codec.is_available(codec.lower()):
        codec = "SNAPPY"
    return pq.ParquetWriter(target, schema, compression=codec, use_dictionary=False)


def _append(source: BinaryIO, chunks: Sequence[Chunk], target: BinaryIO) -> Chunk:
    """Copy *chunks* of one column to the end of *target*, and describe them as one chunk there."""
    place = target.tell()
    for chunk in chunks:
        _copy(source, chunk.start, chunk.size, target)
    return chunks[0].moved(place).joined(chunks[1:])


def _copy(source: BinaryIO, begin: int, size: int, target: BinaryIO) -> None:
    source.seek(begin)
    while size:
        block = source.read(min(size, _COPY_BYTES))
        if not block:
            raise EOFError("the input is shorter than its footer says")
        target.write(block)
        size -= len(block)
