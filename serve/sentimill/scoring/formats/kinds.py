"""File formats: what the name of a file says about it, and what its first bytes say."""

from __future__ import annotations

import re
from typing import Final, Literal, NamedTuple, get_args

from sentimill.errors import TableError

__all__ = [
    "Compression", "Kind", "KindName", "check_content", "kind_of", "promises_format", "stem_of",
]  # fmt: skip

KindName = Literal["csv", "tsv", "jsonl", "json", "parquet", "xlsx"]
Compression = Literal["", "gzip", "zstd"]

_SUFFIXES: Final[dict[str, KindName]] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".xlsx": "xlsx",
}
_COMPRESSED: Final[dict[str, Compression]] = {".gz": "gzip", ".zst": "zstd", ".zstd": "zstd"}
_SHORT: Final[dict[Compression, str]] = {"": "", "gzip": ".gz", "zstd": ".zst"}
_FILES: Final = (
    ("parquet", b"PAR1", "a Parquet file"),
    ("xlsx", b"PK\x03\x04", "an Excel workbook"),
)
_MAGIC: Final[dict[Compression, bytes]] = {"gzip": b"\x1f\x8b", "zstd": b"\x28\xb5\x2f\xfd"}


_UNKNOWN: Final = re.compile(
    r"\.(7z|arrow|avro|bz2|db|feather|html|ods|orc|pkl|sqlite|xls|xlsb|xml|xz|zip)$", re.IGNORECASE
)
"""Suffixes of formats that are not written; any other suffix, such as `.txt`, promises nothing."""


class Kind(NamedTuple):
    """A format and the compression of the file."""

    name: KindName
    compression: Compression

    @property
    def option(self) -> str:
        """The value of --format that stands for this kind, such as `csv.gz`."""
        return self.name + _SHORT[self.compression]


def kind_of(address: str, wanted: str | None = None) -> Kind:
    """Return the format that the suffixes of *address* name; *wanted* (csv.gz) overrides them.

    Raises TableError when neither names a format.
    """
    name = (f"x.{wanted}" if wanted else address).lower()
    compression: Compression = ""
    for suffix, packed in _COMPRESSED.items():
        if name.endswith(suffix):
            name, compression = name[: -len(suffix)], packed
    for suffix, kind in _SUFFIXES.items():
        if name.endswith(suffix):
            if kind in ("parquet", "xlsx") and compression:
                why = f"{address}: {kind} files are compressed inside: use a plain .{kind} file"
                raise TableError(why, reason="UNKNOWN_FORMAT")
            return Kind(kind, compression)
    known = ", ".join(get_args(KindName))
    why = (
        f"the format of {address} is unknown: score reads and writes {known}, and all but parquet"
        " and xlsx also with .gz or .zst; name the format with --format or --output-format"
    )
    raise TableError(why, reason="UNKNOWN_FORMAT")


def promises_format(address: str) -> bool:
    """Say whether the suffix of *address* is that of a format which this program does not have."""
    return _UNKNOWN.search(address) is not None


def stem_of(name: str) -> str:
    """Return *name* without the suffixes that `kind_of` reads; other dots belong to the name."""
    for suffixes in (_COMPRESSED, _SUFFIXES):
        for suffix in suffixes:
            if name.lower().endswith(suffix):
                name = name[: -len(suffix)]
                break
    return name


def check_content(name: str, kind: Kind, first: bytes) -> None:
    """Raise TableError when the *first* bytes of the file *name* show another format than *kind*.

    Every message ends with the value of --format that reads the file.
    """
    for compression, magic in _MAGIC.items():
        if first.startswith(magic) and compression != kind.compression and kind.name != "parquet":
            remedy = Kind(kind.name, compression).option
            why = f"{name} is compressed with {compression}, but its name does not say so"
            raise TableError(f"{why}: add --format {remedy}", reason="BAD_COMPRESSION")
    if kind.compression and first and not first.startswith(_MAGIC[kind.compression]):
        why = f"{name} is not compressed with {kind.compression}, although its name says so"
        raise TableError(f"{why}: add --format {kind.name}", reason="BAD_COMPRESSION")
    for name_, magic, what in _FILES:
        if kind.name != name_ and first.startswith(magic):
            why = f"{name} is {what}, but its name does not say so: add --format {name_}, and name"
            raise TableError(f"{why} the output .{name_}", reason="WRONG_FORMAT")
