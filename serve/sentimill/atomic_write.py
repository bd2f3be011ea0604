"""Writes files so that nobody ever reads a mix of old and new content, not even after a crash.

The run time and training both use these functions. A file is written under another name in the
same folder, flushed to the disk, and renamed into place.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


def write_atomically(path: Path, data: bytes) -> None:
    """Write *data* to *path*, whole or not at all."""
    with open_atomically(path) as file:
        file.write(data)


@contextmanager
def open_atomically(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that appears as *path* when the block ends well, and otherwise not at all.

    A missing folder is created. The permissions follow the umask, as with `open`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _hidden_name(path)
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        move_into_place(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Make a folder that appears as *path* when the block ends well, and otherwise not at all.

    An existing folder is replaced, and is missing for a moment. A missing parent is created.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    work = _hidden_name(path)
    work.mkdir()
    try:
        yield work
        if path.exists():
            _replace_folder(path, work)
        else:
            work.rename(path)
        sync_folder(path.parent)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise


def _hidden_name(path: Path) -> Path:
    """Return a new name next to *path*; `tempfile` would ignore the umask."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}")


def _replace_folder(path: Path, new: Path) -> None:
    """Put *new* in the place of the folder *path*; if that fails, the old folder is put back."""
    old = Path(tempfile.mkdtemp(prefix=f".{path.name}.old.", dir=path.parent))
    try:
        path.rename(old / path.name)
        new.rename(path)
    except BaseException:
        if not path.exists():
            (old / path.name).rename(path)
        shutil.rmtree(old)
        raise
    shutil.rmtree(old)


def is_device(path: Path) -> bool:
    """Say whether *path* is a device, a pipe or a name such as /dev/stdout: a rename removes it."""
    return path.absolute().parent == Path("/dev") or not (
        path.is_file() or path.is_dir() or not path.exists()
    )


def place_of(path: Path) -> object:
    """Return a value that all names of the same file share, links among them."""
    try:
        found = path.stat()
    except OSError:
        return path.absolute().resolve()
    return found.st_dev, found.st_ino


def write_durably(path: Path, data: bytes) -> None:
    """Write *data* to *path* and wait until it is on the disk."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def move_into_place(file: Path, target: Path) -> None:
    """Move *file* to *target* atomically and durably, even from another disk.

    file: its content must already be on the disk.
    """
    try:
        file.replace(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        # Another disk: copy it next to the target first, so that the rename is still atomic.
        part = target.with_name(f".{target.name}.part")
        shutil.copyfile(file, part)
        with part.open("rb") as copied:
            os.fsync(copied.fileno())
        part.replace(target)
        file.unlink()
    sync_folder(target.parent)


def sync_folder(path: Path) -> None:
    """Wait until the names in the folder *path* are on the disk."""
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
