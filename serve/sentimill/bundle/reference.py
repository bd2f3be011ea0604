"""The reference student: the bundle that is used when the user names none.

It is in `bundles/reference` of the repository. A symlink in this package points there, and a wheel
has the folder in place of the symlink.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from sentimill.errors import UsageError

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
