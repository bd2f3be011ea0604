"""The pipeline of a job: it reads, tokenises, classifies and writes at the same time.

Each stage works on a window of its own. Reading is one window ahead of tokenising, which is one
ahead of the engine, and writing is one behind. The tokenizer, the engine, compression and fsync all
release the interpreter lock, so they use a core that the engine leaves free.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, TypeVar

import msgspec

from sentimill.errors import EngineError, SentimillError, TableError
from sentimill.scoring.answer_columns import Answers, AnswerSchema
from sentimill.scoring.checkpoint import RowCounts
from sentimill.scoring.formats.table import Position, Table, Window
from sentimill.scoring.part_writer import Output
from sentimill.scoring.scorers import Scorer

__all__ = ["Pipeline", "StopRules"]

T = TypeVar("T")
_END: Final = object()


MAX_ENGINE_FAILURES: Final = 16
MAX_ENGINE_FAILURE_SHARE: Final = 0.01
"""A job ends unpublished when the engine failed on more rows than this, and on more than this share
of the rows with a text. Fewer are texts that break the engine, not an engine that is broken."""

_BLANK: Final = frozenset({"EMPTY_TEXT", "MISSING_TEXT"})


@dataclass(frozen=True, slots=True)
class StopRules:
    """When a job stops early: when *stop* is set, or above *max_errors* bad rows.

    strict: a blank text is a bad row too.
    """

    stop: threading.Event
    max_errors: int | None = None
    strict: bool = False

    def is_blank(self, error: SentimillError) -> bool:
        """Say whether *error* only means that the cell is blank, which is normal in a table."""
        return not self.strict and error.reason in _BLANK

    def check(self, counts: RowCounts, engine_error: SentimillError | None) -> None:
        """Raise EngineError when the engine failed too often, TableError for too many bad rows."""
        failures, rows = counts.engine_failed, counts.rows - counts.blank - counts.kept
        if failures > max(MAX_ENGINE_FAILURES, MAX_ENGINE_FAILURE_SHARE * rows):
            why = f"the engine failed on {failures} of {rows} rows, so nothing is published"
            if engine_error is not None:
                why += f" ({engine_error})"
            why += ": repair it and run the same command again, which goes on where it failed first"
            raise EngineError(why, reason="ENGINE_FAILED")
        if self.max_errors is not None and counts.failed > self.max_errors:
            why = f"{counts.failed} of {counts.rows} rows have an error, --max-errors allows"
            why += f" {self.max_errors}: look at the input"
            raise TableError(why, reason="TOO_MANY_ERRORS")


@dataclass(frozen=True, slots=True)
class Pipeline:
    """The stages that the windows of one input pass through.

    render: makes a window and its answers into bytes of the output. report: is called with each
    written window, from another thread: its rows, and the bytes of input that are read.
    """

    scorer: Scorer
    columns: AnswerSchema
    output: Output
    render: Callable[[Window, Answers], bytes]
    report: Callable[[RowCounts, int], None]

    def run(self, table: Table, start: Position, rules: StopRules, before: RowCounts) -> bool:
        """Score *table* from *start*; return False when it was stopped before its end.

        before: the rows of the job so far. Raises what `StopRules.check` raises. Whatever was
        written is in the checkpoint in every case.
        """
        total = before
        engine_error: SentimillError | None = None
        with (
            ThreadPoolExecutor(1, "read") as read,
            ThreadPoolExecutor(1, "tokenise") as tokenise,
            ThreadPoolExecutor(1, "write") as write,
        ):
            written: Future[RowCounts] | None = None
            windows = _ahead(table.windows(start), read)
            prepared = _ahead(((w, self.scorer.prepare(w.texts)) for w in windows), tokenise)
            try:
                for window, texts in prepared:
                    answers = self.scorer.answer(texts)
                    engine_error = _engine_error(answers) or engine_error
                    if written is not None:
                        total += written.result()
                        written = None
                    # The last answers are saved whatever follows: they may have taken a minute.
                    written = write.submit(self._write, window, answers, rules)
                    rules.check(total, engine_error)
                    if rules.stop.is_set():
                        return False
                if written is not None:
                    total += written.result()
                    written = None
                rules.check(total, engine_error)
                return True
            finally:
                if written is not None:
                    written.result()

    def _write(self, window: Window, answers: Answers, rules: StopRules) -> RowCounts:
        """Write one window and return its rows."""
        data = self.render(window, answers)
        errors = {k: error for k, error in answers.errors.items() if not rules.is_blank(error)}
        rows = RowCounts(
            rows=len(window.texts),
            failed=len(errors),
            blank=len(answers.errors) - len(errors),
            engine_failed=sum(isinstance(error, EngineError) for error in errors.values()),
            kept=sum(text is None for text in window.texts),
            useful_tokens=answers.useful_tokens,
            padded_tokens=answers.padded_tokens,
        )
        self.output.append(data, _error_lines(window, errors), window.end, rows)
        self.report(rows, window.consumed)
        return rows


def _engine_error(answers: Answers) -> SentimillError | None:
    return next((e for e in answers.errors.values() if isinstance(e, EngineError)), None)


def _ahead(items: Iterable[T], pool: Executor) -> Iterator[T]:
    """Yield *items*; *pool* makes the next one while the caller works on this one."""
    rest = iter(items)
    coming = pool.submit(next, rest, _END)
    while (item := coming.result()) is not _END:
        coming = pool.submit(next, rest, _END)
        yield item  # type: ignore[misc]  # the sentinel ended the loop


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
