"""A progress bar for long lists, in a terminal and in Jupyter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(total: int, *, shown: bool) -> Iterator[Callable[[int], None]]:
    """Yield a function that advances the bar by a number of texts; it does nothing unless *shown*.

    The bar goes to stderr. Where stderr is neither a terminal nor a notebook, nothing is written.
    """
    if not shown:
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    console = Console(stderr=True)
    visible = console.is_terminal or console.is_jupyter
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not visible) as bar:
        task = bar.add_task("texts", total=total)
        yield lambda texts: bar.advance(task, texts)
