"""Reads the footer of a Parquet file, adds columns, and writes it again.

Everything else stays as it was written, even fields that this program does not know. Field numbers
are those of https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import BinaryIO, Final

import pyarrow as pa

from sentimill.errors import TableError
from sentimill.scoring.formats import thrift
from sentimill.scoring.formats.thrift import BINARY, I32, I64, STRUCT, Struct, Value

MAGIC: Final = b"PAR1"
_TAIL_BYTES: Final = 8
_ARROW_SCHEMA: Final = b"ARROW:schema"
_OPTIONAL: Final = 1


class _File(IntEnum):
    SCHEMA = 2
    NUM_ROWS = 3
    ROW_GROUPS = 4
    KEY_VALUES = 5
    COLUMN_ORDERS = 7
    ENCRYPTION = 8


class _Element(IntEnum):
    REPETITION = 3
    NAME = 4
    CHILDREN = 5
    FIELD_ID = 9


class _Group(IntEnum):
    COLUMNS = 1
    BYTES = 2
    NUM_ROWS = 3
    SORTING = 4
    OFFSET = 5
    COMPRESSED_BYTES = 6


class _Chunk(IntEnum):
    FILE_PATH = 1
    OFFSET = 2
    METADATA = 3


class _Metadata(IntEnum):
    VALUES = 5
    BYTES = 6
    COMPRESSED_BYTES = 7
    DATA_OFFSET = 9
    INDEX_OFFSET = 10
    DICTIONARY_OFFSET = 11
    STATISTICS = 12
    ENCODING_STATISTICS = 13


# Positions of the page index and the bloom filter, and statistics of sizes. They are dropped when a
# chunk is moved, because the data that they point to is not moved.
_CHUNK_INDEX: Final = (4, 5, 6, 7)
_MOVED: Final = (14, 15)


@dataclass(slots=True)
class Chunk:
    """The values of one leaf column in one row group: a ColumnChunk."""

    fields: Struct

    @property
    def metadata(self) -> Struct:
        """Its ColumnMetaData."""
        found: Struct = self.fields[_Chunk.METADATA].data
        return found

    def number(self, field: int) -> int:
        """Return a number of the metadata, 0 where it is absent."""
        return int(self.metadata[field].data) if field in self.metadata else 0

    @property
    def start(self) -> int:
        """The file offset of its first page."""
        offsets = map(self.number, (_Metadata.DATA_OFFSET, *_PAGES))
        return min((offset for offset in offsets if offset), default=0)

    @property
    def size(self) -> int:
        """Its bytes in the file."""
        return self.number(_Metadata.COMPRESSED_BYTES)

    def moved(self, to: int) -> Chunk:
        """Return the chunk as it is after its bytes were copied to the offset *to*."""
        shift = to - self.start
        metadata = {k: v for k, v in self.metadata.items() if k not in _MOVED}
        for field in (_Metadata.DATA_OFFSET, *_PAGES):
            if self.number(field):
                metadata[field] = Value(I64, self.number(field) + shift)
        fields = {k: v for k, v in self.fields.items() if k not in _CHUNK_INDEX}
        if _Chunk.OFFSET in fields and fields[_Chunk.OFFSET].data:
            fields[_Chunk.OFFSET] = Value(I64, to)
        return Chunk({**fields, _Chunk.METADATA: Value(STRUCT, metadata)})

    def joined(self, others: Sequence[Chunk]) -> Chunk:
        """Describe its pages followed by those of *others*, none of which has a dictionary."""
        if not others:
            return self
        dropped = (_Metadata.STATISTICS, _Metadata.ENCODING_STATISTICS, 16)
        metadata = {k: v for k, v in self.metadata.items() if k not in dropped}
        for field in (_Metadata.VALUES, _Metadata.BYTES, _Metadata.COMPRESSED_BYTES):
            metadata[field] = Value(I64, sum(chunk.number(field) for chunk in (self, *others)))
        return Chunk({**self.fields, _Chunk.METADATA: Value(STRUCT, metadata)})


_PAGES: Final = (_Metadata.INDEX_OFFSET, _Metadata.DICTIONARY_OFFSET)


@dataclass(slots=True)
class Footer:
    """The footer of a file. begin: its offset, where the data ends.

    fields: of FileMetaData. elements: its schema, the root first, then depth first.
    """

    begin: int
    fields: Struct
    elements: list[Struct]

    @property
    def row_groups(self) -> list[Struct]:
        """The row groups."""
        return thrift.items(self.fields[_File.ROW_GROUPS])

    def columns(self) -> dict[int, range]:
        """Return, for each top-level column, the indices of its leaves; keys are its elements."""
        found: dict[int, range] = {}
        at, leaf = 1, 0
        while at < len(self.elements):
            end, leaves = self._subtree(at)
            found[at] = range(leaf, leaf + leaves)
            at, leaf = end, leaf + leaves
        return found

    def names(self) -> list[str]:
        """Return the names of the top-level columns."""
        return [self._name(at) for at in self.columns()]

    def _name(self, at: int) -> str:
        return str(self.elements[at][_Element.NAME].data, "utf-8")

    def _subtree(self, at: int) -> tuple[int, int]:
        """Return the index after the element *at* and its children, and its count of leaves."""
        children = self.elements[at].get(_Element.CHILDREN)
        if children is None or not children.data:
            return at + 1, 1
        leaves = 0
        at += 1
        for _ in range(children.data):
            at, more = self._subtree(at)
            leaves += more
        return at, leaves

    def with_columns(
        self, kept: Sequence[int], added: Footer, arrow: Callable[[pa.Schema], pa.Schema]
    ) -> Footer:
        """Return a footer without row groups, of the columns *kept* (by position) and *added*.

        An added column replaces a kept column of the same name. arrow: changes the Arrow schema
        that Arrow's writers store, if there is one.
        """
        ours = dict(zip(added.names(), added.columns(), strict=True))
        orders = self._orders()
        columns = list(self.columns().items())
        elements, order = [dict(self.elements[0])], []
        for position in kept:
            at, leaves = columns[position]
            if (name := self._name(at)) in ours:
                element = dict(added.elements[ours.pop(name)])
                if _Element.FIELD_ID in self.elements[at]:
                    element[_Element.FIELD_ID] = self.elements[at][_Element.FIELD_ID]
                elements.append(element)
            else:
                elements += self.elements[at : self._subtree(at)[0]]
            order += [orders[k] for k in leaves] if orders else []
        elements += [added.elements[at] for at in ours.values()]
        order += added._orders()[: len(ours)] if orders else []
        elements[0][_Element.CHILDREN] = Value(I32, len(kept) + len(ours))
        fields = dict(self.fields)
        fields[_File.SCHEMA] = thrift.structs(elements)
        fields[_File.ROW_GROUPS] = thrift.structs([])
        if orders:
            fields[_File.COLUMN_ORDERS] = thrift.structs(order)
        if _File.KEY_VALUES in fields:
            pairs = thrift.items(fields[_File.KEY_VALUES])
            fields[_File.KEY_VALUES] = thrift.structs([_with_arrow_schema(p, arrow) for p in pairs])
        return Footer(self.begin, fields, elements)

    def serialize(self, groups: Sequence[Struct], rows: int) -> bytes:
        """Return the end of a file: footer, its length, and the magic number."""
        fields = dict(self.fields)
        fields[_File.ROW_GROUPS] = thrift.structs(groups)
        fields[_File.NUM_ROWS] = Value(I64, rows)
        data = thrift.serialize(fields)
        return data + len(data).to_bytes(4, "little") + MAGIC

    def _orders(self) -> list[Struct]:
        value = self.fields.get(_File.COLUMN_ORDERS)
        return thrift.items(value) if value else []


def row_group(group: Struct, chunks: Sequence[Chunk], *, moved: bool) -> Struct:
    """Return *group* with other *chunks*; *moved* says that all of them have new positions."""
    fields = dict(group)
    fields[_Group.COLUMNS] = thrift.structs([chunk.fields for chunk in chunks])
    fields[_Group.BYTES] = Value(I64, sum(chunk.number(_Metadata.BYTES) for chunk in chunks))
    if _Group.COMPRESSED_BYTES in fields:
        fields[_Group.COMPRESSED_BYTES] = Value(I64, sum(chunk.size for chunk in chunks))
    if moved:
        fields.pop(_Group.SORTING, None)  # its column numbers are those of the input
        if _Group.OFFSET in fields:
            fields[_Group.OFFSET] = Value(I64, min(chunk.start for chunk in chunks))
    return fields


def chunks_of(group: Struct) -> list[Chunk]:
    """Return the chunks of a row group, in the order of the leaves."""
    return [*map(Chunk, thrift.items(group[_Group.COLUMNS]))]


def rows_of(group: Struct) -> int:
    """Return how many rows a row group has."""
    return int(group[_Group.NUM_ROWS].data)


def read_footer(file: BinaryIO, name: str) -> Footer:
    """Read the footer of the Parquet file *name*, which pyarrow has opened before.

    Raises TableError for a file whose columns cannot be copied as bytes.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(size - _TAIL_BYTES)
    tail = file.read(_TAIL_BYTES)
    length = int.from_bytes(tail[:4], "little")
    begin = size - _TAIL_BYTES - length
    file.seek(begin)
    fields = thrift.parse(file.read(length))
    footer = Footer(begin, fields, thrift.items(fields[_File.SCHEMA]))
    external = any(
        _Chunk.FILE_PATH in chunk.fields
        for group in footer.row_groups[:1]
        for chunk in chunks_of(group)
    )
    if external or _File.ENCRYPTION in fields or tail[4:] != MAGIC:
        what = "has its data in other files" if external else "is encrypted"
        why = (
            f"{name} {what}, so its columns cannot be kept as they are: write it as one plain file"
        )
        raise TableError(why, reason="UNREADABLE")
    return footer


def _with_arrow_schema(fields: Struct, change: Callable[[pa.Schema], pa.Schema]) -> Struct:
    """Return the KeyValue *fields*; if it holds the Arrow schema, that is changed."""
    if fields[1].data != _ARROW_SCHEMA or 2 not in fields:
        return fields
    schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(fields[2].data)))
    stored = base64.b64encode(bytes(change(schema).serialize()))
    return {**fields, 2: Value(BINARY, stored)}
