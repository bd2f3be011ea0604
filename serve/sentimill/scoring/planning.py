"""From addresses to units of work: one input, one output, and how each is read and written."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from typing import Final

import pyarrow as pa

from sentimill.errors import TableError, UsageError
from sentimill.scoring.answer_columns import AnswerSchema
from sentimill.scoring.formats.compression import Stream, reading
from sentimill.scoring.formats.csv import DelimitedTable
from sentimill.scoring.formats.jsonlines import JsonTable
from sentimill.scoring.formats.kinds import Kind, kind_of, promises_format, stem_of
from sentimill.scoring.formats.parquet import ParquetTable
from sentimill.scoring.formats.parquet_writer import check_output as check_parquet
from sentimill.scoring.formats.table import Layout, Table
from sentimill.scoring.storage import STANDARD, find, identity, is_folder, is_remote, open_input

__all__ = ["Unit", "check_output", "converted_schema", "open_table", "plan"]

_DELIMITED: Final = ("csv", "tsv")


@dataclass(frozen=True, slots=True)
class Unit:
    """One input and the output that it becomes."""

    source: str
    target: str
    source_kind: Kind
    target_kind: Kind

    @property
    def converts(self) -> bool:
        """Whether the rows change their format, and not only get answers."""
        return self.source_kind.name != self.target_kind.name


def plan(
    sources: Sequence[str], target: str, *, kind: str | None = None, target_kind: str | None = None
) -> list[Unit]:
    """Return the units for *sources*; several inputs go into the folder *target*.

    kind, target_kind: formats such as `csv.gz` where the names do not say. Raises TableError or
    UsageError for names that say nothing, or two formats that do not go together.
    """
    found = find(sources)
    if STANDARD in found and len(found) > 1:
        raise UsageError("standard input cannot be one of several inputs", reason="BAD_INPUTS")
    into_folder = is_folder(target)
    if len(found) > 1 and not into_folder:
        why = f"{len(found)} inputs need a folder for their outputs: make {target} one, ending in /"
        raise UsageError(why, reason="NOT_A_FOLDER")
    units: list[Unit] = []
    root = _common(found) if into_folder else ""
    for source in found:
        read = kind_of("standard input" if source == STANDARD else source, kind)
        if into_folder:
            name = source.removeprefix(root).lstrip("/")
            written = kind_of(name, target_kind) if target_kind else read
            if target_kind:
                name = f"{stem_of(name)}.{target_kind}"
            units.append(Unit(source, f"{target.rstrip('/')}/{name}", read, written))
        else:
            units.append(Unit(source, target, read, _target_kind(target, target_kind, read)))
    for unit in units:
        _check_kinds(unit)
    targets = [unit.target for unit in units]
    if len(set(targets)) < len(targets):
        twice = next(target for target in targets if targets.count(target) > 1)
        why = f"two inputs would both become {twice}: score them in two jobs"
        raise UsageError(why, reason="OUTPUT_COLLISION")
    return units


def check_output(unit: Unit, table: Table, layout: Layout, columns: AnswerSchema) -> None:
    """Raise TableError or UsageError when the output of *unit* cannot have its columns."""
    if isinstance(table, ParquetTable):
        check_parquet(table, columns)
    if unit.converts:
        converted_schema(unit, table, layout, columns)


def converted_schema(unit: Unit, table: Table, layout: Layout, columns: AnswerSchema) -> pa.Schema:
    """Return the columns of a converted table: text, the bytes of odd rows, the answers."""
    names = [*(layout.keep or table.columns), f"{columns.prefix}source", *columns.names]
    if layout.update:
        why = "--where-missing writes the format that it reads: give the output the same suffix as"
        raise UsageError(f"{why} {unit.source}", reason="NO_CONVERSION")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        why = f"{unit.target} would have two columns named {twice!r}, which Parquet cannot have:"
        why += " rename one in the input, or choose another --prefix"
        raise TableError(why, reason="DUPLICATE_COLUMN")
    fields = [pa.field(name, pa.string()) for name in names[: -1 - len(columns.names)]]
    fields.append(pa.field(f"{columns.prefix}source", pa.binary()))
    return pa.schema([*fields, *columns.schema()])


def _target_kind(target: str, wanted: str | None, read: Kind) -> Kind:
    if wanted:
        return kind_of(target, wanted)
    try:
        return kind_of(target)
    except TableError:
        if promises_format(target):
            raise
        return read


def _check_kinds(unit: Unit) -> None:
    read, written = unit.source_kind.name, unit.target_kind.name
    if unit.converts and not (read in _DELIMITED and written == "parquet"):
        why = f"{unit.source} is {read} and {unit.target} {written}: score writes the format that"
        why += " it reads, and Parquet from CSV and TSV"
        raise UsageError(why, reason="NO_CONVERSION")
    for address, kind in ((unit.source, read), (unit.target, written)):
        if address == STANDARD and kind == "parquet":
            why = "Parquet needs a file: its footer is at the end"
            raise UsageError(why, reason="PARQUET_NEEDS_FILE")


def _common(found: Sequence[str]) -> str:
    """Return the folder that all of *found* are in, so that two of one name stay apart."""
    folders = [source.rpartition("/")[0] for source in found]
    if any(is_remote(source) for source in found):
        parts = [folder.split("/") for folder in folders]
        same = takewhile(lambda names: len(set(names)) == 1, zip(*parts, strict=False))
        return "/".join(names[0] for names in same)
    return os.path.commonpath(folders) if all(folders) else ""


@contextmanager
def open_table(unit: Unit, layout: Layout, columns: AnswerSchema) -> Iterator[Table]:
    """Open the input of *unit*, and check its header against *layout* and *columns*."""
    name, kind = unit.source, unit.source_kind
    raw = open_input(unit.source)
    try:
        with reading(name):
            if kind.name == "parquet":
                size = identity(name, sample=False).size_bytes
                yield ParquetTable(raw, name=name, size_bytes=size, layout=layout, columns=columns)
            elif kind.name in ("json", "jsonl"):
                stream = Stream(raw, name, kind)
                yield JsonTable(stream, kind, name=name, layout=layout, columns=columns)
            else:
                yield DelimitedTable(
                    Stream(raw, name, kind),
                    kind,
                    name=name,
                    layout=layout,
                    columns=columns,
                    whole_fields=unit.converts,
                )
    finally:
        if name != STANDARD:
            raw.close()
