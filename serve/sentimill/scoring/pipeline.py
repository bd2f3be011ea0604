"""The pipeline of a job: it reads, tokenises, classifies and writes at the same time.

Each stage works on a window of its own. Reading is one window ahead of tokenising, which is one
ahead of the engine, and writing is one behind. The tokenizer, the engine, compression and fsync all
release the interpreter lock, so they use a core that the engine leaves free. Where a scorer has
several processes, each of them tokenises and runs a window of its own.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, TypeVar

from sentimill.errors import EngineError, SentimillError, TableError
from sentimill.scoring.answer_columns import Answers
from sentimill.scoring.checkpoint import RowCounts
from sentimill.scoring.formats.table import Window
from sentimill.scoring.scorers import Scorer

T = TypeVar("T")
_END: Final = object()


MAX_ENGINE_FAILURES: Final = 16
MAX_ENGINE_FAILURE_SHARE: Final = 0.01
"""A job ends unpublished when the engine failed on more rows than this, and on more than this share
of the rows with a text. Fewer failures come from single texts, not from a broken engine."""

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
            why += ": repair it and run the same command again, which resumes at the first failure"
            raise EngineError(why, reason="ENGINE_FAILED")
        if self.max_errors is not None and counts.failed > self.max_errors:
            why = f"{counts.failed} of {counts.rows} rows have an error, --max-errors allows"
            why += f" {self.max_errors}: look at the input"
            raise TableError(why, reason="TOO_MANY_ERRORS")


@dataclass(frozen=True, slots=True)
class File:
    """One opened input and its output.

    windows: yields the windows that are left, in another thread than the other calls. begin: counts
    the rows of an earlier run; called once, before anything is written. write: writes the rows of
    one window, so that they survive a crash. finish: gives the output its name.
    """

    windows: Callable[[], Iterator[Window]]
    begin: Callable[[], None]
    write: Callable[[Window, Answers], None]
    finish: Callable[[], None]


def run(
    files: Iterable[File], scorer: Scorer, rules: StopRules, counts: Callable[[], RowCounts]
) -> bool:
    """Score *files* one after another; return False when the job was stopped before their end.

    The next file is read while the last windows of one are answered and its output is finished.
    counts: returns the rows of the job so far. Raises what `StopRules.check` raises. All answers
    that were computed are written in any case.
    """
    current: File | None = None
    engine_error: SentimillError | None = None
    written: Future[None] | None = None
    with (
        ThreadPoolExecutor(1, "read") as read,
        ThreadPoolExecutor(1, "tokenise") as tokenise,
        ThreadPoolExecutor(1, "write") as write,
    ):
        begun = (
            (file, window, scorer.prepare(window.texts) if window else None)
            for file, window in _ahead(_windows(files), read)
        )
        try:
            for file, window, answer in _ahead(begun, tokenise, scorer.ahead):
                answers = answer() if answer else None
                if written is not None:
                    waited, written = written, None
                    waited.result()
                if file is not current:
                    current = file
                    file.begin()
                total = counts()
                if window is None or answers is None:
                    rules.check(total, engine_error)
                    written = write.submit(file.finish)
                    continue
                engine_error = _engine_error(answers) or engine_error
                # The last answers are saved whatever follows: they may have taken a minute.
                written = write.submit(file.write, window, answers)
                rules.check(total, engine_error)
                if rules.stop.is_set():
                    return False
            return True
        finally:
            if written is not None:
                written.result()


def _windows(files: Iterable[File]) -> Iterator[tuple[File, Window | None]]:
    """Yield the windows of each of *files*, and None after its last one."""
    for file in files:
        for window in file.windows():
            yield file, window
        yield file, None


def _engine_error(answers: Answers) -> SentimillError | None:
    return next((e for e in answers.errors.values() if isinstance(e, EngineError)), None)


def _ahead(items: Iterable[T], pool: Executor, count: int = 1) -> Iterator[T]:
    """Yield *items*; *pool* makes the next *count* while the caller works on this one."""
    rest = iter(items)
    coming = deque(pool.submit(next, rest, _END) for _ in range(count))
    while (item := coming.popleft().result()) is not _END:
        coming.append(pool.submit(next, rest, _END))
        yield item  # type: ignore[misc]  # the sentinel ended the loop
