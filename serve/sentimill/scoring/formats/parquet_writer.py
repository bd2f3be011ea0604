"""Putting a Parquet file together from the stream that the job left, and where need be its input.

What comes out depends on these two alone, so a resumed job writes the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import BinaryIO, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sentimill.scoring.answer_columns import Columns
from sentimill.scoring.formats.parquet import ParquetTable

__all__ = ["complete", "write_new"]

_GROUP_BYTES: Final = 256 << 20
"""A row group that is larger than this is written as several, so that memory stays bounded."""

_NEW_GROUP_BYTES: Final = 32 << 20
"""A row group of a file that was no Parquet before."""

_CODECS: Final = {"UNCOMPRESSED": "NONE", "LZ4_RAW": "LZ4"}


def complete(
    table: ParquetTable,
    stream: BinaryIO,
    target: BinaryIO,
    columns: Columns,
    step: Callable[[], None],
) -> None:
    """Write the rows of *table* to *target* with the answers of *stream*; *step* between groups."""
    added = columns.schema()
    names = list(table.keep) or table.schema.names
    if table.update:
        names += [name for name in added.names if name not in names]
    else:
        names = [name for name in names if name not in added.names]
    fields = [table.schema.field(name) for name in names]
    fields += [field for field in added if field.name not in names]
    schema = pa.schema(fields, metadata=table.schema.metadata)
    answers = _Rows(_batches(stream), added)
    with _writer(target, schema, table.file.metadata) as writer:
        for piece in _pieces(table, names):
            found = answers.take(len(piece))
            arrays = [_merged(piece, found, field) for field in schema]
            writer.write_table(pa.table(arrays, schema=schema), row_group_size=max(1, len(piece)))
            step()


def write_new(
    schema: pa.Schema, stream: BinaryIO, target: BinaryIO, step: Callable[[], None]
) -> None:
    """Write the whole rows of *stream* to *target* as Parquet."""
    held: list[pa.RecordBatch] = []
    size = 0
    with pq.ParquetWriter(target, schema, compression="zstd") as writer:
        for batch in _batches(stream):
            held.append(batch)
            size += batch.nbytes
            if size >= _NEW_GROUP_BYTES:
                writer.write_table(pa.Table.from_batches(held), row_group_size=1 << 30)
                held, size = [], 0
                step()
        if held:
            writer.write_table(pa.Table.from_batches(held), row_group_size=1 << 30)


def _batches(stream: BinaryIO) -> Iterator[pa.RecordBatch]:
    with pa.ipc.open_stream(stream) as reader:
        yield from reader


class _Rows:
    """Takes rows off a series of batches, however many are wanted."""

    def __init__(self, batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> None:
        self._batches = batches
        self._schema = schema
        self._held = pa.Table.from_batches([], schema)

    def take(self, rows: int) -> pa.Table:
        """Return the next *rows* rows."""
        while len(self._held) < rows:
            more = pa.Table.from_batches([next(self._batches)])
            self._held = pa.concat_tables([self._held, more])
        found = self._held.slice(0, rows)
        self._held = self._held.slice(rows)
        return found


def _pieces(table: ParquetTable, names: list[str]) -> Iterator[pa.Table]:
    """Yield the row groups in order, a very large one in parts."""
    metadata = table.file.metadata
    for group in range(metadata.num_row_groups):
        size, rows = metadata.row_group(group).total_byte_size, metadata.row_group(group).num_rows
        if size <= _GROUP_BYTES:
            yield table.file.read_row_group(group, columns=names)
            continue
        rows_each = max(1, rows * _GROUP_BYTES // size)
        for batch in table.file.iter_batches(rows_each, row_groups=[group], columns=names):
            yield pa.Table.from_batches([batch])


def _merged(piece: pa.Table, found: pa.Table, field: pa.Field) -> pa.ChunkedArray:
    """Return one column of the output; an answer that was there before stays."""
    if field.name not in found.column_names:
        return piece.column(field.name)
    new = found.column(field.name).cast(field.type)
    if field.name not in piece.column_names:
        return new
    kept = pc.is_valid(piece.column(found.column_names[0]))
    return pc.if_else(kept, piece.column(field.name), new)


def _writer(target: BinaryIO, schema: pa.Schema, like: pq.FileMetaData) -> pq.ParquetWriter:
    """Return a writer whose file is as the one described by *like*."""
    found = [
        like.row_group(0).column(k) for k in range(like.num_columns if like.num_row_groups else 0)
    ]
    codecs = {c.path_in_schema: _CODECS.get(c.compression, c.compression) for c in found}
    usual = next(iter(codecs.values()), "SNAPPY")
    for name in schema.names:
        codecs.setdefault(name, usual)
    sorting = like.row_group(0).sorting_columns if like.num_row_groups else ()
    return pq.ParquetWriter(
        target,
        schema,
        version=like.format_version if like.format_version in ("1.0", "2.4", "2.6") else "2.6",
        compression=codecs,
        use_deprecated_int96_timestamps=any(c.physical_type == "INT96" for c in found),
        write_page_index=any(c.has_column_index for c in found),
        sorting_columns=sorting or None,
    )
