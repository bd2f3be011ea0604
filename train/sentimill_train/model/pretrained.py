"""Finds the encoder that training starts from, as a folder of three plain files.

They are config.json, model.safetensors and tokenizer.json: no code is run, and no pickle is read.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from sentimill.bundle.manifest import MANIFEST, Base, Source
from sentimill.bundle.reader import WEIGHTS
from sentimill.errors import UsageError
from sentimill_train.model.packaged_encoders import MINILM, MPNET, find_packaged, sha256_of

_ADAPTER: Final = "adapter_config.json"  # names another model, which peft would load
_LOG: Final = logging.getLogger(__name__)
_FILES: Final = ("config.json", WEIGHTS, "tokenizer.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pretrained:
    """An encoder on disk. `sha256` is that of its weights; `revision` is None for a folder.

    sources, base: what it was trained on and made from, if it is a bundle or was trimmed from one.
    """

    name: str
    folder: Path
    sha256: str
    revision: str | None = None
    sources: tuple[Source, ...] = ()
    base: Base | None = None

    def as_base(self) -> Base:
        """Return its entry for the manifest of a bundle that is made from it."""
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

    The default, which `all-MiniLM-L6-v2` names too, and `all-mpnet-base-v2` come from installed
    packages and need no network; only a hub name does. A bundle is a folder like any other.

    Raises:
        UsageError: BASE_NOT_FOUND, BASE_UNSAFE if one of the three files is missing or has a wrong
            hash, HUB_UNREACHABLE.
    """
    base = base or MINILM.short_name
    for encoder in (MINILM, MPNET):
        if base == encoder.short_name:
            folder = find_packaged(encoder, _FILES, Path.home() / ".cache" / "sentimill")
            return _checked(encoder.name, folder, encoder.revision)
    if base.startswith("hub:"):
        return _from_hub(base.removeprefix("hub:"))
    folder = Path(base)
    if not folder.is_dir():
        raise UsageError(
            f"there is no folder {base}: check --base, or write hub:owner/name for a model of the"
            " hub",
            reason="BASE_NOT_FOUND",
        )
    return _checked(folder.resolve().name, folder, None)


def _from_hub(name: str) -> Pretrained:
    from huggingface_hub import snapshot_download

    name, _, revision = name.partition("@")
    if not revision and name == MINILM.name:
        revision = MINILM.revision or ""
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
            "this name may mean other weights on the hub later: write hub:%s@%s to get the same",
            name,
            folder.name,
        )
    # The cache of the hub names the folder by the commit, so a branch is recorded as its commit.
    return _checked(name, folder, folder.name)


def _checked(name: str, folder: Path, revision: str | None) -> Pretrained:
    for file in _FILES:
        if not (folder / file).is_file():
            if (folder / MANIFEST).is_file():
                remedy = (
                    "the bundle can answer, but training needs the weights too. Those of the model"
                    " that comes with Sentimill are a separate package: `pip install ./bundles` in"
                    " a clone"
                )
            elif file == WEIGHTS:
                remedy = "save the model with safe_serialization=True"
            else:
                remedy = "save the model and its fast tokenizer there"
            raise UsageError(
                f"{folder} has no {file}, and no other file is read instead: {remedy}",
                reason="BASE_UNSAFE",
            )
    if (folder / _ADAPTER).exists():
        raise UsageError(
            f"{folder} has an {_ADAPTER}, so its weights are an adapter of another model: merge the"
            " two, and save the result",
            reason="BASE_UNSAFE",
        )
    sources, base = _history(folder)
    return Pretrained(
        name=name,
        folder=folder,
        sha256=sha256_of(folder / WEIGHTS),
        revision=revision,
        sources=sources,
        base=base,
    )


def _history(folder: Path) -> tuple[tuple[Source, ...], Base | None]:
    """Return the sources in the manifest in *folder*, with those of its base, and that base.

    The rest of the manifest is not checked. A manifest of another program has no sources.
    """

    class Known(msgspec.Struct):
        sources: tuple[Source, ...] = ()
        base: Base | None = None

    try:
        known = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Known)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return (), None
    if known.base is None:
        return known.sources, None
    sources = tuple(dict.fromkeys((*known.sources, *known.base.sources)))
    return sources, msgspec.structs.replace(known.base, sources=())
