"""The job: which tables, which answers, what is left of an earlier run, and the final names."""

from __future__ import annotations

import hashlib
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from sentimill.errors import UsageError
from sentimill.scoring.answer_columns import Columns
from sentimill.scoring.checkpoint import FolderLock, Header, Journal
from sentimill.scoring.formats.table import Layout
from sentimill.scoring.pipeline import Limits
from sentimill.scoring.planning import Unit, check_output, open_table, plan
from sentimill.scoring.runner import Progress, Run, Summary, refuse_existing
from sentimill.scoring.scorers import Scorer
from sentimill.scoring.storage import (
    STANDARD,
    identity,
    is_folder,
    is_remote,
    local,
    writing,
)

__all__ = ["Progress", "Score", "Summary"]


_PLANNERS: Final = 32
"""Inputs that are opened at once to be checked; a remote one takes a tenth of a second."""


def _nothing(_: Progress) -> None:
    """Report to nobody."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """Score one column of one or many tables; rows keep their order and every byte.

    sources: paths, fsspec addresses, patterns, or `-`. target: a file, a folder that ends in `/`,
    or `-`. kind, target_kind: formats such as `csv.gz` where the names do not say. work: the folder
    for what is not finished yet; None takes one beside the target. restart: drop what an
    interrupted job left.
    """

    sources: tuple[str, ...]
    target: str
    layout: Layout = field(default_factory=Layout)
    kind: str | None = None
    target_kind: str | None = None
    prefix: str = "sentiment_"
    probs: bool = False
    overwrite: bool = False
    restart: bool = False
    max_errors: int | None = None
    work: Path | None = None

    def plan(self) -> list[Unit]:
        """Return the units. Raises what can be known before a model is loaded."""
        units = plan(self.sources, self.target, kind=self.kind, target_kind=self.target_kind)
        # The labels are not known yet; the columns that every model adds are.
        columns = Columns((), None, self.prefix, with_probs=False)
        for name in self.layout.text_columns:
            if name in columns.names:
                why = f"--text-column {name!r} is a column that score adds: choose another --prefix"
                raise UsageError(why, reason="COLUMN_COLLISION")

        self._check(units, columns)
        return units

    def _check(self, units: Sequence[Unit], columns: Columns) -> None:
        """Raise what can be known from the names, the options and the schemas of the inputs."""

        def check(unit: Unit) -> None:
            self._check_target(unit)
            if unit.source != STANDARD:
                with open_table(unit, self.layout, columns) as table:
                    check_output(unit, table, self.layout, columns)

        with ThreadPoolExecutor(_PLANNERS, "plan") as threads:
            for _ in threads.map(check, units):
                pass

    def run(
        self,
        scorer: Scorer,
        *,
        report: Callable[[Progress], None] = _nothing,
        stop: threading.Event | None = None,
    ) -> Summary:
        """Score everything; *report* is told after each window, from another thread.

        Every output appears complete, at its end, or not at all. Setting *stop* ends the job with
        INTERRUPTED once the window at hand is saved; a later run with the same settings goes on.
        Raises TableError, UsageError or SentimillError; a row that cannot be classified is no error
        but an answer.
        """
        units = self.plan()
        model = scorer.model()
        columns = Columns(model.labels, model.threshold, self.prefix, with_probs=self.probs)
        if self.probs:  # only now their names are known
            self._check(units, columns)
        limits = Limits(stop or threading.Event(), self.max_errors)
        run = Run(units, self.layout, scorer, columns, limits, report, overwrite=self.overwrite)
        if self.target == STANDARD:
            return run.to_stream(sys.stdout.buffer)
        folder = self.folder()
        if self.work is not None or is_remote(self.target) or is_folder(self.target):
            with writing(self.target):
                folder.mkdir(parents=True, exist_ok=True)
        with FolderLock(folder):
            if self.restart or units[0].source == STANDARD:
                Journal.drop(folder)
            journal = Journal(folder, self.header(units, model.digest, model.engine))
            try:
                summary = run.to_files(journal)
                journal.remove()
            finally:
                journal.close()
            return summary

    def folder(self) -> Path:
        """Return where the unfinished job is kept."""
        name = hashlib.sha256(self.target.encode()).hexdigest()[:16]
        if self.work is not None:
            return self.work / name
        if is_remote(self.target):
            return Path.home() / ".cache" / "sentimill" / "score" / name
        target = local(self.target).absolute()
        if is_folder(self.target):
            return target / ".score"
        return target.with_name(f".{target.name}.score")

    def _check_target(self, unit: Unit) -> None:
        target = unit.target
        if target == STANDARD:
            return
        if not is_remote(target):
            path = local(target)
            source = None if is_remote(unit.source) else local(unit.source)
            if source is not None and source.exists() and path.exists() and path.samefile(source):
                why = f"{target} is the input itself: choose another output"
                raise UsageError(why, reason="OUTPUT_IS_INPUT")
            if not path.absolute().parent.is_dir() and not is_folder(self.target):
                why = f"the folder {path.absolute().parent} is not there: create it first"
                raise UsageError(why, reason="NO_SUCH_FOLDER")
        elif target == unit.source:
            why = f"{target} is the input itself: choose another output"
            raise UsageError(why, reason="OUTPUT_IS_INPUT")
        # A job that was killed between the final name and its journal's end may finish.
        if not self.overwrite and not Journal.exists(self.folder()):
            refuse_existing(target)

    def header(self, units: list[Unit], model: str, engine: str) -> Header:
        """Return everything that the outputs depend on; *model* is the bundle's digest."""
        layout = self.layout
        options = {
            "--text-column": ",".join(layout.text_columns),
            "--prefix": self.prefix,
            "--probs": str(self.probs),
            "--delimiter": repr(layout.delimiter),
            "--quote": repr(layout.quote),
            "--escape": repr(layout.escape),
            "--encoding": layout.encoding,
            "--only-columns": ",".join(layout.keep),
            "--where-missing": str(layout.update),
            "window size": str(layout.window_bytes),
            "--format": self.kind or "",
            "--output-format": self.target_kind or "",
        }
        inputs = tuple(identity(unit.source) for unit in units)
        return Header(inputs=inputs, options=options, model=model, engine=engine)
