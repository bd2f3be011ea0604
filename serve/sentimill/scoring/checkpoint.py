"""The checkpoint of a job: a journal of the finished parts, from which a killed job resumes.

::

    .OUT.score/
      lock               locked while a job runs; the kernel unlocks it when the process dies
      journal.jsonl      first line: inputs, options, model; then a line per part, and one per file
      0.data             the output so far, 1.data for the next file, and so on
      0.errors.jsonl     its bad rows
      0.parquet          the finished file, if that is not the data itself

A part is the output of one window, appended to the data. Data is on the disk before its line in the
journal; the next start cuts off and repeats what comes after the last line. In an unfinished file
it also repeats everything from the first part with an engine failure.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from sentimill.atomic_write import sync_folder
from sentimill.errors import UsageError
from sentimill.scoring.formats.table import Position
from sentimill.scoring.storage import Identity

_VERSION: Final = 2
_NAME: Final = "journal.jsonl"
_NOT_GIVEN: Final = ("", "0", "False", "None")
"""Values in a journal of an option that was not given; an older journal lacks the option."""


class RowCounts(msgspec.Struct, frozen=True):
    """Counts of written rows, and of tokens as the engine saw them.

    failed: rows with an error. blank: rows without a text, which are not among the failed ones.
    engine_failed: failed rows whose text is not to blame. kept: rows that had an answer before.
    """

    rows: int = 0
    failed: int = 0
    blank: int = 0
    engine_failed: int = 0
    kept: int = 0
    useful_tokens: int = 0
    padded_tokens: int = 0

    def __add__(self, other: RowCounts) -> RowCounts:
        pairs = zip(msgspec.structs.astuple(self), msgspec.structs.astuple(other), strict=True)
        return RowCounts(*(a + b for a, b in pairs))


class Header(msgspec.Struct, frozen=True, kw_only=True, tag="job"):
    """Everything that determines the output."""

    version: int = _VERSION
    inputs: tuple[Identity, ...]
    options: Mapping[str, str]
    model: str
    engine: str


class Part(msgspec.Struct, frozen=True, kw_only=True, tag="part"):
    """One appended window.

    end: where the next window begins. Counts and sizes are those of the file up to there.
    """

    file: int
    end: Position
    size_bytes: int
    sha256: str
    errors_bytes: int
    counts: RowCounts


class Done(msgspec.Struct, frozen=True, kw_only=True, tag="done"):
    """A complete file; it has its final name already, or gets it next."""

    file: int
    counts: RowCounts


Record = Header | Part | Done
_DECODER: Final = msgspec.json.Decoder(Record)


class FolderLock:
    """Locks the folder *path* for one job. Raises UsageError when another job has locked it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        while True:
            self._path.mkdir(exist_ok=True)
            self._file = (self._path / "lock").open("ab")
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                self._file.close()
                why = f"another job is writing this output (it locked {self._path}): wait for it"
                raise UsageError(why, reason="OUTPUT_LOCKED") from error
            try:
                if os.path.samestat(os.fstat(self._file.fileno()), (self._path / "lock").stat()):
                    return
            except FileNotFoundError:
                pass
            # The other job ended in between and removed the folder: create a new one.
            self._file.close()

    def __exit__(self, *_: object) -> None:
        self._file.close()


