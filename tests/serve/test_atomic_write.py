"""Files that appear whole, with their content on the disk."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from sentimill.atomic_write import move_into_place, write_atomically


def test_a_file_is_written_with_its_folder_and_replaced(tmp_path: Path) -> None:
    """Nothing else is left in the folder, and others may read it."""
    target = tmp_path / "new/report.html"

    write_atomically(target, b"one")
    write_atomically(target, b"two")

    assert target.read_bytes() == b"two"
    assert list(target.parent.iterdir()) == [target]
    assert target.stat().st_mode & 0o777 == 0o644


def test_a_failed_write_keeps_the_old_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full, say: the old file stays, and no other one is left."""
    target = tmp_path / "report.html"
    target.write_bytes(b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(target, b"new")

    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_file_from_another_disk_is_copied_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rename does not go from one disk to another."""
    file, target = tmp_path / "made", tmp_path / "out/made"
    file.write_bytes(b"data")
    target.parent.mkdir()
    replace = Path.replace

    def across(self: Path, to: Path) -> Path:
        if self == file:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return replace(self, to)

    monkeypatch.setattr(Path, "replace", across)
    move_into_place(file, target)

    assert target.read_bytes() == b"data"
    assert list(tmp_path.rglob("made")) == [target]
