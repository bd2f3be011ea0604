"""Finds the folder of a bundle by its name: the reference student, a folder, or the Hub.

The reference student is used when the user names no bundle. It is in `bundles/reference` of the
repository. A symlink in this package points there, and a wheel has the folder in place of the
symlink.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from sentimill.errors import UsageError

_HUB: Final = "hub:"
_FOLDER: Final = Path(__file__).parent / "reference_student"


def find_reference() -> Path | None:
    """Return the folder of the reference student, or None if this installation has none."""
    return _FOLDER.resolve() if (_FOLDER / "manifest.json").is_file() else None


def reference_bundle() -> Path:
    """Return the folder of the reference student.

    Raises:
        UsageError: NO_MODEL, this installation has none.
    """
    found = find_reference()
    if found is None:
        raise UsageError(
            "name the model with --bundle FOLDER: this installation has no reference student",
            reason="NO_MODEL",
        )
    return found


def is_on_hub(name: Path | str) -> bool:
    """Say whether *name* is a bundle on the Hugging Face Hub, and not a folder."""
    return str(name).startswith(_HUB)


def find_bundle(name: Path | str | None) -> Path | str:
    """Return the folder of the bundle *name*. Raises UsageError.

    A bundle on the Hub is downloaded, unless it is in the cache.
    """
    if name is None:
        return reference_bundle()
    if not is_on_hub(name):
        return name
    repository, _, revision = str(name).removeprefix(_HUB).partition("@")
    try:
        import huggingface_hub
    except ImportError as error:
        why = f"{name} needs the package huggingface_hub: pip install huggingface_hub"
        raise UsageError(why, reason="EXTRA_MISSING") from error
    try:
        return huggingface_hub.snapshot_download(repository, revision=revision or None)
    except (OSError, ValueError) as error:  # all its errors derive from these two
        why = f"{repository} cannot be downloaded from the Hugging Face Hub: {error}"
        raise UsageError(why, reason="HUB_UNREACHABLE") from error
