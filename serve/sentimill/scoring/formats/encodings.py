"""Text encodings of delimited files: where a line ends in bytes, and how it decodes."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final

from sentimill.errors import TableError, UsageError
from sentimill.scoring.formats.table import MAX_RECORD_BYTES

__all__ = ["Encoding", "encoding_of"]

_BOMS: Final = {
    "utf-8": codecs.BOM_UTF8,
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
    "utf-32-le": codecs.BOM_UTF32_LE,
    "utf-32-be": codecs.BOM_UTF32_BE,
}
_ASCII: Final = "".join(map(chr, range(0x20, 0x7F))) + "\t\r\n"


@dataclass(frozen=True, slots=True)
class Encoding:
    """A codec as bytes: `unit` bytes a code unit, and the mark that the file began with."""

    codec: str
    unit: int
    bom: bytes

    def encode(self, text: str) -> bytes:
        """Return *text* as bytes. Raises UnicodeEncodeError when the codec lacks a character."""
        return text.encode(self.codec)

    def decode(self, data: bytes) -> tuple[str, bool]:
        """Return the text of *data*, and whether it was valid.

        What is not valid becomes lone surrogates (U+FFFD in UTF-16 and UTF-32), never an error.
        """
        try:
            return data.decode(self.codec), True
        except UnicodeDecodeError:
            how = "surrogateescape" if self.unit == 1 else "replace"
            return data.decode(self.codec, how), False

    def lines(self, file: BinaryIO, limit: int = MAX_RECORD_BYTES + 1) -> Iterator[bytes]:
        """Yield the lines of *file* with their ends; one longer than *limit* comes in pieces."""
        if self.unit == 1:
            while line := file.readline(limit):
                yield line
            return
        newline = self.encode("\n")
        while line := file.readline(limit):
            # The byte 0A may be half of another character: go on until a whole newline ends it.
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

    The mark at the file's beginning must agree with it; nothing is guessed. Raises UsageError for a
    codec that delimited files cannot be cut in, TableError when the mark says otherwise.
    """
    try:
        codec = codecs.lookup(wanted).name
    except LookupError as error:
        why = f"unknown --encoding {wanted!r}: use a name that Python knows, such as latin-1"
        raise UsageError(why, reason="UNKNOWN_ENCODING") from error
    codec = {"utf-8-sig": "utf-8"}.get(codec, codec)
    found = next(
        (
            k
            for k in ("utf-32-le", "utf-32-be", "utf-8", "utf-16-le", "utf-16-be")
            if first.startswith(_BOMS[k])
        ),
        None,
    )
    if codec in ("utf-16", "utf-32"):
        if found is None or not found.startswith(codec):
            why = f"{name} has no byte-order mark of {codec}: say --encoding {codec}-le or -be"
            raise TableError(why, reason="WRONG_ENCODING")
        codec = found
    elif codec == "utf-8" and found not in (None, "utf-8"):
        said = found[:6]
        why = f"{name} begins with the byte-order mark of {said}: say --encoding {said}"
        raise TableError(why, reason="NOT_UTF8")
    unit = 4 if codec.startswith("utf-32") else 2 if codec.startswith("utf-16") else 1
    if unit == 1 and not _cuttable(codec):
        why = f"--encoding {wanted}: lines cannot be found in it as bytes: convert it to UTF-8"
        raise UsageError(why, reason="UNKNOWN_ENCODING")
    bom = _BOMS.get(codec, b"")
    return Encoding(codec, unit, bom if bom and first.startswith(bom) else b"")


def _cuttable(codec: str) -> bool:
    """Say whether ASCII stands for itself; ISO 2022 and the like shift, so their bytes do not."""
    if codec.startswith(("iso2022", "hz", "utf-7")):
        return False
    try:
        return _ASCII.encode(codec) == _ASCII.encode("ascii")
    except (UnicodeEncodeError, LookupError):
        return False
