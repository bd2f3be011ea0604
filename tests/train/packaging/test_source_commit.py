"""A run records the commit of its code, where there is one."""

from __future__ import annotations

import subprocess
from pathlib import Path

from sentimill_train.packaging.source_commit import commit_of


def git(folder: Path, *command: str) -> str:
    """Return what git says in *folder*."""
    who = ("-c", "user.name=a", "-c", "user.email=a@b")
    return subprocess.run(
        ["git", "-C", str(folder), *who, *command], check=True, capture_output=True, text=True
    ).stdout.strip()


def test_a_checkout_has_a_commit_and_says_when_it_was_changed(tmp_path: Path) -> None:
    """A file that is not of it has none, and none outside of any."""
    assert commit_of(tmp_path / "code.py") is None
    git(tmp_path, "init", "--quiet")
    (tmp_path / "code.py").write_text("1")
    (tmp_path / "installed.py").write_text("2")
    git(tmp_path, "add", "code.py")
    git(tmp_path, "commit", "--quiet", "-m", "first")
    commit = git(tmp_path, "rev-parse", "HEAD")

    assert commit_of(tmp_path / "code.py") == commit
    assert commit_of(tmp_path / "installed.py") is None
    (tmp_path / "code.py").write_text("3")
    assert commit_of(tmp_path / "code.py") == f"{commit}-dirty"
