"""From a labelled set to a training set worth having: what goes, why, and what is left.

::

    rows ─► empty, foreign ─► leaks, duplicates ─► doubt ─► wrong labels ─► balance ─► best ─► rows

Rows stay on disk; a row that is dropped keeps its first reason. The same input, options and seed
give the same output to the byte.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sentimill.errors import InputError
from sentimill_train.curation.balancing import class_limits, domain_limits, keep_best, over_limit
from sentimill_train.curation.drop_reasons import Dropped, Drops, Reason
from sentimill_train.curation.filters import Filters, Intake, take_in
from sentimill_train.curation.label_errors import LEAST_ROWS, find_noise, out_of_sample
from sentimill_train.curation.near_duplicates import BANDS, near_groups, shingles
from sentimill_train.data.jsonl_stream import write_lines
from sentimill_train.data.schema import Columns, normalise

__all__ = ["CurateJob", "Curated", "curate_rows"]

_BINS: Final = 20
_TOLD: Final = 0.6
_FULL_WORDS: Final = 8
"""Shorter texts teach less; quality grows with length up to here."""

Progress = Callable[[str, int, int], None]
"""Told the step, how much of it is done, and of how much (0 where nobody knows)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CurateJob:
    """What to curate and how. A limit of None is no limit."""

    source: str
    out: Path
    holdout: tuple[str, ...] = ()
    filters: Filters = field(default_factory=Filters)
    columns: Columns = field(default_factory=Columns)
    near: float | None = 0.8
    min_confidence: float | None = 0.4
    max_disagreement: float | None = 0.4
    max_noise: float | None = 0.05
    class_ratio: float | None = 5.0
    domain_share: float | None = 0.5
    keep: int | None = None
    seed: int = 0
    scratch: Path | None = None


@dataclass(slots=True)
class Curated:
    """What happened. classes, domains: rows before and after. confidence: 20 bins from 0 to 1."""

    rows: int
    kept: int
    drops: dict[Reason, int]
    examples: dict[Reason, list[Dropped]]
    classes: dict[str, tuple[int, int]]
    domains: dict[str, tuple[int, int]]
    confidence: tuple[list[int], list[int]]
    notes: list[str]


def curate_rows(job: CurateJob, progress: Progress = lambda step, done, total: None) -> Curated:
    """Write the rows worth training on, in their order, and return what happened to the others.

    Raises:
        TableError: a file cannot be read.
        InputError: NOTHING_LEFT when no row survives; nothing is written then.
    """
    folder = Path(tempfile.mkdtemp(prefix="sentimill-curate-", dir=job.scratch))
    try:
        found = take_in(
            job.source,
            job.holdout,
            folder,
            job.filters,
            job.columns,
            lambda rows: progress("reading", rows, 0),
        )
        try:
            return _Curation(job, found, progress).run()
        finally:
            found.spool.close()
    finally:
        shutil.rmtree(folder)


