"""Notices when files change while a server runs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


class FileWatcher:
    """Tells whether any of some files was written or replaced since it was last asked."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._paths = tuple(paths)
        self._stamp = self._look()

    def changed(self) -> bool:
        """Look at the files, and remember how they are now."""
        before, self._stamp = self._stamp, self._look()
        return before != self._stamp

    def _look(self) -> list[tuple[int, int, int] | None]:
        return [_stamp(path) for path in self._paths]


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None  # gone for a moment, as when it is replaced
    return found.st_mtime_ns, found.st_size, found.st_ino
