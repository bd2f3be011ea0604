"""Compressed files: a stream that knows its position, and parts that can be concatenated."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, Final, cast

import pyarrow as pa

from sentimill.errors import TableError
from sentimill.scoring.formats.kinds import PEEK_BYTES, Compression, Kind, check_content

_BUFFER_BYTES: Final = 1 << 20
_GZIP_LEVEL: Final = 6
_ZSTD_LEVEL: Final = 3


class Stream:
    """Opens the file *name* of *kind* and decompresses it. `file` gives its contents."""

    def __init__(self, raw: BinaryIO, name: str, kind: Kind) -> None:
        """Look at the first bytes. Raises TableError when they show another format than *kind*."""
        self.name = name
        self.kind = kind
        self._raw = raw if isinstance(raw, io.BufferedReader) else _buffered(raw)
        check_content(name, kind, self._raw.peek(PEEK_BYTES)[:PEEK_BYTES])
        self._packed = bool(kind.compression)
        self.file = self._raw
        if kind.compression:
            self.file = _buffered(_decompressed(self._raw, kind.compression))
            check_content(name, kind, self.file.peek(PEEK_BYTES)[:PEEK_BYTES], inside=True)

    def seek(self, offset: int, *, at: int) -> None:
        """Go from *at* to *offset* of the contents; only a plain file can go back."""
        if at == offset:
            return
        if not self._packed and self._raw.seekable():
            self.file.seek(offset)
            return
        while at < offset:
            got = len(self.file.read(min(_BUFFER_BYTES, offset - at)))
            if not got:
                break
            at += got

    def tell(self, offset: int) -> int:
        """Return how many stored bytes are read once *offset* bytes of the contents are."""
        return self._raw.tell() if self._packed and self._raw.seekable() else offset


def _buffered(raw: object) -> io.BufferedReader:
    return io.BufferedReader(cast(io.RawIOBase, raw), _BUFFER_BYTES)


def _decompressed(raw: BinaryIO, compression: Compression) -> object:
    """Return *raw* decompressed; gzip members and zstd frames may be concatenated.

    Python's gzip also accepts the zero bytes with which tape and block devices pad a file.
    """
    if compression == "gzip":
        return gzip.GzipFile(fileobj=raw, mode="rb")
    return pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), compression)


def pack(data: bytes, compression: Compression) -> bytes:
    """Return *data* as a gzip member or zstd frame of its own; every run gives the same bytes."""
    if compression == "gzip":
        return gzip.compress(data, _GZIP_LEVEL, mtime=0)
    if compression == "zstd":
        packed: bytes = pa.Codec("zstd", _ZSTD_LEVEL).compress(data, asbytes=True)
        return packed
    return data


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Turn an error while the file *name* is read into a TableError that says what to do."""
    try:
        yield
    except FileNotFoundError as error:
        raise TableError(
            f"{name} does not exist: check the path", reason="FILE_NOT_FOUND"
        ) from error
    except (EOFError, OSError, zlib.error, pa.ArrowInvalid) as error:
        said = str(error)
        packed = "gzip" if isinstance(error, gzip.BadGzipFile | zlib.error) else ""
        if "ZSTD" in said.upper():
            packed = "zstd"
        reason = "BAD_COMPRESSION" if packed else "UNREADABLE"
        why = f"cannot be read: {said}"
        if isinstance(error, EOFError) or "Truncated" in said:
            reason, why = "TRUNCATED", "ends in the middle of its compressed data: copy it again"
        elif "too much memory" in said:
            reason = "BAD_COMPRESSION"
            why = "needs a window of more than 128 MiB: compress it again without --long"
        elif packed:
            why = f"is damaged, or has other data after its {packed} data ({said}): copy it again"
        raise TableError(f"{name} {why}", reason=reason) from error
