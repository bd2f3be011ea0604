"""The output of a running job: parts in a folder, from which it can resume, or standard output."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

from sentimill.errors import SentimillError
from sentimill.scoring.checkpoint import Journal, Part, RowCounts
from sentimill.scoring.formats.table import Position
from sentimill.scoring.storage import writing

_COMMIT_S: Final = 1.0
"""Parts are written to the journal at most this often: an fsync may take longer than a part."""


class StreamOutput:
    """Standard output, which cannot be resumed. It has the interface of `PartsOutput`."""

    begun = False
    end = Position()
    counts = RowCounts()

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def append(self, data: bytes, errors: bytes, end: Position, rows: RowCounts) -> None:
        """Write a part; errors are only in their column."""
        try:
            self._file.write(data)
            self._file.flush()
        except OSError as error:
            # Such as `| head`, which reads only the first lines.
            why = f"standard output was closed: {error}"
            raise SentimillError(why, reason="OUTPUT_GONE") from error


class PartsOutput:
    """The data of file *number* in a journal's folder, opened at its end.

    begun, end, counts: whether there already is a part, where the next begins, the rows so far.
    """

    def __init__(
        self,
        journal: Journal,
        number: int,
        *,
        name: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._journal = journal
        self._number = number
        self._name = name
        self._clock = clock
        self._pending: list[Part] = []
        parts = journal.parts.get(number, [])
        self.begun = bool(parts)
        self.end = parts[-1].end if parts else Position()
        self.counts = parts[-1].counts if parts else RowCounts()
        self._errors_bytes = parts[-1].errors_bytes if parts else 0
        self._size_bytes = parts[-1].size_bytes if parts else 0
        with writing(name):
            self._file = _open_at(self.path, self._size_bytes)
            self._errors = _open_at(self.errors_path, self._errors_bytes)
        self._committed = clock()

    @property
    def path(self) -> Path:
        """The file of the data."""
        return self._journal.folder / f"{self._number}.data"

    @property
    def errors_path(self) -> Path:
        """The file of the bad rows; empty if there are none."""
        return self._journal.folder / f"{self._number}.errors.jsonl"

    def append(self, data: bytes, errors: bytes, end: Position, rows: RowCounts) -> None:
        """Add the next part; *rows* counts the rows of this part alone."""
        with writing(self._name):
            self._file.write(data)
            self._errors.write(errors)
        self._size_bytes += len(data)
        self._errors_bytes += len(errors)
        self.counts += rows
        self.end = end
        self._pending.append(
            Part(
                file=self._number,
                end=end,
                size_bytes=self._size_bytes,
                sha256=hashlib.sha256(data).hexdigest(),
                errors_bytes=self._errors_bytes,
                counts=self.counts,
            )
        )
        if self._clock() - self._committed >= _COMMIT_S:
            self.commit()

    def commit(self) -> None:
        """Wait until the parts are on the disk, then write them to the journal."""
        if self._pending:
            parts, self._pending = self._pending, []
            with writing(self._name):
                for file in (self._file, self._errors):
                    if file.tell():
                        file.flush()
                        os.fsync(file.fileno())
                self._journal.append(parts)
        self._committed = self._clock()

    def close(self) -> None:
        """Write everything to the journal."""
        try:
            self.commit()
        finally:
            for file in (self._file, self._errors):
                # What could not be flushed is not in the journal, so it will be done again.
                with suppress(OSError):
                    file.close()


def _open_at(path: Path, size: int) -> BinaryIO:
    """Open *path* to write after its first *size* bytes; what follows them is cut off."""
    file = path.open("r+b" if path.exists() else "w+b", buffering=1 << 20)
    file.truncate(size)
    file.seek(size)
    return file