class _Curation:
    """The steps over what was taken in."""

    def __init__(self, job: CurateJob, found: Intake, progress: Progress) -> None:
        self._job = job
        self._in = found
        self._drops: Drops = found.drops
        self._progress = progress
        self._notes: list[str] = []
        self._fit = np.ones(
            len(found.hashes), dtype=np.float32
        )  # the baseline's share of the label

    def run(self) -> Curated:
        before = self._mine(np.ones(len(self._in.hashes), dtype=np.bool_))
        self._drop_same()
        if self._job.near is not None:
            self._drop_near(self._job.near)
        self._drop_doubtful()
        self._drop_wrong()
        self._balance()
        after = self._mine(self._drops.alive)
        if len(after) == 0:
            raise InputError(
                f"no row of {self._job.source} is left: {self._drops.counts()}; loosen a limit",
                reason="NOTHING_LEFT",
            )
        with write_lines(self._job.out) as file:
            for row in after.tolist():
                file.write(self._in.spool.line(row))
        return self._summary(before, after)

    def _mine(self, which: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Return the rows of *which* that are not held out."""
        rows = np.flatnonzero(which).astype(np.int64)
        return rows[rows >= self._in.first]

    def _drop_same(self) -> None:
        """Drop what equals a held-out text or an earlier row, once blanks and case are alike."""
        rows = np.flatnonzero(self._drops.alive)
        order = rows[np.argsort(self._in.hashes[rows], kind="stable")]
        hashes = self._in.hashes[order]
        starts = np.flatnonzero(np.concatenate(([True], hashes[1:] != hashes[:-1])))
        ends = np.concatenate((starts[1:], [len(order)]))
        many = ends - starts > 1
        for start, end in zip(starts[many].tolist(), ends[many].tolist(), strict=True):
            self._settle_same(order[start:end])

    def _settle_same(self, members: NDArray[np.int64]) -> None:
        mine = members[members >= self._in.first]
        if len(mine) < len(members):
            self._drops.add_all(mine, "leak", f"equals {self._name(members[0])}")
            return
        counts = np.bincount(self._in.label[mine], minlength=len(self._job.filters.labels))
        if (counts == counts.max()).sum() > 1:
            names = [self._job.filters.labels[k] for k in np.flatnonzero(counts)]
            self._drops.add_all(mine, "conflict", " or ".join(names))
            return
        keep = mine[self._in.label[mine] == counts.argmax()][0]
        self._drops.add_all(mine[mine != keep], "duplicate", f"equals {self._name(keep)}")

    def _drop_near(self, threshold: float) -> None:
        spool = self._in.spool
        groups = near_groups(
            self._in.bands,
            self._drops.alive,
            lambda row: shingles(normalise(spool.row(row).text)),
            threshold,
            lambda band: self._progress("near-duplicates", band + 1, BANDS),
        )
        for row in self._mine(self._drops.alive).tolist():
            root = groups.find(row)
            if root == row:
                continue
            reason: Reason = "near-leak" if root < self._in.first else "near-duplicate"
            self._drops.add(row, reason, f"like {self._name(root)}")

    def _drop_doubtful(self) -> None:
        job, found = self._job, self._in
        rows = self._mine(self._drops.alive)
        if job.max_disagreement is not None:
            for row in rows[found.apart[rows] > job.max_disagreement].tolist():
                self._drops.add(row, "disagreement", f"{found.apart[row]:.2f}")
        if job.min_confidence is not None:
            for row in rows[found.confidence[rows] < job.min_confidence].tolist():
                self._drops.add(row, "unsure", f"largest share {found.confidence[row]:.2f}")

    def _drop_wrong(self) -> None:
        found, labels = self._in, self._job.filters.labels
        rows = self._mine(self._drops.alive)
        if len(rows) < LEAST_ROWS:
            self._notes.append(f"{len(rows)} rows are too few to look for wrong labels")
            return
        given = found.label[rows]
        probs = out_of_sample(
            found.spool,
            rows,
            given,
            found.hashes[rows],
            len(labels),
            lambda done: self._progress("baseline", done, len(rows)),
        )
        self._fit[rows] = probs[np.arange(len(rows)), given]
        right = float((probs.argmax(axis=1) == given).mean())
        self._notes.append(f"the baseline agrees with {right:.1%} of the labels, out of sample")
        if self._job.max_noise is None:
            return
        for position in find_noise(given, probs, self._job.max_noise).tolist():
            likely = labels[int(probs[position].argmax())]
            share = probs[position].max()
            if found.confidence[rows[position]] < _TOLD:
                continue  # the shares tell the doubt already, and a student learns from shares
            self._drops.add(int(rows[position]), "wrong-label", f"rather {likely} ({share:.2f})")

    def _balance(self) -> None:
        job, found = self._job, self._in
        if job.class_ratio is not None:
            rows = self._mine(self._drops.alive)
            counts = np.bincount(found.label[rows], minlength=len(job.filters.labels))
            limits = class_limits(counts.astype(np.int64), job.class_ratio)
            self._cap(rows, found.label[rows], limits, "class-cap")
        if job.domain_share is not None and len(found.domains) > 1:
            rows = self._mine(self._drops.alive)
            counts = np.bincount(found.domain[rows], minlength=len(found.domains))
            limits = domain_limits(counts.astype(np.int64), job.domain_share)
            self._cap(rows, found.domain[rows], limits, "domain-cap")
        rows = self._mine(self._drops.alive)
        if job.keep is not None and len(rows) > job.keep:
            self._progress("choosing", 0, 0)
            kept = keep_best(
                found.spool, rows, found.label[rows], self._quality(rows), job.keep, job.seed
            )
            self._drops.add_all(np.setdiff1d(rows, rows[kept]), "not-chosen")

    def _cap(
        self,
        rows: NDArray[np.int64],
        groups: NDArray[np.int64],
        limits: NDArray[np.int64],
        reason: Reason,
    ) -> None:
        self._drops.add_all(rows[over_limit(groups, limits, self._quality(rows))], reason)

    def _quality(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return how much a row is worth: sure teacher, a baseline of its mind, some length.

        A row without shares counts as surely labelled: a person did it.
        """
        sure = np.nan_to_num(self._in.confidence[rows], nan=1.0).astype(np.float64)
        length = np.minimum(1.0, self._in.words[rows] / _FULL_WORDS)
        return sure * np.sqrt(self._fit[rows].astype(np.float64)) * length

    def _name(self, row: int | np.int64) -> str:
        return self._in.spool.row(int(row)).id

    def _summary(self, before: NDArray[np.int64], after: NDArray[np.int64]) -> Curated:
        found, labels = self._in, self._job.filters.labels
        old, new = (
            np.bincount(found.label[rows] + 1, minlength=len(labels) + 1)
            for rows in (before, after)
        )
        old_domains, new_domains = (
            np.bincount(found.domain[rows], minlength=len(found.domains))
            for rows in (before, after)
        )
        bins = [
            np.histogram(found.confidence[rows], bins=_BINS, range=(0.0, 1.0))[0].tolist()
            for rows in (before, after)
        ]
        return Curated(
            rows=len(before),
            kept=len(after),
            drops=self._drops.counts(),
            examples=self._drops.examples(found.spool.row),
            classes={label: (int(old[k + 1]), int(new[k + 1])) for k, label in enumerate(labels)},
            domains={
                name or "(none)": (int(old_domains[k]), int(new_domains[k]))
                for k, name in enumerate(found.domains)
                if old_domains[k]
            },
            confidence=(bins[0], bins[1]),
            notes=self._notes,
        )
