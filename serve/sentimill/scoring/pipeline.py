"""The loop: read, tokenise, answer and write, each at its own window at the same time.

Reading is one window ahead of tokenising, which is one ahead of the engine, and writing is one
behind. The tokenizer, the engine, compression and fsync all release the interpreter lock, so a core
that the engine leaves free is used.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, TypeVar

import msgspec

from sentimill.scoring.answer_columns import Answers, Columns
from sentimill.scoring.checkpoint import Tally
from sentimill.scoring.formats.table import Position, Table, Window
from sentimill.scoring.part_writer import Output
from sentimill.scoring.scorers import Scorer

__all__ = ["Flow", "Limits"]

T = TypeVar("T")
_END: Final = object()


@dataclass(frozen=True, slots=True)
class Limits:
    """When a job stops early: when *stop* is set, or past *max_errors* bad rows in all."""

    stop: threading.Event
    max_errors: int | None = None


@dataclass(frozen=True, slots=True)
class Flow:
    """What the windows of one input pass through.

    render: a window and its answers as bytes for the output. report: told of each written window,
    from another thread: its rows, and the bytes of input that are read.
    """

    scorer: Scorer
    columns: Columns
    output: Output
    render: Callable[[Window, Answers], bytes]
    report: Callable[[Tally, int], None]

    def run(self, table: Table, start: Position, limits: Limits, failed: int) -> bool:
        """Score *table* from *start*; return False when it was stopped before its end.

        failed: bad rows before this file. What was written is on record in either case.
        """
        total = failed
        with (
            ThreadPoolExecutor(1, "read") as read,
            ThreadPoolExecutor(1, "tokenise") as tokenise,
            ThreadPoolExecutor(1, "write") as write,
        ):
            written: Future[int] | None = None
            windows = _ahead(table.windows(start), read)
            prepared = _ahead(((w, self.scorer.prepare(w.texts)) for w in windows), tokenise)
            try:
                for window, texts in prepared:
                    answers = self.scorer.answer(texts)
                    if written is not None:
                        total += written.result()
                        written = None
                    if limits.stop.is_set() or _too_many(total, limits):
                        # The answers at hand are saved too: they may have taken a minute.
                        total += self._write(window, answers)
                        return False
                    written = write.submit(self._write, window, answers)
                if written is not None:
                    total += written.result()
                    written = None
                return not _too_many(total, limits)
            finally:
                if written is not None:
                    written.result()

    def _write(self, window: Window, answers: Answers) -> int:
        """Write one window and return how many of its rows failed."""
        data = self.render(window, answers)
        rows = Tally(
            rows=len(window.texts),
            failed=len(answers.errors),
            kept=sum(text is None for text in window.texts),
            useful_tokens=answers.useful_tokens,
            padded_tokens=answers.padded_tokens,
        )
        self.output.append(data, _error_lines(window, answers), window.end, rows)
        self.report(rows, window.consumed)
        return rows.failed


def _too_many(failed: int, limits: Limits) -> bool:
    return limits.max_errors is not None and failed > limits.max_errors


def _ahead(items: Iterable[T], pool: Executor) -> Iterator[T]:
    """Yield *items*, the next one being made in *pool* while the caller works on this one."""
    rest = iter(items)
    coming = pool.submit(next, rest, _END)
    while (item := coming.result()) is not _END:
        coming = pool.submit(next, rest, _END)
        yield item  # type: ignore[misc]  # the sentinel ended the loop


def _error_lines(window: Window, answers: Answers) -> bytes:
    """Return what the errors file says of the window: row from 1, line of its beginning, why."""
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
        for place, error in sorted(answers.errors.items())
    )
