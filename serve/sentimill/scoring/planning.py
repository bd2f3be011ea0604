"""Turns addresses into units of work: one input and one output each, with their formats."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from typing import Final

from sentimill.errors import TableError, UsageError
from sentimill.scoring.answer_columns import AnswerSchema
from sentimill.scoring.formats.compression import Stream, reading
from sentimill.scoring.formats.csv import DelimitedTable
from sentimill.scoring.formats.excel import ExcelTable
from sentimill.scoring.formats.jsonlines import JsonTable
from sentimill.scoring.formats.kinds import Kind, kind_of, promises_format, stem_of
from sentimill.scoring.formats.parquet import ParquetTable
from sentimill.scoring.formats.table import Layout, Table
from sentimill.scoring.storage import (
    STANDARD,
    find,
    identity,
    is_folder,
    is_remote,
    local,
    open_input,
)

_CONVERSIONS: Final = {
    ("csv", "parquet"),
    ("csv", "xlsx"),
    ("tsv", "parquet"),
    ("tsv", "xlsx"),
    ("xlsx", "csv"),
    ("xlsx", "parquet"),
    ("xlsx", "tsv"),
}


@dataclass(frozen=True, slots=True)
class Unit:
    """One input and the output that it becomes."""

    source: str
    target: str
    source_kind: Kind
    target_kind: Kind

    @property
    def converts(self) -> bool:
        """Whether the output has another format than the input."""
        return self.source_kind.name != self.target_kind.name


def plan(
    sources: Sequence[str], target: str, *, kind: str | None = None, target_kind: str | None = None
) -> list[Unit]:
    """Return the units for *sources*; several inputs go into the folder *target*.

    kind, target_kind: formats such as `csv.gz` if the names do not tell them. Raises TableError
    or UsageError for names without a format, and for a conversion that does not exist.
    """
    found = find(sources)
    if STANDARD in found and len(found) > 1:
        raise UsageError("standard input cannot be one of several inputs", reason="BAD_INPUTS")
    into_folder = is_folder(target)
    if len(found) > 1 and not into_folder:
        why = f"{len(found)} inputs need a folder for their outputs: name one ending in /, such as"
        why += f" {target}/"
        raise UsageError(why, reason="NOT_A_FOLDER")
    units: list[Unit] = []
    names = _names(found) if into_folder else found
    for source, name in zip(found, names, strict=True):
        if kind is None and promises_format(source):
            why = f"{source} has a format that score does not read: unpack it, or convert it to"
            why += " csv; if only its name is wrong, name the format with --format"
            raise TableError(why, reason="UNKNOWN_FORMAT")
        read = kind_of("standard input" if source == STANDARD else source, kind)
        if into_folder:
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
    if unit.converts and (read, written) not in _CONVERSIONS:
        others = [to for source, to in sorted(_CONVERSIONS) if source == read]
        able = " or ".join([read, *others])
        why = f"{unit.source} is {read} and {unit.target} is {written}: score can write {read} as"
        why += f" {able}, so name the output .{read}"
        raise UsageError(why, reason="NO_CONVERSION")
    for address, kind in ((unit.source, read), (unit.target, written)):
        if address == STANDARD and kind in ("parquet", "xlsx"):
            why = f"{kind} needs a file, because it is read and written from its end: name one"
            raise UsageError(why, reason="NEEDS_FILE")


def _names(found: Sequence[str]) -> list[str]:
    """Return the path of each output below the output folder.

    It is the path of the input below the folder that contains all of *found*, so that equal names
    stay apart.
    """
    if not any(map(is_remote, found)):
        paths = [os.path.abspath(local(source)) for source in found]
        root = os.path.commonpath([os.path.dirname(path) for path in paths])
        return [os.path.relpath(path, root) for path in paths]
    parts = [source.split("/")[:-1] for source in found]
    same = takewhile(lambda names: len(set(names)) == 1, zip(*parts, strict=False))
    root = "/".join(names[0] for names in same)
    names = [source.removeprefix(root).lstrip("/") for source in found]
    for source, name in zip(found, names, strict=True):
        if is_remote(name) or name.startswith("file:") or ".." in name.split("/"):
            why = f"{source} is not below a folder that also contains the other inputs, so its"
            raise UsageError(
                f"{why} output has no place: score it in a job of its own", reason="BAD_INPUTS"
            )
    return names


@contextmanager
def open_table(unit: Unit, layout: Layout, columns: AnswerSchema) -> Iterator[Table]:
    """Open the input of *unit*, and check its header against *layout* and *columns*."""
    name, kind = unit.source, unit.source_kind
    raw = open_input(unit.source)
    try:
        with reading(name):
            if kind.name in ("parquet", "xlsx"):
                read = ParquetTable if kind.name == "parquet" else ExcelTable
                size = identity(name, sample=False).size_bytes
                yield read(raw, name=name, size_bytes=size, layout=layout, columns=columns)
            elif kind.name in ("json", "jsonl"):
                yield JsonTable(Stream(raw, name, kind), layout, columns)
            else:
                stream = Stream(raw, name, kind)
                yield DelimitedTable(stream, layout, columns, whole_fields=unit.converts)
    finally:
        if name != STANDARD:
            raw.close()
