"""Adds up the metrics of several processes, so that they look like those of one server.

Counters and histograms add up, and so do most gauges: waiting texts, limits, bytes in memory. The
exceptions are listed here.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

import msgspec
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar

_FIRST: Final = {"sentimill_ready", "process_start_time_seconds"}
"""Families taken from the supervisor only, not summed over workers."""

Merge = Callable[[float, float], float]

_MERGE: Final[dict[str, Merge]] = {
    "sentimill_last_reload_successful": min,  # a 0 from one worker means a failure
    # In these, all workers have the same value, or the newest value counts.
    "python_info": max,
    "sentimill_index_rows": max,
    "sentimill_model": max,
    "sentimill_model_loaded_timestamp_seconds": max,
    "sentimill_reference_label_ratio": max,
}
"""How to merge two values of a family, unless they add up."""

_LASTING: Final = {"counter", "histogram", "summary"}


class Point(msgspec.Struct, array_like=True):
    """One sample. exemplar: labels, value, timestamp."""

    name: str
    labels: dict[str, str]
    value: float
    exemplar: tuple[dict[str, str], float, float | None] | None = None


class Family(msgspec.Struct, array_like=True):
    """One metric with its samples, in a form that msgspec sends."""

    name: str
    says: str
    kind: str
    points: list[Point]


def snapshot(registry: CollectorRegistry) -> list[Family]:
    """Return the current values of *registry*."""
    return [
        Family(
            family.name,
            family.documentation,
            family.type,
            [
                Point(sample.name, dict(sample.labels), sample.value, _sent(sample.exemplar))
                for sample in family.samples
                if sample.labels or family.type != "info"  # not one without a value yet
            ],
        )
        for family in registry.collect()
    ]


def _sent(exemplar: Exemplar | None) -> tuple[dict[str, str], float, float | None] | None:
    if exemplar is None:
        return None
    at = None if exemplar.timestamp is None else float(exemplar.timestamp)
    return dict(exemplar.labels), exemplar.value, at


def merged(members: Iterable[Sequence[Family]]) -> list[Family]:
    """Return the families of all members as one member's; names and labels keep their order."""
    families: dict[str, Family] = {}
    points: dict[tuple[str, tuple[tuple[str, str], ...]], Point] = {}
    for member in members:
        for family in member:
            if family.name in _FIRST and family.name in families:
                continue
            found = families.setdefault(
                family.name, Family(family.name, family.says, family.kind, [])
            )
            for point in family.points:
                key = point.name, tuple(sorted(point.labels.items()))
                if (known := points.get(key)) is None:
                    points[key] = known = Point(*msgspec.structs.astuple(point))
                    found.points.append(known)
                    continue
                merge: Merge = _MERGE.get(family.name, operator.add)
                known.value = merge(known.value, point.value)
                known.exemplar = known.exemplar or point.exemplar
    return list(families.values())


def lasting(families: Sequence[Family]) -> list[Family]:
    """Return what still counts after a process has ended: the families that only grow."""
    return [family for family in families if family.kind in _LASTING]


def total(families: Sequence[Family], name: str) -> float:
    """Return the sum of the samples called *name*."""
    return sum(point.value for f in families for point in f.points if point.name == name)


class AggregatedMetrics(Collector):
    """Shows what *collect* returns; it is called at each scrape, in the scrape's thread."""

    def __init__(self, collect: Callable[[], list[Family]]) -> None:
        self.registry = CollectorRegistry()
        self._collect = collect
        self.registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Yield the families."""
        for family in self._collect():
            metric = Metric(family.name, family.says, family.kind)
            for point in family.points:
                exemplar = None if point.exemplar is None else Exemplar(*point.exemplar)
                metric.add_sample(point.name, point.labels, point.value, exemplar=exemplar)
            yield metric
