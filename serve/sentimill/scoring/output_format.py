"""Output in the format of the target: the bytes of each window, and the file made from them.

Most formats are written window by window. Parquet and Excel are made at the end, from a stream of
Arrow batches: only the answers if the input has the same format, else whole rows.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from sentimill.errors import TableError, UsageError
from sentimill.scoring.answer_columns import AnswerSchema
from sentimill.scoring.formats.compression import pack
from sentimill.scoring.formats.csv_dialect import Dialect
from sentimill.scoring.formats.excel import (
    MAX_CELL_CHARACTERS,
    MAX_COLUMNS,
    MAX_ROWS,
    Cell,
    ExcelTable,
    cells_of,
    without_bytes,
    write_excel,
    write_rows,
)
from sentimill.scoring.formats.kinds import Kind
from sentimill.scoring.formats.parquet import ParquetTable, message
from sentimill.scoring.formats.parquet_writer import add_columns, check_output, write_new
from sentimill.scoring.formats.table import Layout, Table, Window
from sentimill.scoring.planning import Unit

_DELIMITERS: Final = {"csv": ",", "tsv": "\t"}


class OutputFormat:
    """How the rows of *table* and their answers become the target of *unit*."""

    def __init__(self, unit: Unit, table: Table, layout: Layout, columns: AnswerSchema) -> None:
        """Raise TableError or UsageError when the output cannot have its columns."""
        self._unit = unit
        self._table = table
        self._columns = columns
        self._kind = unit.target_kind
        self._delimiter = _DELIMITERS.get(self._kind.name) if unit.converts else None
        if unit.converts:
            self._schema = _converted_schema(unit, table, layout, columns)
        elif isinstance(table, ParquetTable):
            check_output(table, columns)
        if self._kind.name == "xlsx":
            kept = layout.keep or table.columns
            _check_width(unit, len(kept) + sum(name not in kept for name in columns.names))

    def head(self) -> bytes:
        """Return the bytes with which the data begins."""
        if self._delimiter is not None:
            line = Dialect(self._delimiter).write(self._schema.names) + "\n"
            return pack(line.encode(), self._kind.compression)
        if self._unit.converts:
            return bytes(self._schema.serialize())
        return pack(self._table.head(self._columns.names), self._kind.compression)

    def render(self, window: Window, added: pa.RecordBatch) -> bytes:
        """Return the bytes of a window. Raises TableError for a row that the format cannot hold."""
        if not self._unit.converts:
            if self._kind.name == "xlsx":
                _check_cells(self._unit, window, added)
            return pack(window.render(added), self._kind.compression)
        assert window.columns is not None, "planning allows no such conversion"
        rows = window.columns()
        for name, array in zip(added.schema.names, added.columns, strict=True):
            rows = rows.append_column(name, array)
        if self._delimiter is not None:
            return pack(_as_delimited(rows, self._delimiter), self._kind.compression)
        if self._kind.name == "xlsx":
            _check_cells(self._unit, window, rows)
        return message(rows)

    def finish(self, data: Path, step: Callable[[], None]) -> None:
        """Make the finished file, unless *data* already is it; *step* is called now and then."""
        made = finished_path(data, self._kind)
        if made == data:
            return
        with data.open("rb") as stream, made.open("wb") as target:
            if isinstance(self._table, ParquetTable):
                add_columns(self._table, stream, target, self._columns, step)
            elif self._kind.name == "parquet":
                write_new(self._schema, stream, target, step)
            elif isinstance(self._table, ExcelTable):
                write_excel(self._table, stream, target, self._columns, step)
            else:
                names = [*map(Cell, self._schema.names)]
                write_rows(chain([names], cells_of(stream)), target, step)
            target.flush()
            os.fsync(target.fileno())


def finished_path(data: Path, kind: Kind) -> Path:
    """Return the path of the finished file: *data* itself, except for Parquet and Excel."""
    return data.with_suffix(f".{kind.name}") if kind.name in ("parquet", "xlsx") else data


def _converted_schema(unit: Unit, table: Table, layout: Layout, columns: AnswerSchema) -> pa.Schema:
    """Return the columns of a converted table: those of the input as text, and the answers.

    Between them is a column with the bytes of malformed rows, if the input is a delimited file.
    """
    if layout.update:
        why = "--where-missing writes the format that it reads: give the output the same suffix as"
        raise UsageError(f"{why} {unit.source}", reason="NO_CONVERSION")
    fields = [pa.field(name, pa.string()) for name in layout.keep or table.columns]
    if unit.source_kind.name in _DELIMITERS:
        fields.append(pa.field(f"{columns.prefix}source", pa.binary()))
    schema = pa.schema([*fields, *columns.schema()])
    twice = next((name for name, count in Counter(schema.names).items() if count > 1), None)
    if twice is not None:
        why = f"{unit.target} would have two columns named {twice!r}: rename one in the input, or"
        raise TableError(f"{why} choose another --prefix", reason="DUPLICATE_COLUMN")
    return schema


def _as_delimited(rows: pa.Table, delimiter: str) -> bytes:
    dialect = Dialect(delimiter)
    texts = [column.cast(pa.string()).to_pylist() for column in rows.columns]
    lines = (dialect.write([cell or "" for cell in row]) for row in zip(*texts, strict=True))
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "replace")


def _check_width(unit: Unit, count: int) -> None:
    """Raise TableError for more columns than a sheet of Excel has."""
    if count > MAX_COLUMNS:
        why = f"{unit.target} would have {count:,} columns, and a sheet of Excel has"
        why += f" {MAX_COLUMNS:,}: keep fewer with --only-columns, or write CSV or Parquet"
        raise TableError(why, reason="TOO_LARGE_FOR_EXCEL")


def _check_cells(unit: Unit, window: Window, rows: pa.Table | pa.RecordBatch) -> None:
    """Raise TableError for rows and cells that are too large for Excel."""
    remedy = "write CSV or Parquet, which have no such limit"
    if window.end.rows > MAX_ROWS:
        why = f"{unit.source} has more than the {MAX_ROWS:,} rows of an Excel sheet: {remedy}"
        raise TableError(why, reason="TOO_LARGE_FOR_EXCEL")
    for name, column in zip(rows.schema.names, rows.columns, strict=True):
        longest = _longest(column)
        if longest > MAX_CELL_CHARACTERS:
            why = (
                f"{unit.source} has a {name!r} of {longest:,} characters as Excel counts them, and"
            )
            why += f" a cell of Excel takes {MAX_CELL_CHARACTERS:,}: {remedy}"
            raise TableError(why, reason="TOO_LARGE_FOR_EXCEL")


def _longest(column: pa.Array | pa.ChunkedArray) -> int:
    """Return the length of the longest value, counted as Excel does: in UTF-16 code units.

    So an emoji counts as two. A value that is surely within the limit may count as 0.
    """
    if not (pa.types.is_string(column.type) or pa.types.is_binary(column.type)):
        return 0
    # No text has more code units than bytes. A byte that is not UTF-8 is written as `\\xff`.
    bytes_within = MAX_CELL_CHARACTERS // (4 if pa.types.is_binary(column.type) else 1)
    long = pc.filter(column, pc.greater(pc.binary_length(column), bytes_within)).to_pylist()
    texts = [str(without_bytes(value)) for value in long]
    return max((len(text.encode("utf-16-le")) // 2 for text in texts), default=0)
