"""Files that appear whole, with their content on the disk."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from sentimill.atomic_write import move_into_place, new_folder, write_atomically


def test_a_file_is_written_with_its_folder_and_replaced(tmp_path: Path) -> None:
    """Nothing else is left in the folder, and others may read it."""
    target = tmp_path / "new/report.html"

    write_atomically(target, b"one")
    write_atomically(target, b"two")

    assert target.read_bytes() == b"two"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize(
    ("umask", "file", "folder"), [(0o022, 0o644, 0o755), (0o007, 0o660, 0o770)]
)
def test_permissions_follow_the_umask(tmp_path: Path, umask: int, file: int, folder: int) -> None:
    """As those of a file or a folder that any program makes."""
    before = os.umask(umask)
    try:
        write_atomically(tmp_path / "report.html", b"")
        with new_folder(tmp_path / "bundle"):
            pass
    finally:
        os.umask(before)

    assert (tmp_path / "report.html").stat().st_mode & 0o777 == file
    assert (tmp_path / "bundle").stat().st_mode & 0o777 == folder


def test_a_folder_is_replaced(tmp_path: Path) -> None:
    """By the new one, and nothing else is left."""
    for content in ("old", "new"):
        with new_folder(tmp_path / "bundle") as work:
            (work / content).touch()

    assert [*tmp_path.rglob("*")] == [tmp_path / "bundle", tmp_path / "bundle/new"]


def test_a_folder_that_cannot_be_replaced_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the old folder has been moved away already when the disk fails."""
    target = tmp_path / "bundle"
    target.mkdir()
    (target / "old").touch()
    rename = Path.rename

    def fails(self: Path, to: Path) -> Path:
        if (self / "new").exists():
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(OSError, match="Input/output"), new_folder(target) as work:
        (work / "new").touch()

    assert [*tmp_path.rglob("*")] == [target, target / "old"]


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
