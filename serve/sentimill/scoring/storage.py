"""Local paths and fsspec addresses: find inputs, detect a changed one, publish an output.

S3 goes through Arrow's own client, which pyarrow contains. s3fs would pin fsspec and botocore to
versions that conflict with other packages. Arrow reads the usual AWS_* variables and profiles.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

import msgspec
from pyarrow.fs import FileSystem, copy_files

from sentimill.atomic_write import move_into_place
from sentimill.errors import SentimillError, TableError, UsageError
from sentimill.scoring.formats.compression import reading

STANDARD: Final = "-"
"""The address of standard input and standard output."""

_SAMPLES: Final = 16
_SAMPLE_BYTES: Final = 64 << 10

# In these an object appears whole when its upload ends; elsewhere it is renamed into place.
_OBJECT_STORES: Final = frozenset({"gs", "gcs", "az", "abfs", "abfss", "memory"})


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """What identifies an input: its address, and properties that differ once it is changed.

    stamp: the time of the last change in nanoseconds, or the equivalent of the remote system.
    sample: sha256 over 16 blocks of 64 KiB spread over a local file.
    """

    address: str
    size_bytes: int
    stamp: str
    sample: str


def is_remote(address: str) -> bool:
    """Say whether *address* is not in the local file system."""
    return "://" in address and not address.startswith("file://")


def is_folder(address: str) -> bool:
    """Say whether outputs go inside *address*."""
    return address.endswith("/") or (not is_remote(address) and local(address).is_dir())


def local(address: str) -> Path:
    """Return the path of a local *address*."""
    return Path(address.removeprefix("file://"))


def absolute(address: str) -> str:
    """Return *address* so that it means the same in another working directory."""
    if address == STANDARD or is_remote(address):
        return address
    return str(local(address).absolute()) + ("/" if address.endswith("/") else "")


def find(sources: Sequence[str]) -> list[str]:
    """Return the inputs that *sources* name, patterns replaced by what they match, in order.

    Raises TableError for a pattern that matches nothing, and for a folder.
    """
    found: list[str] = []
    for source in sources:
        if source == STANDARD or not glob.has_magic(source):
            matches = [source]
        elif is_remote(source):
            system, path = _remote(source)
            matches = sorted(system.unstrip_protocol(name) for name in system.glob(path))
        elif local(source).exists():
            matches = [source]
        else:
            names = glob.glob(str(local(source)), recursive=True)
            matches = sorted(name for name in names if os.path.isfile(name))
        if not matches:
            raise TableError(f"nothing matches {source}: check the path", reason="FILE_NOT_FOUND")
        for match in matches:
            if match != STANDARD and not is_remote(match) and os.path.isdir(local(match)):
                files = shlex.quote(f"{match.rstrip('/')}/*.csv")
                why = f"{match} is a folder: name files in it, such as {files}"
                raise TableError(why, reason="FOLDER_AS_INPUT")
        found += [match for match in matches if match not in found]
    return found


def exists(address: str) -> bool:
    """Say whether a file is at *address*."""
    if is_remote(address):
        system, path = _remote(address)
        return bool(system.exists(path))
    return local(address).exists()


def open_input(address: str) -> BinaryIO:
    """Open *address* for reading. Raises TableError when it is not there."""
    with reading(address):
        if address == STANDARD:
            return sys.stdin.buffer
        if is_remote(address):
            system, path = _remote(address)
            return cast(BinaryIO, system.open(path, "rb"))
        return local(address).open("rb", buffering=1 << 20)


def identity(address: str, *, sample: bool = True) -> Identity:
    """Return the identity of *address* now; without *sample* no data is read."""
    with reading(address):
        if address == STANDARD:
            return Identity(address=address, size_bytes=0, stamp="", sample="")
        if is_remote(address):
            system, path = _remote(address)
            system.invalidate_cache()
            size, stamp = int(system.size(path)), str(system.ukey(path))
            return Identity(address=address, size_bytes=size, stamp=stamp, sample="")
        file = local(address)
        state = file.stat()
        return Identity(
            address=str(file.resolve()),
            size_bytes=state.st_size,
            stamp=str(state.st_mtime_ns),
            sample=_sample(file, state.st_size) if sample else "",
        )


def publish(file: Path, address: str) -> None:
    """Give the finished local *file* its final name, in one step that survives a crash."""
    with writing(address):
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
        if not is_remote(address):
            move_into_place(file, local(address).absolute())
            return
        system, path = _remote(address)
        if address.startswith("s3://"):
            # `put_file` would leave an empty object for each folder.
            copy_files(str(file), path, destination_filesystem=system.fs)
        elif address.split("://")[0] in _OBJECT_STORES:
            system.put_file(str(file), path)
        else:
            system.put_file(str(file), f"{path}.part")
            system.mv(f"{path}.part", path)
        file.unlink()


def remove(address: str) -> None:
    """Remove the file at *address*, if there is one."""
    if is_remote(address):
        system, path = _remote(address)
        if system.exists(path):
            system.rm_file(path)
    else:
        local(address).unlink(missing_ok=True)


@contextmanager
def writing(address: str) -> Iterator[None]:
    """Turn an error while *address* is written into one that says what to do."""
    try:
        yield
    except OSError as error:
        saved = "what is done is saved: run the same command again to go on"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            why = f"the disk is full while writing {address}: free some space; {saved}"
            raise SentimillError(why, reason="DISK_FULL") from error
        if error.errno in (errno.ENOENT, errno.ESTALE):
            why = f"the folder of {address} is gone ({error}): nothing was written there"
            raise SentimillError(why, reason="OUTPUT_GONE") from error
        why = f"{address} cannot be written: {error}; {saved}"
        raise SentimillError(why, reason="UNWRITABLE") from error


def _sample(path: Path, size: int) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        for k in range(_SAMPLES):
            file.seek(max(0, size - _SAMPLE_BYTES) * k // (_SAMPLES - 1))
            found.update(file.read(_SAMPLE_BYTES))
    return found.hexdigest()


@cache
def _bucket(name: str) -> FileSystem:
    """Return the S3 client for one bucket; Arrow finds its region and reads AWS_ENDPOINT_URL."""
    return FileSystem.from_uri(f"s3://{name}")[0]


def _remote(address: str) -> tuple[Any, str]:
    """Return the fsspec file system of *address*, and the path in it."""
    try:
        from fsspec.core import url_to_fs
        from fsspec.implementations.arrow import ArrowFSWrapper

        if address.startswith("s3://"):
            path = address.removeprefix("s3://")
            return ArrowFSWrapper(_bucket(path.partition("/")[0])), path
        system, path = url_to_fs(address)
    except ImportError as error:
        why = f"{address} needs another package ({error}): pip install 'sentimill[s3]', and for"
        why += " stores other than S3 the package that fsspec names"
        raise UsageError(why, reason="EXTRA_MISSING") from error
    except ValueError as error:
        raise UsageError(f"{address}: {error}", reason="UNKNOWN_ADDRESS") from error
    return system, path
