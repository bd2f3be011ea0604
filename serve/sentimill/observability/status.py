"""What a server says of its own health: its state, its last minutes, and what is wrong with it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Final, Literal

import msgspec

from sentimill.observability.history import (
    OBJECTIVE_METHOD,
    History,
    Sample,
    grown,
    population_stability,
    quantile,
)
from sentimill.observability.metrics import OBJECTIVE_SECONDS, SECONDS, Metrics

__all__ = ["Document", "Problem", "Series", "Status", "Tried", "problems_of"]

State = Literal["starting", "serving", "failing", "draining"]

_QUICK_SHARE: Final = 0.99
"""Share of calls that the objective wants within `OBJECTIVE_SECONDS`."""

_DRIFT: Final = 0.25
_DRIFT_TEXTS: Final = 200
"""So few texts have a mix by chance: nothing is said of it."""

_REASONS: Final = {
    "QUEUE_FULL": ("the queue was full", "Add a replica or send less: runbook Refusing."),
    "CALLER_SHARE_FULL": (
        "one caller held more than its share of the queue",
        "Add a replica, or let that caller send less: runbook Refusing.",
    ),
    "ENGINE_FAILED": ("the engine failed", "Read the log: runbook EngineFailing."),
    "DEADLINE_TOO_SHORT": (
        "the queue was longer than the callers' deadlines",
        "Add a replica, send less, or give calls more time: runbook Refusing.",
    ),
    "TOKEN_MISSING": ("they came without a token", "Ask who sends them: runbook Refusing."),
    "TOKEN_UNKNOWN": ("their token is not known", "Ask who sends them: runbook Refusing."),
    "QUOTA_EXCEEDED": (
        "their caller's quota was used up",
        "Raise the quota if they are welcome: runbook Refusing.",
    ),
}

_FULL: Final = 0.7
"""The alert's limit, as a share of what may wait."""

_CALLERS_AFFAIR: Final = ("TOKEN_MISSING", "TOKEN_UNKNOWN", "QUOTA_EXCEEDED")
"""Reasons that are no fault of the server, however many they are; alerts leave them out."""


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong, in a sentence, and what to do about it."""

    severity: Literal["bad", "warning"]
    what: str
    do: str


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """The last minutes, oldest first, one value for each gap between samples; None, no traffic.

    seconds_ago: when each gap ended. shares: of each label, among the texts that got one.
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