class Journal:
    """The records of a job, old and new. `parts` and `done` are keyed by file number."""

    def __init__(self, folder: Path, header: Header) -> None:
        """Read or begin the journal in *folder*. Raises UsageError if it is of another job."""
        self.folder = folder
        self.header = header
        self.parts: dict[int, list[Part]] = {}
        self.done: dict[int, Done] = {}
        path = folder / _NAME
        records = _read(path)
        begun = {record.file for record in records if not isinstance(record, Header)}
        if records:
            _compare(folder, records[0], header, begun)
        for record in records[1:]:
            if isinstance(record, Part):
                self.parts.setdefault(record.file, []).append(record)
            elif isinstance(record, Done):
                self.done[record.file] = record
        self.resumed = bool(records)
        for file, parts in self.parts.items():
            if file not in self.done:
                self.parts[file] = _whole(folder / f"{file}.data", _before_failures(parts))
        # Rewritten without torn lines and without parts whose data is missing.
        kept: list[Record] = [header, *(p for k in sorted(self.parts) for p in self.parts[k])]
        kept += self.done.values()
        temporary = folder / f"{_NAME}.new"
        with temporary.open("wb") as anew:
            anew.writelines(msgspec.json.encode(record) + b"\n" for record in kept)
            anew.flush()
            os.fsync(anew.fileno())
        temporary.replace(path)
        sync_folder(folder)
        self._file = path.open("ab")

    @staticmethod
    def exists(folder: Path) -> bool:
        """Say whether *folder* holds an unfinished job."""
        return (folder / _NAME).exists()

    @staticmethod
    def drop(folder: Path) -> None:
        """Delete the unfinished job in *folder*, but not its lock."""
        for path in folder.iterdir():
            if path.name != "lock":
                path.unlink()

    def append(self, records: Sequence[Record]) -> None:
        """Write *records* and wait until they are on the disk."""
        self._file.write(b"".join(msgspec.json.encode(record) + b"\n" for record in records))
        self._file.flush()
        os.fsync(self._file.fileno())
        # An open file stays writable when its folder is removed, but nobody would find it again.
        os.stat(self.folder / _NAME)

    def close(self) -> None:
        """Close the file, and keep the finished parts."""
        self._file.close()

    def remove(self) -> None:
        """Remove the folder: the job is over."""
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def _read(path: Path) -> list[Record]:
    """Return the records of the journal; a torn last line counts as never written."""
    if not path.exists():
        return []
    records: list[Record] = []
    for line in path.read_bytes().split(b"\n")[:-1]:
        try:
            records.append(_DECODER.decode(line))
        except msgspec.DecodeError:
            break
    return records


def _before_failures(parts: list[Part]) -> list[Part]:
    """Return the parts before the first with an engine failure; the rest is classified again."""
    failed = next((k for k, part in enumerate(parts) if part.counts.engine_failed), len(parts))
    return parts[:failed]


def _whole(data: Path, parts: list[Part]) -> list[Part]:
    """Return the parts before the first whose bytes are not what the journal says."""
    if not data.exists():
        return []
    at = 0
    with data.open("rb") as file:
        for k, part in enumerate(parts):
            if _digest(file, part.size_bytes - at) != part.sha256:
                return parts[:k]
            at = part.size_bytes
    return parts


def _digest(file: BinaryIO, size: int) -> str:
    found = hashlib.sha256()
    while size > 0 and (block := file.read(min(size, 1 << 20))):
        found.update(block)
        size -= len(block)
    return found.hexdigest() if size == 0 else ""


def _compare(folder: Path, old: Record, new: Header, begun: set[int]) -> None:
    """Raise UsageError that says what differs between the interrupted job and this one.

    Inputs that were not *begun* may have changed: the user may have repaired one that failed.
    """
    remedy = f"change it back, or drop the finished work in {folder} with --restart"
    if not isinstance(old, Header) or old.version != new.version:
        why = f"the interrupted job in {folder} is of another version"
        raise UsageError(f"{why}: {remedy}", reason="JOURNAL_UNREADABLE")
    parts = [
        *(
            (name, old.options.get(name), new.options.get(name), "OPTION_CHANGED")
            for name in sorted({*old.options, *new.options})
        ),
        ("the model", old.model[:12], new.model[:12], "BUNDLE_CHANGED"),
        ("the engine", old.engine, new.engine, "ENGINE_CHANGED"),
    ]
    for name, before, now, reason in parts:
        newer = (before is None and now in _NOT_GIVEN) or (now is None and before in _NOT_GIVEN)
        if before != now and not newer:
            why = f"the interrupted job had {name} {before or 'unset'}, now it is {now or 'unset'}"
            raise UsageError(f"{why}: {remedy}", reason=reason)
    was = {entry.address: entry for entry in old.inputs}
    here = {entry.address: entry for entry in new.inputs}
    fresh = {entry.address for k, entry in enumerate(old.inputs) if k not in begun}
    for address in sorted({*was, *here}):
        if address in fresh and address in here:
            continue
        if was.get(address) != here.get(address):
            why = f"the input {address} is {_change(was.get(address), here.get(address))}"
            raise UsageError(f"{why}: {remedy}", reason="INPUT_CHANGED")
    if list(was) != list(here):
        raise UsageError(f"the order of the inputs changed: {remedy}", reason="INPUT_CHANGED")


def _change(old: Identity | None, new: Identity | None) -> str:
    if old is None:
        return "new since the job was interrupted"
    if new is None:
        return "gone since the job was interrupted"
    if old.size_bytes != new.size_bytes:
        return f"{new.size_bytes} bytes long, it was {old.size_bytes}"
    return "not the one that the job began with: it was changed or written again"
