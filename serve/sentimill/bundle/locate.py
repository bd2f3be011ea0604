"""Finds the folder of a bundle by its name: the reference student, a folder, or the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from sentimill.bundle.reference import reference_bundle
from sentimill.errors import UsageError

_HUB: Final = "hub:"


def find_bundle(name: Path | str | None) -> Path | str:
    """Return the folder of the bundle *name*. Raises UsageError.

    A bundle on the Hub is downloaded, unless it is in the cache.
    """
    if name is None:
        return reference_bundle()
    if not str(name).startswith(_HUB):
        return name
    repository, _, revision = str(name).removeprefix(_HUB).partition("@")
    try:
        import huggingface_hub
    except ImportError as error:
        why = f"{name} needs the package huggingface_hub: pip install huggingface_hub"
        raise UsageError(why, reason="EXTRA_MISSING") from error
    try:
        return huggingface_hub.snapshot_download(repository, revision=revision or None)
    except (OSError, ValueError) as error:  # what it raises derives from these two
        why = f"{repository} cannot be downloaded from the Hugging Face Hub: {error}"
        raise UsageError(why, reason="HUB_UNREACHABLE") from error
