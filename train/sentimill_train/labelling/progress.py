"""The progress line of a labelling run on stderr: rows, rate, spending, failures."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sentimill_train.labelling.pipeline import RunObserver
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
def progress_line(console: Console, agree: Callable[[str], bool]) -> Iterator[RunObserver]:
    """Yield an observer that redraws one line; each teacher has its own line."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[state]}"),
    )
    with Progress(*columns, console=console, transient=False) as progress:
        tasks: dict[int, tuple[float, object]] = {}

        def ask(plan: str) -> bool:
            progress.stop()  # a question cannot be read under a line that is redrawn
            try:
                return agree(plan)
            finally:
                progress.start()

        def tick(done: int, total: int, tally: Tally, budget: Budget) -> None:
            if id(tally) not in tasks:
                task = progress.add_task("labelling", total=total, state="")
                tasks[id(tally)] = (time.monotonic(), task)
            started, known = tasks[id(tally)]
            progress.update(
                known,  # type: ignore[arg-type] # rich's TaskID, which is an int
                completed=min(done, total),
                state=state_of(tally, budget, time.monotonic() - started),
            )

        yield RunObserver(plan=ask, tick=tick)
