"""One run over the units of a job, each from its checkpoint to its final name."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import BinaryIO

import msgspec

from sentimill.errors import EngineError, SentimillError, TableError, UsageError
from sentimill.scoring.answer_columns import Answers, AnswerSchema
from sentimill.scoring.checkpoint import Done, Journal, RowCounts
from sentimill.scoring.formats.compression import reading
from sentimill.scoring.formats.table import Layout, Position, Window
from sentimill.scoring.output_format import OutputFormat, finished_path
from sentimill.scoring.part_writer import PartsOutput, StreamOutput
from sentimill.scoring.pipeline import File, StopRules, run
from sentimill.scoring.planning import Unit, open_table
from sentimill.scoring.scorers import Scorer
from sentimill.scoring.storage import (
    STANDARD,
    Identity,
    exists,
    identity,
    is_remote,
    local,
    publish,
    remove,
    writing,
)


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a job: total rows, rows of this run, bytes read, total bytes, seconds."""

    counts: RowCounts
    rows_now: int
    read_bytes: int
    total_bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Summary:
    """The result of a finished job. resumed_rows: those of earlier runs. seconds: of this run.

    errors: the files that list bad rows.
    """

    counts: RowCounts
    resumed_rows: int
    seconds: float
    outputs: tuple[str, ...]
    errors: tuple[str, ...]

    @property
    def rows(self) -> int:
        """Rows in the outputs."""
        return self.counts.rows

    @property
    def failed(self) -> int:
        """Rows with an error instead of an answer; a blank text is not an error."""
        return self.counts.failed


@dataclass(slots=True)
class Run:
    """A running job; use it once."""

    units: Sequence[Unit]
    layout: Layout
    scorer: Scorer
    columns: AnswerSchema
    limits: StopRules
    report: Callable[[Progress], None]
    overwrite: bool
    _began: float = field(default_factory=time.monotonic)
    _counts: RowCounts = field(default_factory=RowCounts)
    _resumed: int = 0
    _total_bytes: int = 0
    _errors: list[str] = field(default_factory=list)

    def to_stream(self, stream: BinaryIO) -> Summary:
        """Score the one unit to standard output."""
        (unit,) = self.units
        self._total_bytes = identity(unit.source, sample=False).size_bytes
        with ExitStack() as opened:
            output = StreamOutput(stream)
            return self._score([self._open(unit, output, 0, lambda _: None, opened)])

    def to_files(self, journal: Journal) -> Summary:
        """Score every unit that is not done in the *journal*, and publish it."""
        self._total_bytes = sum(entry.size_bytes for entry in journal.header.inputs)
        with ExitStack() as opened:
            return self._score(self._open_all(journal, opened))

    def _open_all(self, journal: Journal, opened: ExitStack) -> Iterator[File]:
        """Open one unit after the other, in the thread that reads."""
        before = 0
        for number, unit in enumerate(self.units):
            done = journal.done.get(number)
            if done is not None:
                resume = partial(self._resume, done.counts)
                yield File(lambda: iter(()), resume, _never, partial(self._publish, journal, done))
            else:
                if not self.overwrite:
                    refuse_existing(unit.target)
                output = PartsOutput(journal, number, name=unit.target)
                opened.callback(output.close)
                finish = partial(self._finish, journal, number, output)
                yield self._open(unit, output, before, finish, opened)
            before += journal.header.inputs[number].size_bytes

    def _open(
        self,
        unit: Unit,
        output: PartsOutput | StreamOutput,
        before: int,
        finish: Callable[[OutputFormat], None],
        opened: ExitStack,
    ) -> File:
        closing = ExitStack()  # an error of another file must not pass through this one's reader
        opened.callback(closing.close)
        table = closing.enter_context(open_table(unit, self.layout, self.columns))
        form = OutputFormat(unit, table, self.layout, self.columns)

        def windows() -> Iterator[Window]:
            with reading(unit.source):
                yield from table.windows(output.end)

        def begin() -> None:
            self._resume(output.counts)
            if not output.begun:
                output.append(form.head(), b"", Position(), RowCounts())

        def write(window: Window, answers: Answers) -> None:
            with reading(unit.source):
                data = form.render(window, self.columns.add(answers))
            is_blank = self.limits.is_blank
            errors = {k: error for k, error in answers.errors.items() if not is_blank(error)}
            rows = _count(window, answers, errors)
            output.append(data, _error_lines(window, errors), window.end, rows)
            self._wrote(rows, before + window.consumed)

        def end() -> None:
            finish(form)
            closing.close()

        return File(windows, begin, write, end)

    def _score(self, files: Iterable[File]) -> Summary:
        """Run the pipeline over *files* to its end; raise if it is stopped before."""
        if not run(files, self.scorer, self.limits, lambda: self._counts):
            why = f"stopped after {self._counts.rows} rows"
            if STANDARD in (self.units[0].source, self.units[0].target):
                why += ": a job over standard input or output cannot be continued"
            else:
                why += ", all of them saved: run the same command again to go on"
            raise SentimillError(why, reason="INTERRUPTED")
        seconds = time.monotonic() - self._began
        outputs = tuple(unit.target for unit in self.units)
        return Summary(self._counts, self._resumed, seconds, outputs, tuple(self._errors))

    def _resume(self, counts: RowCounts) -> None:
        """Count rows that an earlier run has done."""
        self._counts += counts
        self._resumed += counts.rows

    def _wrote(self, rows: RowCounts, read_bytes: int) -> None:
        """Count rows that are written, and report."""
        self._counts += rows
        seconds = time.monotonic() - self._began
        now = self._counts.rows - self._resumed
        self.report(Progress(self._counts, now, read_bytes, self._total_bytes, seconds))

    def _finish(
        self, journal: Journal, number: int, output: PartsOutput, form: OutputFormat
    ) -> None:
        """Make the finished file from the parts of a unit, and publish it."""
        unit = self.units[number]
        output.close()
        _check_unchanged(unit, journal.header.inputs[number])
        done = Done(file=number, counts=output.counts)
        with reading(unit.source), writing(unit.target):
            form.finish(output.path, self._check_stop)
            journal.append([done])
        self._publish(journal, done)

    def _check_stop(self) -> None:
        if self.limits.stop.is_set():
            why = "stopped while the file was put together; every answer is saved: run the same"
            raise SentimillError(why + " command again to go on", reason="INTERRUPTED")

    def _publish(self, journal: Journal, done: Done) -> None:
        """Give a finished file its name; after a crash, do the steps that are left."""
        number, unit = done.file, self.units[done.file]
        data = journal.folder / f"{number}.data"
        finished = finished_path(data, unit.target_kind)
        errors = journal.folder / f"{number}.errors.jsonl"
        listed = errors_of(unit.target)
        if not is_remote(unit.target):
            with writing(unit.target):
                local(unit.target).absolute().parent.mkdir(parents=True, exist_ok=True)
        if errors.exists():
            if errors.stat().st_size:
                publish(errors, listed)
            else:
                remove(listed)
                errors.unlink()
        if finished.exists():
            if not self.overwrite and exists(unit.target):
                why = f"{unit.target} appeared while the job ran, so it is not replaced: rename it,"
                why += " or run the same command again with --overwrite; every answer is saved"
                raise UsageError(why, reason="OUTPUT_EXISTS")
            publish(finished, unit.target)
            if finished != data:
                data.unlink(missing_ok=True)
        elif not exists(unit.target):
            why = f"{unit.target} was finished by an earlier run and is gone: use --restart"
            raise UsageError(why, reason="OUTPUT_GONE")
        if done.counts.failed:
            self._errors.append(listed)


