"""The content of the status page: a server's state, its last minutes, and its problems."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from itertools import pairwise

import msgspec

from sentimill.observability.history import History, Sample, growth, quantile
from sentimill.observability.metrics import OBJECTIVE_SECONDS, Metrics
from sentimill.observability.problems import Problem, State, problems_of


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """The last minutes, oldest first, one value per gap between samples; None without traffic.

    seconds_ago: when each gap ended. shares: of each label, among the texts that got a label.
    """

    seconds_ago: list[float]
    texts_per_second: list[float]
    requests_per_second: list[float]
    refused_per_second: list[float]
    p50_seconds: list[float | None]
    p95_seconds: list[float | None]
    p99_seconds: list[float | None]
    waiting_texts: list[float]
    useful_ratio: list[float | None]
    shares: dict[str, list[float | None]]


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the status page shows, and `/status.json` returns.

    totals: since the start, by name without prefix. playground: texts may be tried on the page.
    """

    state: State
    playground: bool
    problems: list[Problem]
    model: dict[str, str]
    uptime_seconds: float
    objective_seconds: float
    max_waiting_texts: float
    totals: dict[str, float]
    series: Series


class Status:
    """Keeps the state and the last minutes of one server. Any thread may read it.

    alive: tells whether the event loop still runs; if not, the process has to be restarted.
    """

    def __init__(self, metrics: Metrics, clock: Callable[[], float] = time.monotonic) -> None:
        self.metrics = metrics
        self.model: Mapping[str, str] = {}
        self.labels: tuple[str, ...] = ()
        self.folder = ""
        self.playground: Callable[[bytes], Mapping[str, object]] | None = None
        self.state: State = "starting"
        self.alive: Callable[[], bool] = lambda: True
        self._clock = clock
        self._began = clock()
        self._history = History()
        self.sample()

    def serve(
        self, model: Mapping[str, str], labels: tuple[str, ...], alive: Callable[[], bool]
    ) -> None:
        """Say that calls are answered from now on.

        It is called again after a reload. A reload that ends during a drain does not undo that.
        """
        self.model = model
        self.labels = labels
        self.alive = alive
        if self.state == "draining":
            return
        self.state = "serving"
        self.metrics.ready.set(1)

    def set_healthy(self, healthy: bool) -> None:
        """Say that calls are refused because the engine is broken, or that they are answered."""
        if self.state in ("serving", "failing"):
            self.state = "serving" if healthy else "failing"
            self.metrics.ready.set(healthy)

    def drain(self) -> None:
        """Say that no new call is answered."""
        self.state = "draining"
        self.metrics.ready.set(0)

    def sample(self) -> None:
        """Add the current counters to the history."""
        self._history.add(Sample.take(self._clock(), self.metrics))

    def document(self) -> Document:
        """Return everything that the page shows."""
        samples = list(self._history.samples)
        newest = samples[-1]
        return Document(
            state=self.state,
            playground=self.playground is not None,
            problems=problems_of(self.state, self._history),
            model=dict(self.model),
            uptime_seconds=self._clock() - self._began,
            objective_seconds=OBJECTIVE_SECONDS,
            max_waiting_texts=newest.values["sentimill_max_waiting_texts"],
            totals=_totals(newest),
            series=_series(samples, self.labels),
        )


def _totals(sample: Sample) -> dict[str, float]:
    by_label = sample.by_label
    return {
        "texts": sum(by_label["sentimill_texts_total"].values()),
        "requests": sum(by_label["sentimill_requests_total"].values()),
        "refused_requests": sum(by_label["sentimill_refused_requests_total"].values()),
        "truncated_texts": sample.values["sentimill_truncated_texts_total"],
        "abstained_texts": sum(by_label["sentimill_abstained_texts_total"].values()),
        "dropped_texts": sample.values["sentimill_dropped_texts_total"],
        "engine_failures": sample.values["sentimill_engine_failures_total"],
        "resident_bytes": sample.values.get("process_resident_memory_bytes", 0.0),
    }


def _series(samples: list[Sample], labels: tuple[str, ...]) -> Series:
    gaps = list(pairwise(samples))
    counts = [[b - a for a, b in zip(old.buckets, new.buckets, strict=True)] for old, new in gaps]
    texts = [growth(old, new, "sentimill_texts_total") for old, new in gaps]
    labelled = [sum(each.get(label, 0.0) for label in labels) for each in texts]

    def rates(name: str) -> list[float]:
        return [sum(growth(a, b, name).values()) / (b.at - a.at) for a, b in gaps]

    def useful(old: Sample, new: Sample) -> float | None:
        padded = _more(old, new, "sentimill_padded_tokens_total")
        return _more(old, new, "sentimill_useful_tokens_total") / padded if padded else None

    return Series(
        seconds_ago=[round(samples[-1].at - new.at, 1) for _, new in gaps],
        texts_per_second=rates("sentimill_texts_total"),
        requests_per_second=rates("sentimill_requests_total"),
        refused_per_second=rates("sentimill_refused_requests_total"),
        p50_seconds=[quantile(0.5, each) for each in counts],
        p95_seconds=[quantile(0.95, each) for each in counts],
        p99_seconds=[quantile(0.99, each) for each in counts],
        waiting_texts=[new.values["sentimill_waiting_texts"] for _, new in gaps],
        useful_ratio=[useful(old, new) for old, new in gaps],
        shares={
            label: [
                each.get(label, 0.0) / total if total else None
                for each, total in zip(texts, labelled, strict=True)
            ]
            for label in labels
        },
    )


def _more(old: Sample, new: Sample, name: str) -> float:
    return new.values[name] - old.values[name]
