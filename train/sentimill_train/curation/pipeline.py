"""Turns a labelled set into a training set without leaks and repeats, and reports label errors.

::

    rows ─► split ─► train ─► leaks ─► repeats ─► label errors ─► balance, sample ─► rows
                └──► validation, test: untouched

Only train is filtered, because figures on validation and test must hold for raw texts. Rows stay on
disk; a dropped row keeps its first reason. The same input, options and seed give the same bytes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sentimill.atomic_write import open_atomically
from sentimill.errors import InputError
from sentimill_train.curation.drops import Dropped, Drops, Reason
from sentimill_train.curation.label_errors import LEAST_ROWS, MOST_ROWS, Embed, find_label_errors
from sentimill_train.curation.near_duplicates import ANY_KIND, BANDS, near_groups, shingles
from sentimill_train.curation.row_store import HELD_OUT, SPLITS, RowStore, store_rows
from sentimill_train.data.schema import SENTIMENTS, Columns
from sentimill_train.data.splits import normalise

_TRAIN: Final = SPLITS.index("train")
_SHOWN: Final = 100  # label errors in the report

Progress = Callable[[str, int, int], None]
"""Called with the step, how much of it is done, and the total (0 if unknown)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CurateJob:
    """What to curate and how. None means no limit.

    near: Jaccard similarity from which on two texts count as the same. keep: rows of train to keep,
    a random sample. seed: of that sample and of the balance.
    """

    source: str
    out: Path
    labels: tuple[str, ...] = SENTIMENTS
    holdout: tuple[str, ...] = ()
    columns: Columns = field(default_factory=Columns)
    near: float | None = 0.8
    drop_label_errors: bool = False
    class_ratio: float | None = None
    domain_share: float | None = None
    keep: int | None = None
    seed: int = 0
    scratch: Path | None = None


@dataclass(frozen=True, slots=True)
class Suspect:
    """A row whose label is probably wrong. likely: the probability of the suggested label."""

    id: str
    text: str
    label: str
    suggested: str
    likely: float


@dataclass(slots=True, kw_only=True)
class Curated:
    """The result of a curation. classes, domains: rows of train before and after.

    rows, kept: of train. passed: rows of validation and test, which are written unchanged.
    label_errors: how many there are. suspects: the most likely ones.
    """

    rows: int
    kept: int
    passed: int
    drops: dict[Reason, int]
    examples: dict[Reason, list[Dropped]]
    classes: dict[str, tuple[int, ...]]
    domains: dict[str, tuple[int, ...]]
    label_errors: int
    suspects: list[Suspect]
    notes: list[str]


def curate_rows(
    job: CurateJob, embed: Embed | None = None, progress: Progress = lambda step, done, total: None
) -> Curated:
    """Write all rows except the dropped ones of train, in order.

    Rows are split as `train` will split them: by their own split; or without one, or if the file
    has no rows for validation or test, by the hash of their text.

    embed: returns embeddings to find label errors; None skips this step.

    Raises:
        TableError: a file cannot be read.
        InputError: NOTHING_LEFT if no row of train is left; then nothing is written.
    """
    with tempfile.TemporaryDirectory(prefix="sentimill-curate-", dir=job.scratch) as folder:
        rows = store_rows(
            job.source,
            job.holdout,
            Path(folder),
            job.labels,
            job.columns,
            lambda done: progress("reading", done, 0),
        )
        with closing(rows):
            return _Curation(job, rows, embed, progress).run()


