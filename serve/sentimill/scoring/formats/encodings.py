"""Text encodings of delimited files: where a line ends in bytes, and how it is decoded."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final

from sentimill.errors import TableError, UsageError
from sentimill.scoring.formats.csv_dialect import MAX_LINE_BYTES

_BOMS: Final = {
    "utf-32-le": codecs.BOM_UTF32_LE,
    "utf-32-be": codecs.BOM_UTF32_BE,
    "utf-8": codecs.BOM_UTF8,
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
}
_ASCII: Final = "".join(map(chr, range(0x20, 0x7F))) + "\t\r\n"
_ONE_BYTE: Final = ("utf-8", "ascii", "iso8859", "latin", "cp125")


@dataclass(frozen=True, slots=True)
class Encoding:
    """A text encoding. unit: bytes per code unit. bom: the file's byte-order mark, or empty."""

    codec: str
    unit: int
    bom: bytes

    @property
    def searchable(self) -> bool:
        """Whether a byte below 128 always is that ASCII character, and never part of another."""
        return self.codec.startswith(_ONE_BYTE)

    def encode(self, text: str) -> bytes:
        """Return *text* as bytes. Raises UnicodeEncodeError when the codec lacks a character."""
        return text.encode(self.codec)

    def decode(self, data: bytes) -> tuple[str, bool]:
        """Return the text of *data*, and whether it was valid.

        Invalid bytes become lone surrogates (U+FFFD in UTF-16 and UTF-32), never an error.
        """
        try:
            return data.decode(self.codec), True
        except UnicodeDecodeError:
            how = "surrogateescape" if self.unit == 1 else "replace"
            return data.decode(self.codec, how), False

    def lines(self, file: BinaryIO, limit: int = MAX_LINE_BYTES + 1) -> Iterator[bytes]:
        """Yield the lines of *file* with their ends; one longer than *limit* comes in pieces."""
        if self.unit == 1:
            while line := file.readline(limit):
                yield line
            return
        newline = self.encode("\n")
        while line := file.readline(limit):
            # The byte 0A may be half of another character: read until the line ends in a newline.
            while True:
                line += file.read(-len(line) % self.unit)
                if line.endswith(newline) or len(line) >= limit:
                    break
                more = file.readline(limit)
                if not more:
                    break
                line += more
            yield line


def encoding_of(name: str, wanted: str, first: bytes) -> Encoding:
    """Return the encoding *wanted* for the file *name* that begins with *first*.

    The byte-order mark must agree with it. Raises UsageError for a codec whose lines cannot be
    found as bytes, and TableError when the first bytes show another encoding.
    """
    try:
        codec = codecs.lookup(wanted).name
    except LookupError as error:
        why = f"unknown --encoding {wanted!r}: use a name that Python knows, such as latin-1"
        raise UsageError(why, reason="UNKNOWN_ENCODING") from error
    codec = {"utf-8-sig": "utf-8"}.get(codec, codec)
    found = next((k for k, mark in _BOMS.items() if first.startswith(mark)), None)
    unmarked = _wide_without_mark(first) if found is None else None
    if codec in ("utf-16", "utf-32"):
        if found is None or not found.startswith(codec):
            remedy = unmarked or f"{codec}-le or {codec}-be"
            why = f"{name} has no byte-order mark of {codec}: add --encoding {remedy}"
            raise TableError(why, reason="WRONG_ENCODING")
        codec = found
    elif codec == "utf-8" and found not in (None, "utf-8"):
        said = found[:6]
        why = f"{name} is {said.upper()}, as its byte-order mark says: add --encoding {said}"
        raise TableError(why, reason="NOT_UTF8")
    elif unmarked is not None and not codec.startswith(("utf-16", "utf-32")):
        why = f"{name} is {unmarked[:6].upper()} without a byte-order mark: add --encoding"
        why += f" {unmarked}"
        raise TableError(why, reason="NOT_UTF8")
    unit = 4 if codec.startswith("utf-32") else 2 if codec.startswith("utf-16") else 1
    if unit == 1 and not _contains_ascii(codec):
        why = f"--encoding {wanted}: lines cannot be found in its bytes: convert the file to UTF-8"
        raise UsageError(why, reason="UNKNOWN_ENCODING")
    bom = _BOMS.get(codec, b"")
    return Encoding(codec, unit, bom if bom and first.startswith(bom) else b"")


def _wide_without_mark(first: bytes) -> str | None:
    """Return the UTF-16 or UTF-32 codec of *first*, seen by the zero bytes of ASCII characters.

    It expects most characters to be ASCII, or at least the line ends.
    """
    for codec, unit in (("utf-32-le", 4), ("utf-32-be", 4), ("utf-16-le", 2), ("utf-16-be", 2)):
        little = codec.endswith("le")
        count = len(first) // unit
        zeros = [first[k : count * unit : unit].count(0) for k in range(unit)]
        low, high = (zeros[0], min(zeros[1:])) if little else (zeros[-1], min(zeros[:-1]))
        newline = "\n".encode(codec)
        lines = any(first.startswith(newline, at) for at in range(0, count * unit, unit))
        if count >= 4 and low < 0.1 * count and (high > 0.6 * count or (lines and high >= 4)):
            return codec
    return None


def _contains_ascii(codec: str) -> bool:
    """Say whether ASCII bytes mean ASCII. In codecs with shift states (ISO 2022) they do not."""
    if codec.startswith(("iso2022", "hz", "utf-7")):
        return False
    try:
        return _ASCII.encode(codec) == _ASCII.encode("ascii")
    except (UnicodeEncodeError, LookupError):
        return False
