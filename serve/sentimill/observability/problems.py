"""Finds what is wrong with a server, and says on the status page what to do about it.

The page and the alerts agree: each problem names a runbook, and limits are those of the alerts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final, Literal

import msgspec

from sentimill.observability.history import (
    OBJECTIVE_METHOD,
    History,
    Sample,
    grown,
    growth,
    population_stability,
)
from sentimill.observability.metrics import OBJECTIVE_SECONDS, SECONDS

State = Literal["starting", "serving", "failing", "draining"]
Severity = Literal["bad", "warning"]

ALERT_LIMITS: Final = {"LatencyBudgetBurn": 0.01, "QueueNearlyFull": 0.7, "LabelMixDrift": 0.25}
"""The limits in deploy/prometheus/alerts.yml: shares of calls and of the queue, and a PSI."""

_DRIFT_TEXTS: Final = 200
"""With fewer texts the mix says nothing."""

_PROBLEMS: Final[dict[str, tuple[Severity, str, str]]] = {
    "starting": (
        "warning",
        "The model is being loaded: no call is answered yet.",
        "Wait. If this takes over a minute, read the log: runbook NotReady.",
    ),
    "failing": (
        "bad",
        "The engine is broken: calls are refused until a new model or process answers.",
        "The log says why. If this lasts or comes back: runbook ModelRestarted.",
    ),
    "draining": (
        "warning",
        "The server is stopping: calls under way are finished, new ones are refused.",
        "Nothing, if somebody stopped it on purpose.",
    ),
    "engine": (
        "bad",
        "The engine failed on {0:.0f} texts in the last minute.",
        "Read the log, then return to the previous bundle: runbook EngineFailing.",
    ),
    "deadlines": (
        "bad",
        "{0:.0f} calls of the last minute got no answer before their deadline.",
        "Add a replica, send less, or give calls more time: runbook ErrorBudgetBurn.",
    ),
    "bugs": (
        "bad",
        "{0:.0f} calls failed inside the server in the last minute.",
        "Read the log: runbook ErrorBudgetBurn.",
    ),
    "slow": (
        "warning",
        "{0:.0%} of the " + OBJECTIVE_METHOD + " calls of the last minute took longer than {1:g} s;"
        " the limit is {2:.0%}.",
        "Add a replica, or send fewer texts per call: runbook LatencyBudgetBurn.",
    ),
    "full": (
        "warning",
        "The queue has been nearly full: {0:.0%} of the {1} that may wait.",
        "Add a replica or send less: runbook QueueNearlyFull.",
    ),
    "workers": (
        "bad",
        "{0:.0f} of {1:.0f} worker processes are down.",
        "The log says why each ended: runbook WorkersMissing.",
    ),
    "reload": (
        "bad",
        "A new bundle could not be loaded; the previous one still answers.",
        "The log says why; `sentimill bundle verify` does too: runbook ReloadFailed.",
    ),
    "drift": (
        "warning",
        "The mix of labels differs from the model's test set: population stability index"
        " {0:.2f}, the limit is {1}.",
        "Look at a sample of the texts before trusting the figures: runbook LabelMixDrift.",
    ),
}

_REFUSED: Final = "{0:.0f} calls were refused in the last minute: {1}."
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
_CALLERS_OWN: Final = ("TOKEN_MISSING", "TOKEN_UNKNOWN", "QUOTA_EXCEEDED")
"""Reasons that are never the server's fault; alerts ignore them."""


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong, in a sentence, and what to do about it."""

    severity: Severity
    what: str
    do: str


def problems_of(state: State, history: History) -> list[Problem]:
    """Return what is wrong: in the last minute or, for drift, in the whole history."""
    found = [_problem(state)] if state in _PROBLEMS else []
    if (minute := history.since(60.0)) is not None:
        found += [*_refusals(*minute), *_failures(*minute), *_lasting(*minute)]
    if (kept := history.since(math.inf)) is not None:
        found += _drift(*kept)
    return found


def _problem(name: str, *figures: object) -> Problem:
    severity, what, do = _PROBLEMS[name]
    return Problem(severity=severity, what=what.format(*figures), do=do)


def _refusals(old: Sample, new: Sample) -> Iterator[Problem]:
    # Reasons are counted for all methods together; the codes tell whether somebody waited.
    waited_for = "UNAVAILABLE" in grown(old.timed, new.timed)
    for reason, count in growth(old, new, "sentimill_refused_requests_total").items():
        if reason == "DEADLINE_EXCEEDED":
            continue  # gRPC ends most such calls itself: `_failures` counts both
        why, do = _REASONS.get(reason, (f"the reason is {reason}", "Runbook Refusing."))
        severity: Severity = "warning" if reason in _CALLERS_OWN or not waited_for else "bad"
        if reason not in _CALLERS_OWN and not waited_for:
            do = "Nothing: all were bulk calls, which are retried (docs/scoring.md)."
        yield Problem(severity=severity, what=_REFUSED.format(count, why), do=do)


def _failures(old: Sample, new: Sample) -> Iterator[Problem]:
    codes = growth(old, new, "sentimill_requests_total")
    failed = "sentimill_engine_failures_total"
    counts = {
        "engine": new.values[failed] - old.values[failed],
        "deadlines": grown(old.timed, new.timed).get("DEADLINE_EXCEEDED", 0.0),
        "bugs": codes.get("INTERNAL", 0.0) + codes.get("UNKNOWN", 0.0),
    }
    yield from (_problem(what, count) for what, count in counts.items() if count)


def _lasting(old: Sample, new: Sample) -> Iterator[Problem]:
    """Yield slow calls, a queue nearly full for a minute, absent workers and a failed reload."""
    calls = [b - a for a, b in zip(old.objective, new.objective, strict=True)]
    limit = ALERT_LIMITS["LatencyBudgetBurn"]
    quick = calls[SECONDS.index(OBJECTIVE_SECONDS)] / calls[-1] if calls[-1] else 1.0
    if quick < 1 - limit:
        yield _problem("slow", 1 - quick, OBJECTIVE_SECONDS, limit)
    for unit in ("texts", "tokens"):
        before, now = (
            each.values[f"sentimill_waiting_{unit}"]
            / (each.values[f"sentimill_max_waiting_{unit}"] or math.inf)
            for each in (old, new)
        )
        if min(before, now) > ALERT_LIMITS["QueueNearlyFull"]:
            yield _problem("full", now, unit)
            break
    workers = new.values.get("sentimill_workers", 0)  # a single process has no such count
    if away := workers - new.values.get("sentimill_ready_workers", 0):
        yield _problem("workers", away, workers)
    if not new.values["sentimill_last_reload_successful"]:
        yield _problem("reload")


def _drift(old: Sample, new: Sample) -> Iterator[Problem]:
    reference = new.by_label["sentimill_reference_label_ratio"]
    texts = growth(old, new, "sentimill_texts_total")
    counts = {label: texts.get(label, 0.0) for label in reference}
    index, limit = population_stability(reference, counts), ALERT_LIMITS["LabelMixDrift"]
    if sum(counts.values()) >= _DRIFT_TEXTS and index > limit:
        yield _problem("drift", index, limit)
