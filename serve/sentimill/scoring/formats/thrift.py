"""Thrift's compact protocol, as far as a Parquet footer needs to be edited with it.

A struct is read into its fields without decoding their values, so whatever this program does not
know is written back byte for byte.
Source: https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

I32: Final = 5
I64: Final = 6
BINARY: Final = 8
LIST: Final = 9
STRUCT: Final = 12
_BOOLEANS: Final = (1, 2)
_INTEGERS: Final = (4, 5, 6)
_FIXED_BYTES: Final = {1: 0, 2: 0, 3: 1, 7: 8, 13: 16}


class Value(NamedTuple):
    """One value: its type in the compact protocol, and its bytes."""

    kind: int
    raw: bytes


Struct = dict[int, Value]
"""The fields of a struct by their ids."""


def parse(data: bytes) -> Struct:
    """Return the fields of the struct at the start of *data*. Raises ValueError if it is torn."""
    return _Scanner(data).struct()


def serialize(fields: Struct) -> bytes:
    """Return the bytes of a struct."""
    out = bytearray()
    last = 0
    for identifier, (kind, raw) in sorted(fields.items()):
        delta = identifier - last
        if 0 < delta <= 15:
            out.append(delta << 4 | kind)
        else:
            out += bytes((kind,)) + _varint(identifier << 1)
        out += raw
        last = identifier
    return bytes(out) + b"\0"


def items(value: Value) -> list[bytes]:
    """Return the bytes of each item of a list, in order."""
    scanner = _Scanner(value.raw)
    kind, count = scanner.list_header()
    return [scanner.skip(kind, in_list=True) for _ in range(count)]


def items_value(kind: int, raws: Sequence[bytes]) -> Value:
    """Return a list of items of one *kind*."""
    count = len(raws)
    head = bytes((count << 4 | kind,)) if count < 15 else bytes((0xF0 | kind,)) + _varint(count)
    return Value(LIST, head + b"".join(raws))


def number(value: Value) -> int:
    """Return a whole number."""
    found = _Scanner(value.raw).varint()
    return found >> 1 ^ -(found & 1)


def integer(kind: int, value: int) -> Value:
    """Return *value* as a field of *kind* I32 or I64."""
    return Value(kind, _varint(value << 1 ^ value >> 63))


def text(value: Value) -> bytes:
    """Return the bytes of a string."""
    scanner = _Scanner(value.raw)
    length = scanner.varint()
    return value.raw[scanner.at : scanner.at + length]


def binary(data: bytes) -> Value:
    """Return *data* as a string."""
    return Value(BINARY, _varint(len(data)) + data)


class _Scanner:
    """Walks over encoded values."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0

    def varint(self) -> int:
        found = shift = 0
        while True:
            byte = self._byte()
            found |= (byte & 0x7F) << shift
            if byte < 0x80:
                return found
            shift += 7

    def list_header(self) -> tuple[int, int]:
        head = self._byte()
        count = head >> 4
        return head & 0x0F, self.varint() if count == 15 else count

    def struct(self) -> Struct:
        fields: Struct = {}
        last = 0
        while head := self._byte():
            delta, kind = head >> 4, head & 0x0F
            if delta:
                last += delta
            else:
                found = self.varint()
                last = found >> 1 ^ -(found & 1)
            fields[last] = Value(kind, self.skip(kind))
        return fields

    def skip(self, kind: int, *, in_list: bool = False) -> bytes:
        """Return the bytes of a value and go behind it; a boolean has some only *in_list*."""
        begin = self.at
        if kind in _BOOLEANS and in_list:
            self.at += 1
        elif kind in _FIXED_BYTES:
            self.at += _FIXED_BYTES[kind]
        elif kind in _INTEGERS:
            self.varint()
        elif kind == BINARY:
            length = self.varint()
            self.at += length
        elif kind in (LIST, 10):
            inner, count = self.list_header()
            for _ in range(count):
                self.skip(inner, in_list=True)
        elif kind == 11:
            self._skip_map()
        elif kind == STRUCT:
            self._skip_struct()
        else:
            raise ValueError(f"unknown Thrift type {kind}")
        if self.at > len(self._data):
            raise ValueError("the Thrift data ends too early")
        return self._data[begin : self.at]

    def _skip_struct(self) -> None:
        while head := self._byte():
            if not head >> 4:
                self.varint()
            self.skip(head & 0x0F)

    def _skip_map(self) -> None:
        count = self.varint()
        kinds = self._byte() if count else 0
        for _ in range(count):
            self.skip(kinds >> 4, in_list=True)
            self.skip(kinds & 0x0F, in_list=True)

    def _byte(self) -> int:
        if self.at >= len(self._data):
            raise ValueError("the Thrift data ends too early")
        self.at += 1
        return self._data[self.at - 1]


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
