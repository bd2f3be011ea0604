"""Keeps ten minutes of a server's counters in memory, and computes rates from the samples.

Rates and percentiles are differences between two samples, computed as Prometheus does, so that the
status page and a dashboard agree.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from sentimill.observability.metrics import SECONDS, Metrics

STEP_SECONDS: Final = 2.0
KEPT: Final = 301
"""How many samples are kept: ten minutes of them."""

_BY_LABEL: Final = {
    "sentimill_texts_total": "outcome",
    "sentimill_requests_total": "code",
    "sentimill_refused_requests_total": "reason",
    "sentimill_abstained_texts_total": "reason",
    "sentimill_reference_label_ratio": "outcome",
}
_CALLS: Final = "sentimill_requests_total"
_BUCKETS: Final = "sentimill_request_seconds_bucket"
TIMED: Final = ("Classify", "ClassifyStream", "ModelInfer")
"""Methods whose callers wait for answers; the others are for bulk work or take no texts."""

OBJECTIVE_METHOD: Final = "Classify"
"""The method that the latency objective is about."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The values of the counters at one moment.

    values: by name, for metrics without labels. by_label: by name, then by the value of the label
    in `_BY_LABEL`, summed over other labels. buckets: how many calls of the methods in `TIMED` each
    bucket of the request seconds holds. timed: calls of those methods, by code. objective: calls of
    `OBJECTIVE_METHOD` by bucket of `SECONDS`, cumulative; the last count is that of all calls.
    """

    at: float
    values: Mapping[str, float]
    by_label: Mapping[str, Mapping[str, float]]
    buckets: tuple[float, ...]
    timed: Mapping[str, float]
    objective: tuple[float, ...]

    @classmethod
    def take(cls, at: float, metrics: Metrics) -> Sample:
        """Read every counter now; *at* is in seconds on a clock that never goes back."""
        values: dict[str, float] = {}
        by_label: dict[str, dict[str, float]] = {name: {} for name in _BY_LABEL}
        cumulated = dict.fromkeys((*SECONDS, math.inf), 0.0)
        objective = dict(cumulated)
        timed: dict[str, float] = {}
        for family in metrics.shown.collect():
            for name, labels, value, *_ in family.samples:
                if name in by_label:
                    one = labels[_BY_LABEL[name]]
                    by_label[name][one] = by_label[name].get(one, 0.0) + value
                    if name == _CALLS and labels["method"] in TIMED:
                        timed[one] = timed.get(one, 0.0) + value
                elif name == _BUCKETS and labels["method"] in TIMED:
                    cumulated[float(labels["le"])] += value
                    if labels["method"] == OBJECTIVE_METHOD:
                        objective[float(labels["le"])] += value
                elif not labels:
                    values[name] = value
        edges = list(cumulated.values())
        buckets = (edges[0], *(b - a for a, b in pairwise(edges)))
        return cls(at, values, by_label, buckets, timed, tuple(objective.values()))


@dataclass(slots=True)
class History:
    """The newest `KEPT` samples, oldest first."""

    samples: deque[Sample] = field(default_factory=lambda: deque(maxlen=KEPT))

    def add(self, sample: Sample) -> None:
        """Keep *sample* as the newest."""
        self.samples.append(sample)

    def since(self, seconds: float) -> tuple[Sample, Sample] | None:
        """Return the oldest sample within *seconds* of the newest, and the newest."""
        *before, newest = list(self.samples)  # at once: another thread may add to them
        if not before:
            return None
        within = (sample for sample in before if newest.at - sample.at <= seconds)
        return next(within, before[-1]), newest


def grown(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """Return by how much each counter grew; what did not grow is left out."""
    grew = {name: value - before.get(name, 0.0) for name, value in after.items()}
    return {name: value for name, value in grew.items() if value > 0}


def growth(old: Sample, new: Sample, name: str) -> dict[str, float]:
    """Return by how much the counter *name* grew from *old* to *new*, by the value of its label."""
    return grown(old.by_label[name], new.by_label[name])


def quantile(q: float, counts: Sequence[float]) -> float | None:
    """Return the *q*-quantile in seconds of *counts* by bucket of `SECONDS`; None without calls.

    It is linear inside a bucket, and the last finite edge beyond that, like histogram_quantile of
    Prometheus.
    """
    total = sum(counts)
    if not total:
        return None
    below, left = 0.0, q * total
    for edge, count in zip(SECONDS, counts, strict=False):
        if count and left <= count:
            return below + (edge - below) * left / count
        left -= count
        below = edge
    return SECONDS[-1]


def population_stability(reference: Mapping[str, float], counts: Mapping[str, float]) -> float:
    """Return the population stability index of *counts* by label against *reference* shares.

    sum((p - q) * ln(p / q)), with shares below 0.001 raised to 0.001; 0 if nothing was counted.
    Below 0.1 is normal, above 0.25 is a shift (Siddiqi 2006, Credit Risk Scorecards, chapter 9).
    """
    total = sum(counts.get(label, 0.0) for label in reference)
    if not total:
        return 0.0
    index = 0.0
    for label, expected in reference.items():
        p = max(counts.get(label, 0.0) / total, 0.001)
        q = max(expected, 0.001)
        index += (p - q) * math.log(p / q)
    return index
