"""The bundle: the folder that training writes and serving reads. Nothing else passes between them.

::

    bundle/
      manifest.json      everything a reader must know, and the sha256 of every other file
      tokenizer.json     the only tokenizer file
      onnx/fp32.onnx     one file a precision, no external data
      config.json  model.safetensors  README.md  metrics.json      for people and for training

A folder is read with suspicion: only files that the manifest names, with their size and hash, no
links out of it, no pickles, no external data. It is written beside its final name and renamed into
place, so it is whole or absent.
"""

from __future__ import annotations

import hashlib
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

import msgspec

from sentimill.errors import BundleError, UsageError

__all__ = [
    "SCHEMA_VERSION",
    "Base",
    "Bundle",
    "File",
    "Golden",
    "Manifest",
    "Precision",
    "Source",
    "check_writable",
    "open_bundle",
    "write_bundle",
]

SCHEMA_VERSION: Final = 1
MANIFEST: Final = "manifest.json"
_SUFFIXES: Final = frozenset({".json", ".onnx", ".safetensors", ".md", ".html"})
_MAX_MANIFEST_BYTES: Final = 1 << 20


# Every part of the manifest ignores unknown keys: a breaking change raises SCHEMA_VERSION instead.


class File(msgspec.Struct, frozen=True, kw_only=True):
    """What a file must be, to the byte."""

    sha256: str
    size_bytes: int


class Base(msgspec.Struct, frozen=True, kw_only=True):
    """The encoder that training started from; `revision` is None for a local folder.

    sources: what it was trained on before, where it is a bundle itself, and its own base likewise.
    base: what it was made from, and so on back; their sources are in those here.
    """

    name: str
    sha256: str
    revision: str | None = None
    sources: tuple[Source, ...] = ()
    base: Base | None = None


class Precision(msgspec.Struct, frozen=True, kw_only=True):
    """One way to run the model: a graph, and what was measured with it.

    file: bf16 names the fp32 graph, which an engine rounds by itself. packed: the same graph for
    GPUs, which computes no padding; None where there is none. temperature: what its logits are
    divided by before the softmax (Guo et al. 2017, section 4.2).
    max_logit_difference: the largest absolute difference over `parity_rows` rows: of fp32 from
    torch, of the others from fp32. agreement, macro_f1_drop, ece_change: what the gate measured on
    those rows, against fp32; None in fp32 itself.
    """

    file: str
    temperature: float
    max_logit_difference: float
    parity_rows: int
    agreement: float | None = None
    macro_f1_drop: float | None = None
    ece_change: float | None = None
    packed: str | None = None

    @property
    def graphs(self) -> tuple[str, ...]:
        """The names of its files."""
        return (self.file,) if self.packed is None else (self.file, self.packed)


class Golden(msgspec.Struct, frozen=True, kw_only=True):
    """A text of our own and the probs that every load must give again, in the order of `labels`."""

    text: str
    probs: tuple[float, ...]


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """A file that the model was trained on, by name and hash; its texts are not in the bundle."""

    name: str
    sha256: str
    rows: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """All of manifest.json.

    created: UTC in ISO 8601. threshold: confidence below which the model abstains; None, it never
    does. threshold_coverage, threshold_error: the share of the validation rows that it answers, and
    of those answers the share that is wrong; None without a threshold. label_mix: the share of each
    label among the model's own answers on its test split, from which drift is counted. cleaning:
    the version of `sentimill.text.cleaning` that the model was trained with; the absent field means
    version 1. languages: ISO 639-1 codes of the languages that the model was made for;
    empty where they are not known, and then no text abstains because of its language.
    """

    schema_version: int
    name: str
    version: str
    created: str
    labels: tuple[str, ...]
    max_tokens: int
    truncation: str
    pad_id: int
    base: Base
    precisions: dict[str, Precision]
    golden: tuple[Golden, ...]
    files: dict[str, File]
    threshold: float | None = None
    threshold_coverage: float | None = None
    threshold_error: float | None = None
    metrics: dict[str, float] = {}
    sources: tuple[Source, ...] = ()
    libraries: dict[str, str] = {}
    training: dict[str, str | int | float | bool | None] = {}
    label_mix: dict[str, float] = {}
    cleaning: int = 1
    languages: tuple[str, ...] = ()

    @property
    def trainings(self) -> tuple[tuple[Source, ...], ...]:
        """What the model learnt from: in its own training, and in all those before together."""
        return (self.sources, self.base.sources)

    def precision(self, name: str) -> Precision:
        """Return the entry of *name*; bf16 that was never gated is the fp32 graph, rounded.

        Raises KeyError where there is neither.
        """
        if name == "bf16" and name not in self.precisions:
            name = "fp32"
        return self.precisions[name]

    def graph_file(self, precision: str, provider: str) -> str:
        """Return the file of the graph that *provider* runs for *precision*."""
        entry = self.precision(precision)
        return entry.packed if provider == "cuda" and entry.packed else entry.file


