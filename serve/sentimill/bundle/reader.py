"""Opens a bundle and checks it: the bytes that are hashed are the bytes that are used.

The manifest has the size and the sha256 of every other file. A file is read once, hashed, and used
from memory. So a file may be a hard link (uv and conda install them), a symlink (the Hugging Face
cache has them) or a copy. Files that the manifest does not list are never read.

`model.safetensors` may be absent. Only training needs it, and the model that comes with Sentimill
is installed without it.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

import msgspec

from sentimill.bundle.manifest import MANIFEST, SCHEMA_VERSION, Manifest, problem_of
from sentimill.errors import BundleError

WEIGHTS: Final = "model.safetensors"
"""The one file that a bundle may lack: it can still answer, but no training can start from it."""

_SUFFIXES: Final = frozenset({".json", ".onnx", ".safetensors", ".md", ".html"})
_PICKLES: Final = frozenset({".bin", ".ckpt", ".joblib", ".pickle", ".pkl", ".pt", ".pth"})
_MAX_MANIFEST_BYTES: Final = 1 << 20
_CONFIG: Final = "config.json"
_REMEDIES: Final = {
    "UNKNOWN_SCHEMA": "update sentimill or export it again",
    "NOT_FOUND": "check the name, or leave it out for the model that comes with Sentimill",
}

# TensorProto.external_data is a list of (key, value) pairs, and "location" is the key that every
# one must hold: an 8-byte string in the wire format. ONNX Runtime, given bytes and no folder, would
# refuse such a graph too, but later.
_EXTERNAL_DATA: Final = b"\x08location"


class _Config(msgspec.Struct):
    """The part of config.json that names the labels."""

    id2label: dict[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Bundle:
    """An opened folder. Its manifest was checked; each file is checked when it is read.

    `digest` is the sha256 of manifest.json, which has the hash of every other file: it identifies
    the model.
    """

    path: Path
    manifest: Manifest
    digest: str

    def read(self, name: str) -> bytes:
        """Return the bytes of one file after checking them. Raises BundleError."""
        entry = self.manifest.files[name]
        data = _read_file(self.path, name, entry.size_bytes)
        if len(data) != entry.size_bytes:
            more = "more than " if len(data) > entry.size_bytes else ""
            size = min(len(data), entry.size_bytes)
            why = f"{name} has {more}{size} bytes, the manifest says {entry.size_bytes}"
            raise _bad(self.path, "WRONG_SIZE", why)
        found = hashlib.sha256(data).hexdigest()
        if found != entry.sha256:
            why = f"{name} has sha256 {found[:12]}…, the manifest says {entry.sha256[:12]}…"
            raise _bad(self.path, "WRONG_HASH", why)
        if name.endswith(".onnx") and _EXTERNAL_DATA in data:
            raise _bad(self.path, "EXTERNAL_DATA", f"{name} keeps weights in another file")
        return data

    def text(self, name: str) -> str:
        """Return a text file, empty where the bundle has no such file."""
        return self.read(name).decode("utf-8") if name in self.manifest.files else ""

    def has(self, name: str) -> bool:
        """Return whether a file is there; only `WEIGHTS` may be absent from an opened bundle."""
        return (self.path / name).exists()

    def verify(self) -> None:
        """Hash every file that is there. Raises BundleError at the first that differs."""
        for name in self.manifest.files:
            if self.has(name):
                self.read(name)


def open_bundle(path: Path | str) -> Bundle:
    """Read the manifest of the folder *path*, and check it and the names in the folder.

    Raises:
        BundleError: there is no such folder; the manifest is missing or bad, or has an unknown
            schema version; a listed file is missing; the folder has a pickle; or the labels are
            not those of config.json.
    """
    path = Path(path)
    if not path.is_dir():
        raise _bad(path, "NOT_FOUND", "there is no such folder")
    data = _read_file(path, MANIFEST, _MAX_MANIFEST_BYTES)
    if len(data) > _MAX_MANIFEST_BYTES:
        raise _bad(path, "BAD_MANIFEST", f"{MANIFEST} is larger than {_MAX_MANIFEST_BYTES} bytes")
    manifest = _decode(path, data)
    if problem := problem_of(manifest):
        raise _bad(path, "BAD_MANIFEST", problem)
    _check_names(path, manifest)
    bundle = Bundle(path=path, manifest=manifest, digest=hashlib.sha256(data).hexdigest())
    _check_labels(bundle)
    return bundle


def _read_file(path: Path, name: str, most_bytes: int) -> bytes:
    """Return the bytes of a regular file, at most one more than *most_bytes*."""
    file = path / name
    try:
        # A pipe would block for ever.
        if file.exists() and not file.is_file():
            raise _bad(path, "NO_PLAIN_FILE", f"{name} is not a regular file")
        with file.open("rb") as opened:
            return opened.read(most_bytes + 1)
    except OSError as error:
        raise _bad(path, "MISSING_FILE", f"{name}: {error.strerror}") from error


def _decode(path: Path, data: bytes) -> Manifest:
    class Head(msgspec.Struct):
        schema_version: int

    try:
        # The version alone first: a newer manifest may have entirely different fields.
        version = msgspec.json.decode(data, type=Head).schema_version
        if version != SCHEMA_VERSION:
            why = f"its schema version is {version}, this program reads {SCHEMA_VERSION}"
            raise _bad(path, "UNKNOWN_SCHEMA", why)
        return msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _bad(path, "BAD_MANIFEST", f"{MANIFEST} is not valid: {error}") from error


def _check_names(path: Path, manifest: Manifest) -> None:
    """Check the names of the files, before any of them is read."""
    for name in manifest.files:
        parts = PurePosixPath(name)
        if parts.is_absolute() or ".." in parts.parts or "\\" in name or str(parts) != name:
            raise _bad(path, "BAD_MANIFEST", f"the file name {name!r} leaves the folder")
        if parts.suffix not in _SUFFIXES:
            raise _bad(path, "FORBIDDEN_FILE", f"{name} has a suffix that no bundle has")
        if name != WEIGHTS and not (path / name).exists():
            raise _bad(path, "MISSING_FILE", f"{name} is listed in the manifest and absent")
    # Sentimill reads no file that is not listed. Other programs may, and a pickle can run code.
    for folder, _, files in os.walk(path):
        for file in files:
            if Path(file).suffix in _PICKLES:
                name = Path(folder, file).relative_to(path).as_posix()
                raise _bad(path, "FORBIDDEN_FILE", f"{name} may be a pickle, which can run code")


def _check_labels(bundle: Bundle) -> None:
    """Refuse labels that are not those of the hashed config.json, in the same order.

    Labels in another order would give every text a wrong label, with valid hashes.
    """
    if _CONFIG not in bundle.manifest.files:
        return
    try:
        names = msgspec.json.decode(bundle.read(_CONFIG), type=_Config).id2label
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _bad(bundle.path, "BAD_CONFIG", f"{_CONFIG} is not valid: {error}") from error
    if names is None:
        return
    expected = {str(i): label for i, label in enumerate(bundle.manifest.labels)}
    if names != expected:
        why = f"its labels are {', '.join(bundle.manifest.labels)}, and {_CONFIG} has {names}"
        raise _bad(bundle.path, "LABELS_DIFFER", why)


def _bad(path: Path, reason: str, why: str) -> BundleError:
    remedy = _REMEDIES.get(reason, "copy or export it again")
    return BundleError(f"bundle {path} does not verify: {why}; {remedy}", reason=f"BUNDLE_{reason}")
