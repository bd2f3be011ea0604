"""The output of `sentimill train` on stderr, while it runs and at its end."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from sentimill.cli.terminal import console, say

if TYPE_CHECKING:
    from sentimill_train.pipeline import Trained
    from sentimill_train.training import state

_SHOWN_REFUSALS: Final = 3
_LINE_SECONDS: Final = 10.0


class ProgressDisplay:
    """Shows a run: a bar on a terminal; else a line for each stage and every ten seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._terminal = console.is_terminal
        self._clock = clock
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[facts]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not self._terminal,
        )
        self._task = self._bar.add_task("starting", total=None, facts="")
        self._started: tuple[float, int] | None = None  # the time, and the rows seen until then
        self._said = 0.0

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def stage(self, name: str) -> None:
        """See `Watcher.stage`."""
        self._bar.update(self._task, description=name, total=None, completed=0, facts="")
        if not self._terminal:
            say(name)

    def progress(self, progress: state.Progress) -> None:
        """See `Watcher.progress`."""
        now = self._clock()
        if self._started is None:
            self._started, self._said = (now, progress.rows), now
        validation = ""
        if progress.nll is not None and progress.macro_f1 is not None:
            validation = f", validation NLL {progress.nll:.3f}, macro-F1 {progress.macro_f1:.3f}"
        self._bar.update(
            self._task,
            description=f"epoch {progress.epoch}",
            total=progress.rows_total,
            completed=progress.rows,
            facts=f"rows, loss {progress.loss:.3f}{validation}",
        )
        if self._terminal:
            return
        if progress.epoch_ended:
            say(f"epoch {progress.epoch}: loss {progress.loss:.3f}{validation}")
        elif now - self._said >= _LINE_SECONDS:
            say(self._line(progress, now - self._started[0], self._started[1]))
        else:
            return
        self._said = now

    def _line(self, progress: state.Progress, seconds: float, before: int) -> str:
        rate = (progress.rows - before) / seconds
        left = (progress.rows_total - progress.rows) / rate if rate > 0 else 0.0
        shown = f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}"
        return (
            f"epoch {progress.epoch}: {progress.rows:,} of {progress.rows_total:,} rows, loss"
            f" {progress.loss:.3f}, {shown} rows/s, at most {_minutes(left)} left"
        )


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def report(trained: Trained, out: Path) -> None:
    """Print the quality of the model, the rows left out, and the next commands."""
    parted = trained.parted
    for left_out, why in (
        (parted.unlabelled, "without a label"),
        (parted.repeated, "whose text is also in validation or test"),
    ):
        if left_out:
            say(f"left out {left_out} rows {why}")
    if parted.conflicting:
        say(f"{parted.conflicting} texts occur under more than one label")
    for refused in trained.refused[:_SHOWN_REFUSALS]:
        example = refused.example
        say(f"left out {example.id} of {example.source}: {refused.error}")
    if len(trained.refused) > _SHOWN_REFUSALS:
        say(f"and {len(trained.refused) - _SHOWN_REFUSALS} more that cannot be read")
    size = sum(file.size_bytes for file in trained.bundle.manifest.files.values())
    for found in trained.judgement.sets:
        accuracy, macro_f1 = found.figures["accuracy"], found.figures["macro_f1"]
        say(
            f"{found.name}, {found.rows} rows: accuracy {accuracy.value:.3f} ({accuracy.low:.3f} to"
            f" {accuracy.high:.3f}), macro-F1 {macro_f1.value:.3f},"
            f" ECE {found.figures['ece'].value:.3f}"
        )
    for rival in trained.judgement.rivals:
        say(rival.sentence())
    if trained.abstention is not None:
        say(trained.abstention.sentence())
    if trained.verdict is not None:
        say(f"the bundle is {trained.verdict.sentence()}")
    say(
        f"{out}: {size / 1e6:.0f} MB, trained on {len(parted.train) + len(parted.spare)} rows in"
        f" {trained.fit.seconds:.0f} s, {trained.seconds:.0f} s in all"
    )
    bundle = shlex.quote(str(out))
    say(f'try: sentimill classify "Works as promised." --bundle {bundle}')
    say(f"     sentimill serve --bundle {bundle}")
