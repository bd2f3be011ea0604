"""Finds the commit of the running code, if it is a checkout; one version has many commits."""

from __future__ import annotations

import subprocess
from pathlib import Path


def commit_of(file: Path) -> str | None:
    """Return the commit of the checkout that has *file*, with `-dirty` if files were changed.

    None without git, or if git does not track *file*: an installed package may lie inside another
    checkout, whose commit says nothing about it.
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
