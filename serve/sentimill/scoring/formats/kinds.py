"""Finds the format of a file by its name, and checks its first bytes."""

from __future__ import annotations

import re
from typing import Final, Literal, NamedTuple, get_args

from sentimill.errors import TableError

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
# pzstd begins with a skippable frame.
_MAGIC: Final[dict[Compression, str]] = {
    "gzip": r"\x1f\x8b",
    "zstd": r"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18",
}
_FOREIGN: Final = (
    (_MAGIC["gzip"], "compressed with gzip", "{}.gz"),
    (_MAGIC["zstd"], "compressed with zstd", "{}.zst"),
    ("PAR1", "a Parquet file", "parquet"),
    (r"PK\x03\x04.{26}(\[Content_|_rels/|docProps/|xl/)", "an Excel workbook", "xlsx"),
    (r"PK\x03\x04", "a ZIP archive", ""),
    (r"7z\xbc\xaf", "a 7z archive", ""),
    ("BZh[1-9]", "compressed with bzip2", ""),
    (r"\xfd7zXZ", "compressed with xz", ""),
    (r"\xd0\xcf\x11\xe0", "an old Excel workbook (.xls)", ""),
    ("%PDF-", "a PDF document", ""),
    ("SQLite format 3", "an SQLite database", ""),
    (r"\x89PNG|\xff\xd8\xff|GIF8[79]a|RIFF.{4}WEBP|II\*\0|MM\0\*", "a picture", ""),
    (r"ARROW1\0\0", "an Arrow file", ""),
    (r"Obj\x01", "an Avro file", ""),
    (r"\x7fELF", "a program", ""),
    (r"\s*<(!doctype|!DOCTYPE|html|\?xml)", "a page of HTML or XML", ""),
)
"""First bytes, what they mean, and the format that reads such a file, if there is one."""

PEEK_BYTES: Final = 64
"""How many first bytes of a file `check_content` looks at."""


_UNKNOWN: Final = re.compile(
    r"\.(7z|arrow|avro|bz2|db|feather|html|ods|orc|pkl|sqlite|xls|xlsb|xml|xz|zip)$", re.IGNORECASE
)
"""Suffixes of unsupported formats. Any other suffix, such as `.txt`, says nothing."""


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
    """Say whether the suffix of *address* names a format that is not supported."""
    return _UNKNOWN.search(address) is not None


def stem_of(name: str) -> str:
    """Return *name* without the suffixes that `kind_of` reads; other dots belong to the name."""
    for suffixes in (_COMPRESSED, _SUFFIXES):
        for suffix in suffixes:
            if name.lower().endswith(suffix):
                name = name[: -len(suffix)]
                break
    return name


def check_content(name: str, kind: Kind, first: bytes, *, inside: bool = False) -> None:
    """Raise TableError when the *first* bytes of the file *name* show another format than *kind*.

    inside: they are the first bytes after decompression.
    """

    def begins(magic: str) -> bool:
        return re.match(magic.encode("latin-1"), first, re.DOTALL) is not None

    packed = bool(kind.compression) and not inside
    if packed and begins(_MAGIC[kind.compression]):
        return
    for magic, what, option in _FOREIGN:
        if begins(magic):
            remedy = _remedy(option.format(kind.name))
            if inside:
                what, remedy = f"{what} inside its {kind.compression}", "unpack it once"
            elif option:
                what += ", but its name does not say so"
            elif "compressed" in what or "archive" in what or "Excel" in what:
                remedy = f"unpack it, or convert it to {kind.name}"
            else:
                remedy = f"convert it to {kind.name}, or name another file"
            reason = "BAD_COMPRESSION" if "compressed" in what else "WRONG_FORMAT"
            raise TableError(f"{name} is {what}: {remedy}", reason=reason)
    if packed and first:
        why = f"{name} is not compressed with {kind.compression}, although its name says so"
        raise TableError(f"{why}: {_remedy(kind.name)}", reason="BAD_COMPRESSION")


def _remedy(option: str) -> str:
    """Return how to read a file of the format *option*; only `score` has --format."""
    new = f", and name the output .{option}" if option in ("parquet", "xlsx") else ""
    return f"let its name end in .{option}, or let score read it with --format {option}{new}"