class _Curation:
    """The steps over the stored rows."""

    def __init__(
        self, job: CurateJob, rows: RowStore, embed: Embed | None, progress: Progress
    ) -> None:
        self._job = job
        self._rows = rows
        self._embed = embed
        self._progress = progress
        self._drops = Drops(len(rows.key))
        self._train = rows.split == _TRAIN
        self._order = np.random.default_rng(job.seed).permutation(len(rows.key))
        self._ties = self._label_errors = 0
        self._suspects: list[Suspect] = []
        self._notes: list[str] = []

    def run(self) -> Curated:
        before = np.flatnonzero(self._train)
        if len(before) == 0:
            why = f"no row of {self._job.source} is for train: give more rows, or a column `split`"
            raise InputError(f"{why} that says which are", reason="NOTHING_LEFT")
        self._drops.add(before[~self._rows.readable[before]], "unreadable")
        self._drop_same()
        if self._job.near is not None:
            self._drop_near(self._job.near)
        self._find_label_errors()
        self._balance()
        after = self._left()
        if len(after) == 0:
            lost = ", ".join(f"{rows:,} by {name}" for name, rows in self._drops.counts().items())
            why = f"no row of train of {self._job.source} is left; dropped: {lost}. Give more rows"
            raise InputError(f"{why}, or loosen a limit", reason="NOTHING_LEFT")
        alive = self._drops.alive & (self._rows.split != HELD_OUT)
        with open_atomically(self._job.out) as file:
            for row in np.flatnonzero(alive).tolist():
                file.write(self._rows.line(row))
        return self._summary(before, after)

    def _left(self) -> NDArray[np.int64]:
        """Return the rows of train that are not dropped."""
        return np.flatnonzero(self._train & self._drops.alive)

    def _drop_same(self) -> None:
        """Drop rows of train that equal a held-out text or an earlier row."""
        rows = np.flatnonzero(self._drops.alive)
        order = rows[np.argsort(self._rows.key[rows], kind="stable")]
        keys = self._rows.key[order]
        starts = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1])))
        ends = np.concatenate((starts[1:], [len(order)]))
        many = ends - starts > 1
        for start, end in zip(starts[many].tolist(), ends[many].tolist(), strict=True):
            self._settle_same(order[start:end])

    def _settle_same(self, members: NDArray[np.int64]) -> None:
        mine, others = members[self._train[members]], members[~self._train[members]]
        if len(others):
            self._drops.add(mine, "leak", others[0])
            return
        given = self._rows.label[mine]
        kept = mine[given == -1][:1]
        if (given >= 0).any():
            counts = np.bincount(given[given >= 0])
            frequent = np.flatnonzero(counts == counts.max())
            self._ties += len(frequent) > 1
            self._drops.add(mine[(given >= 0) & ~np.isin(given, frequent)], "conflict")
            kept = np.array([mine[given == label][0] for label in frequent])
        self._drops.add(np.setdiff1d(mine, kept), "duplicate", kept[0])

    def _drop_near(self, threshold: float) -> None:
        rows = self._rows
        groups = near_groups(
            rows.bands,
            self._drops.alive & rows.readable,
            np.where(self._train, rows.label, ANY_KIND),
            lambda row: shingles(normalise(rows.row(row).text)),
            threshold,
            lambda band: self._progress("near-duplicates", band + 1, BANDS),
        )
        held_out = {groups.find(row): row for row in np.flatnonzero(~self._train).tolist()}
        for row in self._left().tolist():
            root = groups.find(row)
            if root in held_out:
                self._drops.add(row, "near-leak", held_out[root])
            elif root != row:
                self._drops.add(row, "near-duplicate", root)

    def _find_label_errors(self) -> None:
        """Find the rows whose label is probably wrong; drop them with `drop_label_errors`."""
        rows = self._left()
        rows = rows[self._rows.human[rows]]
        if self._embed is None or len(rows) == 0:
            return
        if len(rows) < LEAST_ROWS:
            self._notes.append(f"{len(rows)} labels of people are too few to look for errors")
            return
        if len(rows) > MOST_ROWS:
            rows = np.sort(rows[np.argsort(self._rows.key[rows], kind="stable")[:MOST_ROWS]])
            self._notes.append(f"label errors were looked for in a sample of {MOST_ROWS:,} rows")
        self._progress("embeddings", 0, len(rows))
        embeddings = self._embed([self._rows.row(row).text for row in rows])
        self._progress("embeddings", len(rows), len(rows))
        errors = find_label_errors(self._rows.label[rows], embeddings)
        self._label_errors = len(errors)
        for n, error in enumerate(errors):
            row, suggested = rows[error.position], self._job.labels[error.suggested]
            if n < _SHOWN:
                shown = self._rows.row(row)
                self._suspects.append(
                    Suspect(shown.id, shown.text, str(shown.label), suggested, error.likely)
                )
            if self._job.drop_label_errors:
                self._drops.details[int(row)] = f"rather {suggested} ({error.likely:.2f})"
                self._drops.add(row, "label-error")

    def _balance(self) -> None:
        job, rows = self._job, self._rows
        if job.class_ratio is not None:
            left = self._left()
            labelled = rows.label[left[rows.label[left] >= 0]]
            limits = class_limits(np.bincount(labelled), job.class_ratio)
            self._cap(rows.label, limits, "class-cap")
        if job.domain_share is not None and len(rows.domains) > 1:
            limits = domain_limits(np.bincount(rows.domain[self._left()]), job.domain_share)
            self._cap(rows.domain, limits, "domain-cap")
        if job.keep is not None:
            self._cap(np.zeros_like(rows.label), np.array([job.keep]), "not-chosen")

    def _cap(self, groups: NDArray[np.int64], limits: NDArray[np.int64], reason: Reason) -> None:
        """Drop random rows, so that no group is larger than its limit."""
        left = self._left()
        by_chance = left[np.argsort(self._order[left])]
        for group, limit in enumerate(limits.tolist()):
            self._drops.add(by_chance[groups[by_chance] == group][limit:], reason)

    def _summary(self, before: NDArray[np.int64], after: NDArray[np.int64]) -> Curated:
        rows = self._rows
        if unlabelled := int((rows.label[after] < 0).sum()):
            self._notes.append(f"{unlabelled:,} rows of train have no label")
        if self._ties:
            self._notes.append(
                f"{self._ties:,} texts have conflicting labels, none of them more frequent: one"
                " row of each label is kept"
            )
        domains = _counts(rows.domain, rows.domains, before, after)
        return Curated(
            rows=len(before),
            kept=len(after),
            passed=int((rows.split > _TRAIN).sum()),
            drops=self._drops.counts(),
            examples=self._drops.examples(rows.key, rows.row),
            classes=_counts(rows.label, self._job.labels, before, after),
            domains={name or "(none)": rows for name, rows in domains.items() if rows[0]},
            label_errors=self._label_errors,
            suspects=self._suspects,
            notes=self._notes,
        )


