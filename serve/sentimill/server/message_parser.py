"""Bytes of a call to messages and texts, with bounds that are checked before anything is built.

A message of 4 MiB can hold two million empty items. Protobuf would build an object for each while
the event loop waits, so the fields are counted in the serialized bytes first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar

from google.protobuf.message import DecodeError, Message

from sentimill.errors import InputError, TextError

__all__ = ["FieldLimit", "decode", "parse", "quoted", "shortened"]

M = TypeVar("M", bound=Message)

_MOST_QUOTED: Final = 100
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True, slots=True)
class FieldLimit:
    """How many fields a serialized message may have, each entry of a list counted.

    path: of the list, as errors name it. inside: the limits of its messages, by field number.
    """

    most: int
    path: str
    inside: Mapping[int, FieldLimit] = field(default_factory=dict)


def parse(kind: type[M], data: bytes, limit: FieldLimit | None = None) -> M:
    """Return the message in *data*. Raises InputError."""
    try:
        if limit is not None:
            _check(memoryview(data), limit)
        return kind.FromString(data)
    except DecodeError as error:
        raise InputError(
            f"the message is not a {kind.DESCRIPTOR.full_name} (malformed, or a `text` that is not"
            " UTF-8; send such texts as `utf8`)",
            reason="MALFORMED_REQUEST",
        ) from error


def decode(data: bytes) -> str | TextError:
    """Return the text in *data*, or its error where that is not UTF-8."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        return TextError(
            f"utf8 is not valid UTF-8 at byte {error.start}: decode it from its own encoding first",
            reason="INVALID_UNICODE",
        )


def quoted(sent: str) -> str:
    """Return what a caller *sent* as an error message may quote it: at most 100 characters."""
    return shortened(repr(sent[:_MOST_QUOTED]))


def shortened(shown: str) -> str:
    """Return the first 100 characters of *shown*."""
    return shown if len(shown) <= _MOST_QUOTED else shown[: _MOST_QUOTED - 1] + "…"


def _check(data: memoryview, limit: FieldLimit) -> None:
    if not limit.inside and len(data) <= 2 * limit.most:
        return  # a field has two bytes at least
    for number, value in _fields(data, limit):
        if (inner := limit.inside.get(number)) is not None:
            _check(value, inner)


def _fields(data: memoryview, limit: FieldLimit) -> Iterator[tuple[int, memoryview]]:
    """Yield the number and the bytes of each field (protobuf.dev, "Encoding").

    The bytes are empty where the value is a number. Raises InputError past *limit*, and DecodeError
    for what no client of this service sends, groups included.
    """
    at, count = 0, 0
    while at < len(data):
        count += 1
        if count > limit.most:
            raise InputError(
                f"{limit.path} has more than {limit.most} entries: split the list into several"
                " requests",
                reason="ITEM_COUNT",
                field=limit.path,
            )
        tag, at = _varint(data, at)
        begin = at
        if tag & 7 == _BYTES:
            size, begin = _varint(data, at)
            at = begin + size
        elif tag & 7 == _VARINT:
            _, at = _varint(data, at)
            begin = at
        elif tag & 7 in (_FIXED32, _FIXED64):
            begin = at = at + (4 if tag & 7 == _FIXED32 else 8)
        else:
            raise DecodeError("unknown wire type")
        if at > len(data):
            raise DecodeError("the message ends inside a field")
        yield tag >> 3, data[begin:at]


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """Return the number at a place in *data*, and the place behind it."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise DecodeError("the message ends inside a number")
