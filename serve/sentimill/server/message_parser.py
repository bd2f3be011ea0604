"""Parses the bytes of a call, after counting their fields without building a message.

A message of 4 MiB can hold two million empty items. Protobuf would build an object for each while
the event loop waits, and it needs 60 ms for unknown fields. So all fields are first counted in the
serialized bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar

from google.protobuf.message import DecodeError, Message

from sentimill.errors import InputError, TextError

M = TypeVar("M", bound=Message)

_MOST_QUOTED: Final = 100
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True, slots=True)
class FieldLimit:
    """How many fields a serialized message may have; each entry of a list counts.

    path: the name of the list in errors. inside: limits of the messages in it, by field number.
    """

    most: int
    path: str
    inside: Mapping[int, FieldLimit] = field(default_factory=dict)


SMALL: Final = FieldLimit(64, "the message")
"""The limit of a message without lists."""


def parse(kind: type[M], data: bytes, limit: FieldLimit = SMALL) -> M:
    """Return the message in *data*. Raises InputError."""
    try:
        _check(memoryview(data), limit)
        return kind.FromString(data)
    except DecodeError as error:
        raise InputError(
            f"the message is not a {kind.DESCRIPTOR.full_name} (malformed, or a `text` that is not"
            " UTF-8; send such texts as `utf8`)",
            reason="MALFORMED_REQUEST",
        ) from error


def decode(data: bytes) -> str | TextError:
    """Return the text in *data*, or its error if it is not UTF-8."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        return TextError(
            f"utf8 is not valid UTF-8 at byte {error.start}: decode it from its own encoding first",
            reason="INVALID_UNICODE",
        )


def quoted(sent: str) -> str:
    """Return what a caller *sent*, quoted for an error message: at most 100 characters."""
    return shortened(repr(sent[:_MOST_QUOTED]))


def shortened(shown: str) -> str:
    """Return the first 100 characters of *shown*."""
    return shown if len(shown) <= _MOST_QUOTED else shown[: _MOST_QUOTED - 1] + "…"


def _check(data: memoryview, limit: FieldLimit) -> None:
    """Count the fields of a message (protobuf.dev, "Encoding"), also inside those with limits.

    Raises InputError above *limit*, and DecodeError for bytes that no client of this service sends,
    groups included.
    """
    end = len(data)
    if not limit.inside and end <= 2 * limit.most:
        return  # a field has two bytes at least
    at = count = 0
    while at < end:
        count += 1
        if count > limit.most:
            raise InputError(
                f"{limit.path} has more than {limit.most} entries: split the list into several"
                " requests",
                reason="ITEM_COUNT",
                field=limit.path,
            )
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == _BYTES:
            size, begin = _varint(data, at)
            at = begin + size
            inner = limit.inside.get(tag >> 3)
            if inner is not None and at <= end:
                _check(data[begin:at], inner)
        elif kind == _VARINT:
            _, at = _varint(data, at)
        elif kind in (_FIXED32, _FIXED64):
            at += 4 if kind == _FIXED32 else 8
        else:
            raise DecodeError("unknown wire type")
        if at > end:
            raise DecodeError("the message ends inside a field")


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """Return the number at a place in *data*, and the place after it."""
    value = shift = 0
    while at < len(data) and shift < 70:
        byte = data[at]
        at += 1
        if byte < 0x80:
            return value | byte << shift, at
        value |= (byte & 0x7F) << shift
        shift += 7
    raise DecodeError("the message ends inside a number")
