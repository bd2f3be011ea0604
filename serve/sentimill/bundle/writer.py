"""Writes a bundle: in a temporary folder that is renamed into place, so it is whole or absent."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import msgspec

from sentimill.atomic_write import new_folder, write_durably
from sentimill.bundle.manifest import MANIFEST, File, Manifest
from sentimill.bundle.reader import Bundle, open_bundle
from sentimill.errors import UsageError


def write_bundle(
    path: Path, files: Mapping[str, bytes | Path], manifest: Manifest, *, overwrite: bool = False
) -> Bundle:
    """Write a bundle to *path* and return it.

    files: name in the bundle to its contents, or to a file to copy. manifest: gets their hashes.
    overwrite: an existing bundle at *path*, and nothing else, is replaced.

    Raises:
        UsageError: *path* is a bundle and *overwrite* is not given, or it is something else.
    """
    check_writable(path, overwrite=overwrite)
    with new_folder(path) as work:
        listed = {name: _put(work / name, source) for name, source in sorted(files.items())}
        whole = msgspec.structs.replace(manifest, files=listed)
        text = msgspec.json.format(msgspec.json.encode(whole), indent=2)
        _put(work / MANIFEST, text + b"\n")
        open_bundle(work).verify()
    return open_bundle(path)


def check_writable(path: Path, *, overwrite: bool) -> None:
    """Raise UsageError if no bundle may be written at *path*; call it before hours of training."""
    if not path.exists() and not path.is_symlink():
        return
    if not (path / MANIFEST).is_file():
        raise UsageError(
            f"{path} exists and is not a bundle: choose another --out", reason="OUTPUT_EXISTS"
        )
    if not overwrite:
        raise UsageError(
            f"{path} already holds a bundle: add --overwrite to replace it or choose another --out",
            reason="OUTPUT_EXISTS",
        )


def _put(target: Path, source: bytes | Path) -> File:
    target.parent.mkdir(parents=True, exist_ok=True)
    data = source if isinstance(source, bytes) else source.read_bytes()
    write_durably(target, data)
    return File(sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))