@dataclass(frozen=True, slots=True)
class Bundle:
    """An opened folder: its manifest was read and its structure checked, its files not yet.

    `digest` is the sha256 of manifest.json, which names the hash of every other file: it identifies
    the model.
    """

    path: Path
    manifest: Manifest
    digest: str

    def read(self, name: str) -> bytes:
        """Return one file's bytes after checking them, so that what was hashed is what is used."""
        entry = self.manifest.files[name]
        try:
            data = (self.path / name).read_bytes()
        except OSError as error:
            raise _bad(self.path, "MISSING_FILE", f"{name}: {error.strerror}") from error
        if len(data) != entry.size_bytes:
            why = f"{name} has {len(data)} bytes, the manifest says {entry.size_bytes}"
            raise _bad(self.path, "WRONG_SIZE", why)
        found = hashlib.sha256(data).hexdigest()
        if found != entry.sha256:
            why = f"{name} has sha256 {found[:12]}…, the manifest says {entry.sha256[:12]}…"
            raise _bad(self.path, "WRONG_HASH", why)
        if name.endswith(".onnx") and _EXTERNAL_DATA in data:
            raise _bad(self.path, "EXTERNAL_DATA", f"{name} keeps weights in another file")
        return data

    def verify(self) -> None:
        """Hash every file. Raises BundleError at the first that differs."""
        for name in self.manifest.files:
            self.read(name)


# TensorProto.external_data is a list of (key, value) pairs, and "location" is the key that every
# one must hold: an 8-byte string in the wire format. ONNX Runtime, given bytes and no folder, would
# refuse it too; this says so first.
_EXTERNAL_DATA: Final = b"\x08location"


def open_bundle(path: Path | str) -> Bundle:
    """Read the manifest of the folder *path* and check the folder's structure against it.

    Raises:
        BundleError: no folder, no or bad manifest, unknown schema version, a link, a file that is
        missing, unlisted or
            of a kind that no bundle has.
    """
    path = Path(path)
    if not path.is_dir():
        raise _bad(path, "NOT_FOUND", "there is no such folder")
    data = _read_manifest(path)
    manifest = _decode(path, data)
    _check_values(path, manifest)
    _check_folder(path, manifest)
    return Bundle(path=path, manifest=manifest, digest=hashlib.sha256(data).hexdigest())


def _read_manifest(path: Path) -> bytes:
    file = path / MANIFEST
    if file.is_symlink():
        raise _bad(path, "LINK", f"{MANIFEST} is a symlink")
    try:
        if file.stat().st_size > _MAX_MANIFEST_BYTES:
            raise _bad(
                path, "BAD_MANIFEST", f"{MANIFEST} is larger than {_MAX_MANIFEST_BYTES} bytes"
            )
        return file.read_bytes()
    except OSError as error:
        raise _bad(path, "MISSING_FILE", f"{MANIFEST}: {error.strerror}") from error


def _decode(path: Path, data: bytes) -> Manifest:
    class Head(msgspec.Struct):
        schema_version: int

    try:
        # First the version alone: a newer manifest may have another shape altogether.
        version = msgspec.json.decode(data, type=Head).schema_version
        if version != SCHEMA_VERSION:
            why = f"its schema version is {version}, this program reads {SCHEMA_VERSION}"
            raise _bad(path, "UNKNOWN_SCHEMA", why)
        return msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _bad(path, "BAD_MANIFEST", f"{MANIFEST} is not valid: {error}") from error


