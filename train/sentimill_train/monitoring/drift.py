"""Drift: five tests of whether recent texts still resemble those that a bundle was evaluated on.

A bundle contains only the mix of its labels, no embeddings: much of a text can be recovered from
its embedding (Morris et al. 2023, "Text Embeddings Reveal (Almost) As Much As Text"), and bundles
are passed around. The other tests compare with earlier texts, which the operator has.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

import msgspec

from sentimill.bundle.manifest import Manifest
from sentimill.classifier import Classifier
from sentimill.errors import InputError
from sentimill_train.data.schema import Columns
from sentimill_train.metrics.classification import Floats
from sentimill_train.metrics.two_sample_tests import (
    AUC_LIMIT,
    KS_LIMIT,
    PSI_LIMIT,
    Found,
    embedding_shift,
    mix_shift,
    spread,
)
from sentimill_train.monitoring.observations import Observed, embeddings, observe
from sentimill_train.monitoring.recent_rows import draw_rows

FEWEST_ROWS: Final = 50
"""With fewer texts on either side, a test says nothing about a distribution."""

Name = Literal["label mix", "confidence", "length", "out of vocabulary", "embedding"]

_STATISTIC: Final[dict[Name, tuple[str, float]]] = {
    "label mix": ("PSI", PSI_LIMIT),
    "confidence": ("KS", KS_LIMIT),
    "length": ("KS", KS_LIMIT),
    "out of vocabulary": ("KS", KS_LIMIT),
    "embedding": ("AUC", AUC_LIMIT),
}


class Shift(msgspec.Struct, frozen=True, kw_only=True):
    """One test. moved: the statistic is at least its limit, and p is below the level.

    against: `bundle` or `earlier`; None, without a value, if there was nothing to compare with.
    earlier, recent: the means of the two sides, if the measure has a mean.
    """

    name: Name
    statistic: str
    limit: float
    against: Literal["bundle", "earlier"] | None = None
    value: float | None = None
    p: float | None = None
    moved: bool = False
    earlier: float | None = None
    recent: float | None = None


class SampleCounts(msgspec.Struct, frozen=True, kw_only=True):
    """One file: its rows, how many were drawn, and how many of these no model can read."""

    rows_in_file: int
    drawn: int
    unreadable: int


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """All results, without texts. level: alpha divided by the number of tests; p must be below."""

    bundle: str
    digest: str
    recent: SampleCounts
    earlier: SampleCounts | None
    label_mix: dict[str, float]
    alpha: float
    level: float
    shifts: tuple[Shift, ...]

    @property
    def moved(self) -> bool:
        """Whether any test found a shift."""
        return any(shift.moved for shift in self.shifts)


@dataclass(frozen=True, kw_only=True)
class DriftJob:
    """What to compare. on, against: files. most: how many rows are drawn from each.

    alpha: the probability of a false alarm in any of the tests.
    """

    on: str
    against: str | None = None
    columns: Columns = field(default_factory=Columns)
    most: int = 1000
    alpha: float = 0.01
    seed: int = 0


@dataclass(frozen=True, slots=True)
class _Side:
    """The texts of one file. measures: a number for each text, by the name of its test."""

    counts: SampleCounts
    seen: Observed
    measures: dict[Name, Floats]
    points: Floats | None


def find_drift(classifier: Classifier, job: DriftJob) -> Drift:
    """Compare the texts of *job* with the bundle's own mix and with the earlier texts.

    Raises:
        TableError: a file cannot be used. InputError: TOO_FEW_ROWS, NOTHING_CLASSIFIED.
    """
    recent = _side(classifier, job, job.on, embed=job.against is not None)
    earlier = None if job.against is None else _side(classifier, job, job.against, embed=True)
    manifest = classifier.bundle.manifest
    level = job.alpha / len(_STATISTIC)  # Bonferroni
    counts = recent.seen.counts(manifest.labels)
    return Drift(
        bundle=f"{manifest.name} {manifest.version}",
        digest=classifier.bundle.digest,
        recent=recent.counts,
        earlier=None if earlier is None else earlier.counts,
        label_mix=_shares(counts),
        alpha=job.alpha,
        level=level,
        shifts=(
            _mix(manifest, counts, earlier, level),
            *(_spread(name, earlier, recent, level) for name in recent.measures),
            _embedding(earlier, recent, level, job.seed),
        ),
    )


def _side(classifier: Classifier, job: DriftJob, source: str, *, embed: bool) -> _Side:
    drawn = draw_rows(source, columns=job.columns, most=job.most, seed=job.seed)
    seen = observe(classifier, drawn.texts)
    if len(seen.kept) < FEWEST_ROWS:
        raise InputError(
            f"{source} has {len(seen.kept)} texts that can be read, but a test needs"
            f" {FEWEST_ROWS}: give more rows",
            reason="TOO_FEW_ROWS",
        )
    points = embeddings(classifier, [drawn.texts[i] for i in seen.kept]) if embed else None
    rows = len(drawn.rows)
    counts = SampleCounts(
        rows_in_file=drawn.rows_in_file, drawn=rows, unreadable=rows - len(seen.kept)
    )
    measures: dict[Name, Floats] = {
        "confidence": seen.confidence,
        "length": seen.words,
        "out of vocabulary": seen.oov,
    }
    return _Side(counts, seen, measures, points)


def _mix(manifest: Manifest, counts: dict[str, int], earlier: _Side | None, level: float) -> Shift:
    """Test the label mix against that of the bundle, or of the earlier texts if it has none."""
    if manifest.label_mix:
        rows = manifest.training.get("rows_test")
        of_test = rows if isinstance(rows, int) else None
        found = mix_shift(manifest.label_mix, counts, reference_rows=of_test)
        return _shift("label mix", found, level, "bundle")
    if earlier is None:
        return _shift("label mix", None, level)
    before = earlier.seen.counts(manifest.labels)
    found = mix_shift(_shares(before), counts, reference_rows=sum(before.values()))
    return _shift("label mix", found, level)


def _shares(counts: dict[str, int]) -> dict[str, float]:
    return {label: count / sum(counts.values()) for label, count in counts.items()}


def _spread(name: Name, earlier: _Side | None, recent: _Side, level: float) -> Shift:
    old, new = None if earlier is None else earlier.measures[name], recent.measures[name]
    return msgspec.structs.replace(
        _shift(name, None if old is None else spread(old, new), level),
        earlier=None if old is None else float(old.mean()),
        recent=float(new.mean()),
    )


def _embedding(earlier: _Side | None, recent: _Side, level: float, seed: int) -> Shift:
    if earlier is None or earlier.points is None or recent.points is None:
        return _shift("embedding", None, level)
    found = embedding_shift(earlier.points, recent.points, seed=seed)
    return _shift("embedding", found, level)


def _shift(
    name: Name, found: Found | None, level: float, against: Literal["bundle", "earlier"] = "earlier"
) -> Shift:
    statistic, limit = _STATISTIC[name]
    shift = Shift(name=name, statistic=statistic, limit=limit)
    if found is None:
        return shift
    return msgspec.structs.replace(
        shift,
        against=against,
        value=found.value,
        p=found.p,
        moved=found.value >= limit and found.p < level,
    )