def _counts(
    groups: NDArray[np.int64], names: Sequence[str], *parts: NDArray[np.int64]
) -> dict[str, tuple[int, ...]]:
    """Return how many rows of each part are in each group; rows of group -1 are not counted."""
    found = [np.bincount(groups[part] + 1, minlength=len(names) + 1)[1:].tolist() for part in parts]
    return dict(zip(names, zip(*found, strict=True), strict=True))


def class_limits(counts: NDArray[np.int64], ratio: float) -> NDArray[np.int64]:
    """Return how many rows each class may have: *ratio* times the smallest class that occurs."""
    present = counts[counts > 0]
    if len(present) < 2:
        return counts
    return np.minimum(counts, np.int64(np.floor(ratio * present.min())))


def domain_limits(counts: NDArray[np.int64], share: float) -> NDArray[np.int64]:
    """Return how many rows each domain may have so that none has over *share* of the kept rows.

    If there are too few domains to meet the share, *counts* is returned unchanged.
    """
    if (counts > 0).sum() * share < 1:
        return counts
    low, high = 0, int(counts.max(initial=0))
    while low < high:  # find the largest limit that meets the share; all smaller ones do
        limit = (low + high + 1) // 2
        if min(limit, int(counts.max())) <= share * np.minimum(counts, limit).sum():
            low = limit
        else:
            high = limit - 1
    return np.minimum(counts, low)