class Tried(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The answer to a text that somebody typed on the page: a label, or why there is none."""

    label: str = ""
    confidence: float = 0.0
    tokens: int = 0
    abstained: bool = False
    truncated: bool = False
    error: str = ""


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
    """Keeps the state and the last minutes of one server. Any thread may read it."""

    def __init__(self, metrics: Metrics, clock: Callable[[], float] = time.monotonic) -> None:
        self.metrics = metrics
        self.model: Mapping[str, str] = {}
        self.labels: tuple[str, ...] = ()
        self.folder = ""
        self.playground: Callable[[bytes], Tried] | None = None
        self._state: State = "starting"
        self._alive: Callable[[], bool] = lambda: True
        self._clock = clock
        self._began = clock()
        self._history = History()
        self.sample()

    @property
    def state(self) -> State:
        """Whether calls are answered."""
        return self._state

    def serve(
        self, model: Mapping[str, str], labels: tuple[str, ...], alive: Callable[[], bool]
    ) -> None:
        """Say that calls are answered from now on; *alive* tells whether the loop still turns.

        After a reload it is called again; one that ends during a drain does not undo it.
        """
        self.model = model
        self.labels = labels
        self._alive = alive
        if self._state == "draining":
            return
        self._state = "serving"
        self.metrics.ready.set(1)

    def set_healthy(self, healthy: bool) -> None:
        """Say that calls are refused because the engine is broken, or that they are answered."""
        if self._state in ("serving", "failing"):
            self._state = "serving" if healthy else "failing"
            self.metrics.ready.set(healthy)

    def drain(self) -> None:
        """Say that no new call is answered."""
        self._state = "draining"
        self.metrics.ready.set(0)

    def alive(self) -> bool:
        """Return whether the process does anything at all; if not, it is to be restarted."""
        return self._alive()

    def sample(self) -> None:
        """Keep what the counters say now."""
        self._history.add(Sample.take(self._clock(), self.metrics))

    def document(self) -> Document:
        """Return everything that the page shows."""
        samples = list(self._history.samples)
        newest = samples[-1]
        return Document(
            state=self._state,
            playground=self.playground is not None,
            problems=problems_of(self._state, self._history),
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
    texts = [_grown(old, new, "sentimill_texts_total") for old, new in gaps]
    labelled = [sum(each.get(label, 0.0) for label in labels) for each in texts]

    def rates(name: str) -> list[float]:
        return [sum(_grown(a, b, name).values()) / (b.at - a.at) for a, b in gaps]

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


def problems_of(state: State, history: History) -> list[Problem]:
    """Return what is wrong now: in the last minute, or in all that is kept for what is rare."""
    found: list[Problem] = []
    if state == "starting":
        what = "The model is being loaded: no call is answered yet."
        do = "Wait. If this takes over a minute, read the log: runbook NotReady."
        found.append(Problem(severity="warning", what=what, do=do))
    if state == "failing":
        what = "The engine is broken: calls are refused until a new model or process answers."
        do = "The log says why. If this lasts or comes back: runbook ModelRestarted."
        found.append(Problem(severity="bad", what=what, do=do))
    if state == "draining":
        what = "The server is stopping: calls under way are finished, new ones are refused."
        do = "Nothing, if somebody stopped it on purpose."
        found.append(Problem(severity="warning", what=what, do=do))
    if (minute := history.since(60.0)) is not None:
        found += _refusals(*minute) + _failures(*minute) + _slowness(*minute)
        found += _fullness(*minute)
        found += _workers(minute[1]) + _reloads(minute[1])
    if (kept := history.since(float("inf"))) is not None:
        found += _drift(*kept)
    return found


def _refusals(old: Sample, new: Sample) -> list[Problem]:
    found = []
    # Reasons are counted for all methods together, so that the codes have to say whose they were.
    waited_for = "UNAVAILABLE" in grown(old.timed, new.timed)
    for reason, count in _grown(old, new, "sentimill_refused_requests_total").items():
        if reason == "DEADLINE_EXCEEDED":
            continue  # gRPC ends most such calls before we do: `_failures` tells of both
        why, do = _REASONS.get(reason, (f"of {reason}", "Runbook Refusing."))
        what = f"{count:.0f} calls were refused in the last minute: {why}."
        severe: Literal["bad", "warning"] = "bad"
        if reason in _CALLERS_AFFAIR:
            severe = "warning"
        elif not waited_for:
            severe = "warning"
            do = "Nothing: all were bulk work, which is asked again (docs/scoring.md)."
        found.append(Problem(severity=severe, what=what, do=do))
    return found


def _failures(old: Sample, new: Sample) -> list[Problem]:
    found = []
    if count := _more(old, new, "sentimill_engine_failures_total"):
        what = f"The engine failed on {count:.0f} texts in the last minute."
        do = "Read the log, then go back to the bundle before: runbook EngineFailing."
        found.append(Problem(severity="bad", what=what, do=do))
    if count := grown(old.timed, new.timed).get("DEADLINE_EXCEEDED", 0.0):
        what = f"{count:.0f} calls of the last minute got no answer before their deadline."
        do = "Add a replica, send less, or give calls more time: runbook ErrorBudgetBurn."
        found.append(Problem(severity="bad", what=what, do=do))
    codes = _grown(old, new, "sentimill_requests_total")
    if count := codes.get("INTERNAL", 0.0) + codes.get("UNKNOWN", 0.0):
        what = f"{count:.0f} calls failed inside the server in the last minute."
        do = "Read the log: runbook ErrorBudgetBurn."
        found.append(Problem(severity="bad", what=what, do=do))
    return found


def _workers(new: Sample) -> list[Problem]:
    """Say how many of several processes are away; a single one has no such counts."""
    away = new.values.get("sentimill_workers", 0) - new.values.get("sentimill_ready_workers", 0)
    if not away:
        return []
    what = f"{away:.0f} of {new.values['sentimill_workers']:.0f} worker processes are away."
    do = "The log says why each ended: runbook WorkersMissing."
    return [Problem(severity="bad", what=what, do=do)]


def _slowness(old: Sample, new: Sample) -> list[Problem]:
    counts = [b - a for a, b in zip(old.objective, new.objective, strict=True)]
    total = counts[-1]
    quick = counts[SECONDS.index(OBJECTIVE_SECONDS)]
    if not total or quick / total >= _QUICK_SHARE:
        return []
    what = (
        f"{1 - quick / total:.0%} of the {OBJECTIVE_METHOD} calls of the last minute took longer"
        f" than {OBJECTIVE_SECONDS:g} s; the objective is {1 - _QUICK_SHARE:.0%}."
    )
    do = "Add a replica, or send fewer texts a call: runbook LatencyBudgetBurn."
    return [Problem(severity="warning", what=what, do=do)]


def _fullness(old: Sample, new: Sample) -> list[Problem]:
    """Say that a queue is nearly full, if it was so a minute ago: a burst alone is no problem."""
    for what in ("texts", "tokens"):
        shares = [
            each.values[f"sentimill_waiting_{what}"]
            / (each.values[f"sentimill_max_waiting_{what}"] or math.inf)
            for each in (old, new)
        ]
        if min(shares) > _FULL:
            said = f"The queue has been nearly full: {shares[1]:.0%} of the {what} that may wait."
            do = "Add a replica or send less: runbook QueueNearlyFull."
            return [Problem(severity="warning", what=said, do=do)]
    return []


def _reloads(new: Sample) -> list[Problem]:
    """Say it until a load works, as the alert does: nothing else ends it."""
    if new.values["sentimill_last_reload_successful"]:
        return []
    what = "A new bundle could not be loaded; the one before answers."
    do = "The log says why; `sentimill bundle verify` does too: runbook ReloadFailed."
    return [Problem(severity="bad", what=what, do=do)]


def _drift(old: Sample, new: Sample) -> list[Problem]:
    reference = new.by_label["sentimill_reference_label_ratio"]
    texts = _grown(old, new, "sentimill_texts_total")
    counts = {label: texts.get(label, 0.0) for label in reference}
    index = population_stability(reference, counts)
    if sum(counts.values()) < _DRIFT_TEXTS or index <= _DRIFT:
        return []
    what = (
        "The mix of labels is not that of the model's test set: population stability index"
        f" {index:.2f}, the limit is {_DRIFT}."
    )
    do = "Look at a sample of the texts before trusting the figures: runbook LabelMixDrift."
    return [Problem(severity="warning", what=what, do=do)]


def _grown(old: Sample, new: Sample, name: str) -> dict[str, float]:
    return grown(old.by_label[name], new.by_label[name])


def _more(old: Sample, new: Sample, name: str) -> float:
    return new.values[name] - old.values[name]