def _never(_: Window, __: Answers) -> None:
    raise NotImplementedError("a finished file has no windows")


def _count(window: Window, answers: Answers, errors: Mapping[int, SentimillError]) -> RowCounts:
    return RowCounts(
        rows=len(window.texts),
        failed=len(errors),
        blank=len(answers.errors) - len(errors),
        engine_failed=sum(isinstance(error, EngineError) for error in errors.values()),
        kept=sum(text is None for text in window.texts),
        useful_tokens=answers.useful_tokens,
        padded_tokens=answers.padded_tokens,
    )


def _error_lines(window: Window, errors: Mapping[int, SentimillError]) -> bytes:
    """Return the lines of the errors file: the row from 1, its first line, code and message."""
    first = window.end.rows - len(window.texts)
    return b"".join(
        msgspec.json.encode(
            {
                "row": first + place + 1,
                "line": window.lines[place],
                "error": error.reason,
                "message": str(error),
            }
        )
        + b"\n"
        for place, error in sorted(errors.items())
    )


def errors_of(target: str) -> str:
    """Return the name of the file that lists the bad rows of *target*."""
    return f"{target}.errors.jsonl"


def refuse_existing(target: str) -> None:
    """Raise UsageError when there is something at *target*."""
    if target != STANDARD and exists(target):
        why = f"{target} exists: add --overwrite to replace it, or choose another name"
        raise UsageError(why, reason="OUTPUT_EXISTS")


def _check_unchanged(unit: Unit, source: Identity) -> None:
    if unit.source == STANDARD:
        return
    now = identity(unit.source, sample=False)
    if (now.size_bytes, now.stamp) != (source.size_bytes, source.stamp):
        why = f"{unit.source} was changed while it was read: nothing was written to {unit.target};"
        raise TableError(f"{why} run again with --restart", reason="INPUT_CHANGED")
