"""gzip and zstd: a stream to read that knows its place, and parts that may be put end to end."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, Final, cast

import pyarrow as pa

from sentimill.errors import TableError
from sentimill.scoring.formats.table import Compression

__all__ = ["Stream", "pack", "reading"]

_BUFFER_BYTES: Final = 1 << 20
_GZIP_LEVEL: Final = 6
_ZSTD_LEVEL: Final = 3


class Stream:
    """A file opened for reading, unpacked on the way. `file` gives its contents."""

    def __init__(self, raw: BinaryIO, compression: Compression) -> None:
        self._raw = raw
        self._packed = bool(compression)
        if compression:
            # Arrow reads gzip members and zstd frames put end to end, as this program writes them,
            # and says when the last one is cut off.
            inner = pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), compression)
            self.file = io.BufferedReader(cast(io.RawIOBase, inner), _BUFFER_BYTES)
        elif isinstance(raw, io.BufferedReader):
            self.file = raw
        else:
            self.file = io.BufferedReader(cast(io.RawIOBase, raw), _BUFFER_BYTES)

    def seek(self, offset: int, *, at: int) -> None:
        """Go to *offset* of the contents from *at*; only a plain file can go back."""
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
        """Return how much of the file as stored is read, when *offset* of its contents are."""
        return self._raw.tell() if self._packed and self._raw.seekable() else offset

    def close(self) -> None:
        """Close the file."""
        self.file.close()
        self._raw.close()


def pack(data: bytes, compression: Compression) -> bytes:
    """Return *data* as a gzip member or zstd frame of its own; the same bytes at every run."""
    if compression == "gzip":
        return gzip.compress(data, _GZIP_LEVEL, mtime=0)
    if compression == "zstd":
        packed: bytes = pa.Codec("zstd", _ZSTD_LEVEL).compress(data, asbytes=True)
        return packed
    return data


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Turn what goes wrong in reading the file *name* into a TableError that says what to do."""
    try:
        yield
    except FileNotFoundError as error:
        why = f"{name} is not there: name a table"
        raise TableError(why, reason="FILE_NOT_FOUND") from error
    except EOFError as error:
        raise TableError(f"{name} ends too early: copy it again", reason="TRUNCATED") from error
    except (OSError, pa.ArrowInvalid) as error:
        said = str(error)
        if "Truncated" in said:
            why = f"{name} ends in the middle of its compressed data: copy it again"
            raise TableError(why, reason="TRUNCATED") from error
        if "inflate" in said or "ZSTD" in said.upper():
            why = f"{name} is not what its suffix says ({said}): name its format with --format"
            raise TableError(why, reason="BAD_COMPRESSION") from error
        raise TableError(f"{name} cannot be read: {said}", reason="UNREADABLE") from error
