"""What `sentimill score` shows while it runs and when it ends."""

from __future__ import annotations

import json
import shlex
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Final

from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from sentimill.cli.terminal import console, say
from sentimill.errors import SomeRowsFailed

if TYPE_CHECKING:
    from sentimill.scoring.runner import Progress, Summary  # pyarrow takes a while to load

_METRICS_S: Final = 10.0
"""While the job runs, metrics are written at most this often."""


@contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """Yield an event that SIGINT or SIGTERM sets; either of them again kills the process."""
    stop = threading.Event()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def first(_number: int, _frame: FrameType | None) -> None:
        stop.set()
        for each in before:
            signal.signal(each, signal.SIG_DFL)
        say("finishing the current rows and saving; press again to end at once")

    for number in before:
        signal.signal(number, first)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def report_progress(
    target: str, textfile: Path | None, gateway: str | None
) -> Iterator[Callable[[Progress], None]]:
    """Yield the function that shows progress: a bar in a terminal, and metrics if asked for."""
    from sentimill.scoring.job_metrics import JobMetrics
    from sentimill.scoring.summary import useful_share

    metrics = JobMetrics(target)
    bar = Bar(
        TextColumn("scoring"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[said]}"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    task = bar.add_task("scoring", total=None, said="")
    written = -_METRICS_S

    def report(progress: Progress) -> None:
        nonlocal written
        counts = progress.counts
        rate = progress.rows_now / max(progress.seconds, 1e-9)
        said = f"{counts.rows:,} rows, {rate:,.0f} rows/s, {useful_share(counts):.0%} useful tokens"
        if counts.failed:
            said += f", {counts.failed:,} errors"
        bar.update(
            task, completed=progress.read_bytes, total=progress.total_bytes or None, said=said
        )
        metrics.set_job(counts, progress.seconds)
        if progress.seconds - written >= _METRICS_S:
            written = progress.seconds
            metrics.publish(textfile, gateway)

    with bar:
        try:
            yield report
            metrics.finish()
        finally:
            metrics.publish(textfile, gateway)


def report_end(done: Summary, prefix: str, file: Path | None, flags: Sequence[str] | None) -> None:
    """Show what was done and what to do next. Raises SomeRowsFailed when rows have errors.

    flags: the options with which `sample` reads the texts; None if a text column was not kept.
    """
    from sentimill.scoring.summary import as_json

    if file is not None:
        file.write_text(json.dumps(as_json(done), indent=2) + "\n", encoding="utf-8")
    rate = (done.rows - done.resumed_rows) / max(done.seconds, 1e-9)
    resumed = f", {done.resumed_rows} of them by an earlier run" if done.resumed_rows else ""
    blank = f", {done.counts.blank} blank" if done.counts.blank else ""
    say(
        f"{done.rows} rows{resumed} in {done.seconds:.1f} s ({rate:.0f} rows/s),"
        f" {done.failed} with an error{blank}: {' '.join(map(shlex.quote, done.outputs[:3]))}"
    )
    first = done.outputs[0]
    here = "://" not in first
    if here and first.endswith((".csv", ".tsv", ".jsonl")):
        say(f"look: head -3 {shlex.quote(first)}")
    # `sample` stops at a malformed row, so it is not suggested after an error.
    known = here and first.endswith((".csv", ".tsv", ".jsonl", ".parquet"))
    if known and flags is not None and not done.failed:
        command = shlex.join(["sentimill", "sample", first, *flags])
        say(f"next: {command}   # picks rows to label, to train a model of your own")
    if done.failed:
        where = done.errors[0] if done.errors else f"the column {prefix}error"
        why = f"no answer for {done.failed} of {done.rows} rows, see {where}"
        raise SomeRowsFailed(why, reason="SOME_ROWS_FAILED")