def _check_values(path: Path, manifest: Manifest) -> None:
    labels = manifest.labels
    problems = {
        "labels must be two or more different names": len(set(labels)) != len(labels)
        or len(labels) < 2,
        "precisions must name at least one graph": not manifest.precisions,
        "golden must hold at least one text": not manifest.golden,
        "golden probs must be one a label": any(
            len(g.probs) != len(labels) for g in manifest.golden
        ),
        "each precision's files must be listed under files": any(
            file not in manifest.files for p in manifest.precisions.values() for file in p.graphs
        ),
        "tokenizer.json must be listed under files": "tokenizer.json" not in manifest.files,
        "temperature must be a finite number above 0": any(
            not (math.isfinite(p.temperature) and p.temperature > 0)
            for p in manifest.precisions.values()
        ),
        "threshold must be between 0 and 1": not 0 <= (manifest.threshold or 0) <= 1,
    }
    for problem, found in problems.items():
        if found:
            raise _bad(path, "BAD_MANIFEST", problem)
    for name in manifest.files:
        parts = PurePosixPath(name)
        if parts.is_absolute() or ".." in parts.parts or "\\" in name or str(parts) != name:
            raise _bad(path, "BAD_MANIFEST", f"the file name {name!r} leaves the folder")


def _check_folder(path: Path, manifest: Manifest) -> None:
    present: set[str] = set()
    for folder, folders, files in os.walk(path):
        for entry in [*folders, *files]:
            file = Path(folder, entry)
            name = file.relative_to(path).as_posix()
            if file.is_symlink():
                raise _bad(path, "LINK", f"{name} is a symlink")
            if file.is_dir():
                continue
            if not file.is_file() or file.stat().st_nlink != 1:
                raise _bad(path, "LINK", f"{name} is a hard link or no plain file")
            if file.suffix not in _SUFFIXES:
                raise _bad(path, "FORBIDDEN_FILE", f"{name} is of a kind that no bundle has")
            present.add(name)
    present.discard(MANIFEST)
    if missing := sorted(set(manifest.files) - present):
        raise _bad(path, "MISSING_FILE", f"{missing[0]} is listed in the manifest and absent")
    if extra := sorted(present - set(manifest.files)):
        raise _bad(path, "FORBIDDEN_FILE", f"{extra[0]} is not listed in the manifest")


def _bad(path: Path, reason: str, why: str) -> BundleError:
    remedy = (
        "update sentimill or export it again"
        if reason == "UNKNOWN_SCHEMA"
        else "copy or export it again"
    )
    return BundleError(f"bundle {path} does not verify: {why}; {remedy}", reason=f"BUNDLE_{reason}")


def write_bundle(
    path: Path,
    files: Mapping[str, bytes | Path],
    manifest: Callable[[dict[str, File]], Manifest],
    *,
    overwrite: bool = False,
) -> Bundle:
    """Write a bundle from *files* (name in it to contents, or to a file to copy).

    *manifest* makes the manifest from their hashes.

    The folder appears under its final name complete or not at all. With *overwrite* an existing
    bundle there, and nothing else, is replaced.

    Raises:
        UsageError: the name is taken, by a bundle without *overwrite* or by anything else.
    """
    check_writable(path, overwrite=overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        listed = {name: _put(work / name, source) for name, source in sorted(files.items())}
        text = msgspec.json.format(msgspec.json.encode(manifest(listed)), indent=2)
        _put(work / MANIFEST, text + b"\n")
        open_bundle(work).verify()
        work.chmod(0o755)
        if path.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{path.name}.old.", dir=path.parent))
            path.rename(old / path.name)
            work.rename(path)
            shutil.rmtree(old)
        else:
            work.rename(path)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    return open_bundle(path)


def check_writable(path: Path, *, overwrite: bool) -> None:
    """Raise UsageError when no bundle may be written at *path*; ask before hours of training."""
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
    with target.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return File(sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))
