"""The progress line of a labelling run on stderr: rows, rate, spending, failures."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sentimill_train.labelling.pipeline import Tick
from sentimill_train.labelling.requests.budget import Budget, dollars
from sentimill_train.labelling.requests.request_loop import Tally

if TYPE_CHECKING:
    from rich.console import Console


def state_of(tally: Tally, budget: Budget, seconds: float) -> str:
    """Return the changing part of the line."""
    rate = tally.answered / seconds if seconds > 0 else 0.0
    cap = "" if budget.cap is None else f" of {dollars(budget.cap)}"
    faults = sum(tally.faults.values())
    return (
        f"{rate:,.0f}/s  {dollars(budget.spent)}{cap}  "
        f"{faults:,} faults  {len(tally.failures):,} given up"
    )


@contextmanager
def progress_line(console: Console) -> Iterator[Tick]:
    """Yield a function that draws a progress line for each teacher, from its first call on."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    progress = Progress(*columns, TextColumn("{task.fields[state]}"), console=console)
    tasks: dict[int, tuple[float, TaskID]] = {}

    def tick(done: int, total: int, tally: Tally, budget: Budget) -> None:
        progress.start()  # not before, so that a question about the plan can be read
        if id(tally) not in tasks:
            task = progress.add_task("labelling", total=total, state="")
            tasks[id(tally)] = (time.monotonic(), task)
        started, task = tasks[id(tally)]
        state = state_of(tally, budget, time.monotonic() - started)
        progress.update(task, completed=min(done, total), state=state)

    try:
        yield tick
    finally:
        progress.stop()
