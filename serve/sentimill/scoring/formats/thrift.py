"""Thrift's compact protocol, as far as it is needed to edit a Parquet footer.

A struct is read into its fields with their types, so fields that this program does not know are
written unchanged.
Source: https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

I32: Final = 5
I64: Final = 6
BINARY: Final = 8
LIST: Final = 9
SET: Final = 10
MAP: Final = 11
STRUCT: Final = 12
_BOOLEANS: Final = (1, 2)
_INTEGERS: Final = (4, I32, I64)
_FIXED_BYTES: Final = {3: 1, 7: 8, 13: 16}


class Value(NamedTuple):
    """A value and its type in the compact protocol.

    data: int for an integer, `Struct` for a struct, (item type, items) for a list or a set,
    ((key type, value type), keys and values in turn) for a map, else bytes.
    """

    kind: int
    data: Any


Struct = dict[int, Value]
"""The fields of a struct by their ids."""


def items(value: Value) -> list[Any]:
    """Return the data of the items of a list."""
    found: list[Any] = value.data[1]
    return found


def structs(found: Sequence[Struct]) -> Value:
    """Return a list of structs."""
    return Value(LIST, (STRUCT, [*found]))


def parse(data: bytes) -> Struct:
    """Return the fields of the struct at the start of *data*. Raises ValueError if it is torn."""
    return _Reader(data).struct()


class _Reader:
    """Reads one value after the other."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def struct(self) -> Struct:
        fields: Struct = {}
        last = 0
        while head := self._take(1)[0]:
            last = last + (head >> 4) if head >> 4 else self._integer()
            fields[last] = Value(head & 15, self._value(head & 15))
        return fields

    def _value(self, kind: int, *, in_list: bool = False) -> Any:
        if kind in _BOOLEANS:  # the type of a field is its value; an item has a byte
            return self._take(int(in_list))
        if kind in _FIXED_BYTES:
            return self._take(_FIXED_BYTES[kind])
        if kind in _INTEGERS:
            return self._integer()
        if kind == BINARY:
            return self._take(self._varint())
        if kind in (LIST, SET):
            head = self._take(1)[0]
            count = self._varint() if head >> 4 == 15 else head >> 4
            return head & 15, [self._value(head & 15, in_list=True) for _ in range(count)]
        if kind == MAP:
            count = self._varint()
            kinds = self._take(1)[0] if count else 0
            pair = (kinds >> 4, kinds & 15)
            return pair, [self._value(one, in_list=True) for _ in range(count) for one in pair]
        if kind == STRUCT:
            return self.struct()
        raise ValueError(f"unknown Thrift type {kind}")

    def _integer(self) -> int:
        found = self._varint()
        return found >> 1 ^ -(found & 1)

    def _varint(self) -> int:
        found = shift = 0
        while True:
            byte = self._take(1)[0]
            found |= (byte & 0x7F) << shift
            if byte < 0x80:
                return found
            shift += 7

    def _take(self, size: int) -> bytes:
        self._at += size
        if self._at > len(self._data):
            raise ValueError("the Thrift data ends too early")
        return self._data[self._at - size : self._at]


def serialize(fields: Struct) -> bytes:
    """Return the bytes of a struct."""
    out = bytearray()
    last = 0
    for identifier, (kind, data) in sorted(fields.items()):
        delta = identifier - last
        short = 0 < delta <= 15
        out += bytes((delta << 4 | kind,)) if short else bytes((kind,)) + _integer(identifier)
        out += _bytes(kind, data)
        last = identifier
    return bytes(out) + b"\0"


def _bytes(kind: int, data: Any) -> bytes:
    if kind in _INTEGERS:
        return _integer(data)
    if kind == BINARY:
        return _varint(len(data)) + bytes(data)
    if kind == STRUCT:
        return serialize(data)
    if kind in (LIST, SET):
        inner, found = data
        count = len(found)
        head = bytes((count << 4 | inner,)) if count < 15 else bytes((0xF0 | inner,))
        more = b"" if count < 15 else _varint(count)
        return head + more + b"".join(_bytes(inner, one) for one in found)
    if kind == MAP:
        (keys, values), found = data
        head = _varint(len(found) // 2) + (bytes((keys << 4 | values,)) if found else b"")
        return head + b"".join(_bytes((keys, values)[k % 2], one) for k, one in enumerate(found))
    return bytes(data)


def _integer(value: int) -> bytes:
    return _varint(value << 1 ^ value >> 63)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
