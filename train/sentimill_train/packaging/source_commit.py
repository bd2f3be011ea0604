"""The commit of the code that runs, where it is a checkout: a version names many of them."""

from __future__ import annotations

import subprocess
from pathlib import Path

__all__ = ["commit_of"]


def commit_of(file: Path) -> str | None:
    """Return the commit of the checkout that has *file*, with `-dirty` where others were changed.

    None where there is no git, or *file* is none of its files: an installed package may lie below
    somebody's own checkout, which says nothing of it.
    """

    def git(*command: str) -> str:
        return subprocess.run(
            ["git", "-C", str(file.parent), *command], check=True, capture_output=True, text=True
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", file.name)
        return git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.CalledProcessError):
        return None
