"""The reference student: the bundle that is used where a person names none.

It lies in `bundles/reference` of the repository, and a wheel carries it beside this file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from sentimill.errors import UsageError

__all__ = ["find_reference", "reference_bundle"]

_HERE: Final = Path(__file__).resolve().parent
_PLACES: Final = (_HERE / "bundles" / "reference", _HERE.parents[1] / "bundles" / "reference")


def find_reference() -> Path | None:
    """Return the folder of the reference student, or None where this installation has none."""
    return next((place for place in _PLACES if (place / "manifest.json").is_file()), None)


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
