"""A scoring job: its tables, its columns, the checkpoint of an earlier run, and its outputs."""

from __future__ import annotations

import hashlib
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from sentimill.atomic_write import is_device, place_of
from sentimill.errors import UsageError
from sentimill.scoring.answer_columns import AnswerSchema
from sentimill.scoring.checkpoint import FolderLock, Header, Journal
from sentimill.scoring.formats.table import Layout
from sentimill.scoring.output_format import OutputFormat
from sentimill.scoring.pipeline import StopRules
from sentimill.scoring.planning import Unit, open_table, plan
from sentimill.scoring.runner import Progress, Run, Summary, errors_of, refuse_existing
from sentimill.scoring.scorers import Model, Scorer
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
"""Inputs that are opened and checked at once; a remote one takes a tenth of a second."""


def _ignore(_: Progress) -> None:
    """Report nowhere."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """Score one column of one or many tables; rows keep their order and every byte.

    sources: paths, fsspec addresses, patterns, or `-`. target: a file, a folder that ends in `/`,
    or `-`. kind, target_kind: formats such as `csv.gz` if the names do not tell them. work: the
    folder for unfinished output; None means one next to the target. restart: drop the work of an
    interrupted job. strict: a blank text is an error. explain, neighbours: add a column with the
    sentences, and one with the ids of that many reviews; the scorer must have the same settings.
    """

    sources: tuple[str, ...]
    target: str
    layout: Layout = field(default_factory=Layout)
    kind: str | None = None
    target_kind: str | None = None
    prefix: str = "sentiment_"
    probs: bool = False
    explain: bool = False
    neighbours: int = 0
    overwrite: bool = False
    restart: bool = False
    max_errors: int | None = None
    strict: bool = False
    work: Path | None = None

    def plan(self) -> list[Unit]:
        """Return the units. Raises every error that can be found before a model is loaded."""
        units = plan(self.sources, self.target, kind=self.kind, target_kind=self.target_kind)
        # The labels are not known yet; the columns that every model adds are.
        columns = AnswerSchema((), None, self.prefix, with_probs=False, evidence=self.evidence())
        for name in self.layout.text_columns:
            if name in columns.names:
                why = f"--text-column {name!r} is a column that score adds: choose another --prefix"
                raise UsageError(why, reason="COLUMN_COLLISION")

        self._check(units, columns)
        return units

    def _check(self, units: Sequence[Unit], columns: AnswerSchema) -> None:
        """Raise errors in the names, the options and the schemas of the inputs."""
        inputs = {_place(unit.source) for unit in units}

        def check(unit: Unit) -> None:
            self._check_target(unit.target, inputs)
            if unit.source != STANDARD:
                with open_table(unit, self.layout, columns) as table:
                    OutputFormat(unit, table, self.layout, columns)

        with ThreadPoolExecutor(_PLANNERS, "plan") as threads:
            for _ in threads.map(check, units):
                pass

    def run(
        self,
        scorer: Scorer,
        *,
        report: Callable[[Progress], None] = _ignore,
        stop: threading.Event | None = None,
    ) -> Summary:
        """Score everything; *report* is called after each window, from another thread.

        Each output appears when it is complete, or not at all. Setting *stop* ends the job with
        INTERRUPTED once the current window is saved; a later run with the same settings resumes.
        Raises TableError, UsageError or another SentimillError. A row that cannot be classified
        raises nothing: its error is in the output.
        """
        units = self.plan()
        model = scorer.model()
        columns = self.columns(model)
        if self.probs:  # only now their names are known
            self._check(units, columns)
        limits = StopRules(stop or threading.Event(), self.max_errors, self.strict)
        run = Run(units, self.layout, scorer, columns, limits, report, overwrite=self.overwrite)
        if self.target == STANDARD:
            return run.to_stream(sys.stdout.buffer)
        with self.journal(self.header(units, model.digest, model.engine)) as journal:
            return run.to_files(journal)

    def columns(self, model: Model) -> AnswerSchema:
        """Return the columns that the answers of *model* add."""
        return AnswerSchema(
            model.labels,
            model.threshold,
            self.prefix,
            with_probs=self.probs,
            evidence=self.evidence(),
        )

    def evidence(self) -> tuple[str, ...]:
        """Return the names of the columns of evidence."""
        return (*["sentences"] * self.explain, *["neighbours"] * bool(self.neighbours))

    @contextmanager
    def journal(self, header: Header) -> Iterator[Journal]:
        """Lock the job and yield its journal, which is removed if nothing is raised."""
        with self.locked():
            folder = self.folder()
            with writing(self.target):
                if self.restart or STANDARD in self.sources:
                    Journal.drop(folder)
                journal = Journal(folder, header)
            try:
                yield journal
                journal.remove()
            finally:
                journal.close()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Create and lock the folders of the job; the default one locks the output in any case."""
        default = self._default_folder()
        folders = [default] if self.folder() == default else [default, self.folder()]
        with ExitStack() as stack:
            for folder in folders:
                with writing(self.target):
                    folder.parent.mkdir(parents=True, exist_ok=True)
                    stack.enter_context(FolderLock(folder))
            yield
            if len(folders) == 2:
                shutil.rmtree(default, ignore_errors=True)

    def folder(self) -> Path:
        """Return the folder of the unfinished job."""
        if self.work is None:
            return self._default_folder()
        return self.work.absolute() / hashlib.sha256(self._place().encode()).hexdigest()[:16]

    def _default_folder(self) -> Path:
        """Return the default folder of the job, the same for every spelling of the target."""
        if is_remote(self.target):
            name = hashlib.sha256(self.target.encode()).hexdigest()[:16]
            return Path.home() / ".cache" / "sentimill" / "score" / name
        target = Path(self._place())
        return (
            target / ".score"
            if is_folder(self.target)
            else target.with_name(f".{target.name}.score")
        )

    def _place(self) -> str:
        """Return the target with links and dots in the path to it resolved."""
        if is_remote(self.target):
            return self.target
        target = local(self.target).absolute()
        if is_folder(self.target):
            return str(target.resolve())
        return str(target.parent.resolve() / target.name)

    def _check_target(self, target: str, inputs: Set[object]) -> None:
        """Raise UsageError if *target* cannot be written. inputs: the places of all inputs."""
        if target == STANDARD:
            return
        if not is_remote(target):
            path = local(target)
            if is_device(path):
                why = f"{target} is a device or a pipe, which a file would replace: name a file, or"
                raise UsageError(f"{why} - for stdout", reason="OUTPUT_IS_DEVICE")
            if not path.absolute().parent.is_dir() and not is_folder(self.target):
                why = f"the folder {path.absolute().parent} does not exist: create it first"
                raise UsageError(why, reason="NO_SUCH_FOLDER")
        for written in (target, errors_of(target)):
            if _place(written) in inputs:
                why = f"{written} is an input, which the job would replace: choose another output"
                raise UsageError(why, reason="OUTPUT_IS_INPUT")
        # A job that was killed after its output got its name may still have to finish.
        if not self.overwrite and not Journal.exists(self.folder()):
            refuse_existing(target)

    def header(self, units: list[Unit], model: str, engine: str) -> Header:
        """Return everything that the outputs depend on; *model* is the bundle's digest."""
        layout = self.layout
        options = {
            "--text-column": ",".join(layout.text_columns),
            "--prefix": self.prefix,
            "--probs": str(self.probs),
            "--explain-column": str(self.explain),
            "--neighbours": str(self.neighbours),
            "--delimiter": repr(layout.delimiter),
            "--quote": repr(layout.quote),
            "--escape": repr(layout.escape),
            "--encoding": layout.encoding,
            "--sheet": layout.sheet or "",
            "--only-columns": ",".join(layout.keep),
            "--where-missing": str(layout.update),
            "--strict": str(self.strict),
            "window size": str(layout.window_bytes),
            "--format": self.kind or "",
            "--output-format": self.target_kind or "",
        }
        inputs = tuple(identity(unit.source) for unit in units)
        return Header(inputs=inputs, options=options, model=model, engine=engine)


def _place(address: str) -> object:
    """Return a value that all names of the same file share."""
    return address if address == STANDARD or is_remote(address) else place_of(local(address))
