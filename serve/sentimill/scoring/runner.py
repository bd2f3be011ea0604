"""One run over the units of a job, each from its checkpoint to its final name."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

from sentimill.errors import SentimillError, TableError, UsageError
from sentimill.scoring.answer_columns import Answers, AnswerSchema
from sentimill.scoring.checkpoint import Done, Journal, RowCounts
from sentimill.scoring.formats.table import Layout, Position, Table, Window
from sentimill.scoring.output_format import OutputFormat, finished_path
from sentimill.scoring.part_writer import Output, PartsOutput, StreamOutput
from sentimill.scoring.pipeline import Pipeline, StopRules
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

__all__ = ["Progress", "Run", "Summary", "refuse_existing"]


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a job: rows in all and in this run, input bytes read and in all, seconds."""

    counts: RowCounts
    rows_now: int
    read_bytes: int
    total_bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Summary:
    """The result of a finished job. resumed_rows: done by an earlier run. seconds: of this run.

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
        """Rows with an error in place of an answer; blank texts are no error."""
        return self.counts.failed


@dataclass(slots=True)
class Run:
    """A running job; may be used once."""

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
    _read_bytes: int = 0
    _total_bytes: int = 0

    def to_stream(self, stream: BinaryIO) -> Summary:
        """Score the one unit to standard output."""
        (unit,) = self.units
        self._total_bytes = identity(unit.source, sample=False).size_bytes
        with open_table(unit, self.layout, self.columns) as table:
            output = StreamOutput(stream)
            form = OutputFormat(unit, table, self.layout, self.columns)
            output.append(form.head(), b"", Position(), RowCounts())
            self._score(unit, table, Position(), output, form)
        return self._summary(())

    def to_files(self, journal: Journal) -> Summary:
        """Score every unit that is not done in the *journal*, and publish it."""
        inputs = journal.header.inputs
        self._total_bytes = sum(entry.size_bytes for entry in inputs)
        errors: list[str] = []
        for number, unit in enumerate(self.units):
            done = journal.done.get(number)
            if done is None:
                if not self.overwrite:
                    refuse_existing(unit.target)
                done = self._score_file(journal, number, unit, inputs[number])
            else:
                self._counts += done.counts
                self._resumed += done.counts.rows
                self._publish(journal, number, unit)
            self._read_bytes += inputs[number].size_bytes
            if done.counts.failed:
                errors.append(f"{unit.target}.errors.jsonl")
        return self._summary(tuple(errors))

    def _score_file(self, journal: Journal, number: int, unit: Unit, source: Identity) -> Done:
        before = self._counts
        with open_table(unit, self.layout, self.columns) as table:
            form = OutputFormat(unit, table, self.layout, self.columns)
            output = PartsOutput(journal, number, name=unit.target)
            self._counts += output.counts
            self._resumed += output.counts.rows
            try:
                if not output.begun:
                    output.append(form.head(), b"", Position(), RowCounts())
                self._score(unit, table, output.end, output, form)
            finally:
                output.close()
            _check_unchanged(unit, source)
            with writing(unit.target):
                form.finish(output.path, self._check_stop)
        counts = output.counts
        self._counts = before + counts
        done = Done(file=number, counts=counts)
        with writing(unit.target):
            journal.append([done])
        self._publish(journal, number, unit)
        return done

    def _score(
        self, unit: Unit, table: Table, start: Position, output: Output, form: OutputFormat
    ) -> None:
        """Run the pipeline to the end of *table*, or raise when it was stopped before."""

        def wrote(rows: RowCounts, consumed: int) -> None:
            self._counts += rows
            seconds = time.monotonic() - self._began
            read = self._read_bytes + consumed
            now = self._counts.rows - self._resumed
            self.report(Progress(self._counts, now, read, self._total_bytes, seconds))

        def render(window: Window, answers: Answers) -> bytes:
            return form.render(window, self.columns.add(answers))

        pipeline = Pipeline(self.scorer, self.columns, output, render, wrote)
        if pipeline.run(table, start, self.limits, self._counts):
            return
        why = f"stopped after {self._counts.rows} rows"
        if STANDARD in (unit.source, unit.target):
            why += ": a job over standard input or output cannot be continued"
        else:
            why += ", all of them saved: run the same command again to go on"
        raise SentimillError(why, reason="INTERRUPTED")

    def _check_stop(self) -> None:
        if self.limits.stop.is_set():
            why = "stopped while the file was put together; every answer is saved: run the same"
            raise SentimillError(why + " command again to go on", reason="INTERRUPTED")

    def _publish(self, journal: Journal, number: int, unit: Unit) -> None:
        """Give a finished file its name; after a crash, do the rest of these steps."""
        data = journal.folder / f"{number}.data"
        finished = finished_path(data, unit.target_kind)
        errors = journal.folder / f"{number}.errors.jsonl"
        listed = f"{unit.target}.errors.jsonl"
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

    def _summary(self, errors: tuple[str, ...]) -> Summary:
        seconds = time.monotonic() - self._began
        outputs = tuple(unit.target for unit in self.units)
        return Summary(self._counts, self._resumed, seconds, outputs, errors)


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
