"""What a server says of its own health."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from repository import ROOT
from sentimill.batching.admission import Admission
from sentimill.observability.history import KEPT, OBJECTIVE_METHOD
from sentimill.observability.metrics import Metrics, WorkerMetrics
from sentimill.observability.status import Document, Status

MIX = {"negative": 0.25, "neutral": 0.25, "positive": 0.5}
FACTS = {"name": "tiny", "version": "1", "digest": "d", "precision": "fp32", "provider": "cpu"}
GUIDE = ROOT / "docs/runbooks.md"
RULES = ROOT / "deploy/prometheus/rules.yml"


class Clock:
    """Time that goes when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


class Server:
    """The counters of a server without one behind them."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.metrics = Metrics()
        Admission(max_texts=8192, max_tokens=1 << 20, metrics=self.metrics)
        self.status = Status(self.metrics, self.clock)
        self.metrics.set_model(FACTS, tuple(MIX), MIX)
        self.status.serve(FACTS, tuple(MIX), lambda: True)

    def after(self, seconds: float) -> Document:
        """Let *seconds* pass, take a sample, and return what is shown."""
        self.clock.now += seconds
        self.status.sample()
        return self.status.document()


def test_a_quiet_server_has_no_problem() -> None:
    """And no percentiles, shares or useful ratio, which no traffic has."""
    shown = Server().after(2)

    assert shown.state == "serving"
    assert shown.problems == []
    assert shown.model == FACTS
    assert shown.max_waiting_texts == 8192
    assert shown.uptime_seconds == 2
    assert shown.series.texts_per_second == [0]
    assert shown.series.p99_seconds == [None]
    assert shown.series.useful_ratio == [None]
    assert shown.series.shares == {label: [None] for label in MIX}


def test_a_gap_between_samples_becomes_rates_and_percentiles() -> None:
    """Per second of the gap, whatever its length."""
    server = Server()
    server.metrics.texts.labels("positive").inc(3)
    server.metrics.texts.labels("negative").inc(1)
    server.metrics.texts.labels("EMPTY_TEXT").inc(4)
    server.metrics.observe_request("Classify", "OK", 0.3)
    server.metrics.observe_batch(rows=4, useful=30, padded=40, seconds=0.1, busy_seconds=0.1)
    server.metrics.waiting_texts.set(5)
    series = server.after(4).series

    assert series.seconds_ago == [0]
    assert series.texts_per_second == [2]
    assert series.requests_per_second == [0.25]
    assert series.waiting_texts == [5]
    assert series.useful_ratio == [0.75]
    assert series.p50_seconds == [pytest.approx(0.375)]
    assert series.shares == {"negative": [0.25], "neutral": [0], "positive": [0.75]}


def refuse(metrics: Metrics) -> None:
    """Refuse three calls because the queue was full."""
    metrics.refused.labels("QUEUE_FULL").inc(3)
    metrics.observe_request("Classify", "UNAVAILABLE", 0.001)


def be_late(metrics: Metrics) -> None:
    """Give up a call, refuse it as too late, and let gRPC end another, which is no refusal."""
    metrics.refused.labels("DEADLINE_EXCEEDED").inc()
    metrics.observe_request("Classify", "DEADLINE_EXCEEDED", 0.2)
    metrics.observe_request("ModelInfer", "DEADLINE_EXCEEDED", 0.2)


def fail(metrics: Metrics) -> None:
    """Let the engine fail on two texts."""
    metrics.engine_failures.inc(2)


def break_down(metrics: Metrics) -> None:
    """Fail inside the server."""
    metrics.observe_request("Classify", "INTERNAL", 0.01)


def dawdle(metrics: Metrics) -> None:
    """Answer one call of two later than the objective."""
    metrics.observe_request("Classify", "OK", 0.01)
    metrics.observe_request("Classify", "OK", 0.6)


def drift(metrics: Metrics) -> None:
    """Answer many texts in one way."""
    metrics.texts.labels("negative").inc(200)


TROUBLES: list[tuple[Callable[[Metrics], None], str, str, float]] = [
    (refuse, "3 calls were refused in the last minute: the queue was full.", "Refusing", 60),
    (be_late, "2 calls of the last minute got no answer before", "ErrorBudgetBurn", 60),
    (fail, "The engine failed on 2 texts in the last minute.", "EngineFailing", 60),
    (break_down, "1 calls failed inside the server in the last minute.", "ErrorBudgetBurn", 60),
    (dawdle, "50% of the Classify calls of the last minute took longer", "LatencyBudgetBurn", 60),
    (drift, "The mix of labels differs from the model's test set", "LabelMixDrift", 600),
]


@pytest.mark.parametrize(("make", "what", "runbook", "seconds"), TROUBLES)
def test_a_problem_is_told_with_its_remedy_and_goes_away(
    make: Callable[[Metrics], None], what: str, runbook: str, seconds: float
) -> None:
    """It is there while it is recent, and gone when it is not."""
    server = Server()
    server.after(1)
    make(server.metrics)

    (problem,) = server.after(1).problems
    assert problem.what.startswith(what)
    assert f"runbook {runbook}" in problem.do

    steps = 30 if seconds < 600 else KEPT
    for _ in range(steps):
        server.clock.now += seconds / steps
        server.status.sample()
    assert server.after(1).problems == []


@pytest.mark.parametrize(
    "make",
    [
        lambda metrics: metrics.texts.labels("negative").inc(199),
        lambda metrics: metrics.texts.labels("EMPTY_TEXT").inc(1000),
        lambda metrics: metrics.observe_request("Classify", "OK", 0.5),
        lambda metrics: metrics.observe_request("Classify", "INVALID_ARGUMENT", 0.01),
        lambda metrics: metrics.observe_reload(ok=True),
        lambda metrics: metrics.observe_request("ClassifyStream", "OK", 9.0),
        lambda metrics: metrics.observe_request("ClassifyBulk", "DEADLINE_EXCEEDED", 9.0),
    ],
    ids=[
        "few texts",
        "bad texts",
        "a call in time",
        "a caller's mistake",
        "a good reload",
        "a long stream",
        "late bulk work",
    ],
)
def test_what_is_usual_is_no_problem(make: Callable[[Metrics], None]) -> None:
    """A person is told only of what they can act on."""
    server = Server()
    server.after(1)
    make(server.metrics)

    assert server.after(1).problems == []


def fault_codes() -> list[str]:
    """Return the codes that the recording rules call failed by the server."""
    (codes,) = set(re.findall(r'code=~"([^"]+)"', RULES.read_text()))
    return str(codes).split("|")


@pytest.mark.parametrize("code", fault_codes())
def test_every_code_that_burns_the_budget_is_told_as_bad(code: str) -> None:
    """Page and alerts mean the same calls."""
    server = Server()
    server.after(1)
    server.metrics.observe_request("ClassifyStream", code, 0.01)
    if code == "UNAVAILABLE":
        server.metrics.refused.labels("QUEUE_FULL").inc()

    (problem,) = server.after(1).problems

    assert problem.severity == "bad"


def test_the_objective_is_about_the_same_method_on_the_page_and_in_the_rules() -> None:
    """A stream lasts as long as its caller likes, and is not slow for it."""
    assert set(re.findall(r'method="([^"]+)"', RULES.read_text())) == {OBJECTIVE_METHOD}


def test_refused_bulk_work_is_told_as_usual() -> None:
    """It is asked again; the alert leaves it out, so the page wants no replica for it."""
    server = Server()
    server.after(1)
    server.metrics.refused.labels("QUEUE_FULL").inc(3)
    server.metrics.observe_request("ClassifyBulk", "UNAVAILABLE", 0.001)

    (problem,) = server.after(1).problems

    assert problem.severity == "warning"
    assert problem.do.startswith("Nothing: all were bulk calls")


@pytest.mark.parametrize(("texts", "tokens"), [(6000, 0), (0, 800_000)])
def test_a_queue_that_stays_nearly_full_is_told(texts: int, tokens: int) -> None:
    """At the alert's limit; a burst is over before the next minute."""
    server = Server()
    server.metrics.waiting_texts.set(texts)
    server.metrics.waiting_tokens.set(tokens)

    assert server.after(1).problems == []
    (problem,) = server.after(60).problems
    assert problem.what.startswith("The queue has been nearly full: 7")
    assert "runbook QueueNearlyFull" in problem.do
    server.metrics.waiting_texts.set(0)
    server.metrics.waiting_tokens.set(0)
    assert server.after(1).problems == []


def test_a_worker_that_is_away_is_told() -> None:
    """The others answer, so nothing else on the page would say it."""
    server = Server()
    workers = WorkerMetrics(server.metrics.registry)
    workers.workers.set(4)
    workers.ready.set(3)

    (problem,) = server.after(2).problems

    assert problem.what == "1 of 4 worker processes are down."
    workers.ready.set(4)
    assert server.after(2).problems == []


def test_a_failed_reload_is_told_until_one_works() -> None:
    """However long that takes: the bundle that somebody wanted still does not answer."""
    server = Server()
    server.metrics.observe_reload(ok=False)
    server.after(1)

    (problem,) = server.after(10_000).problems

    assert problem.what == "A new bundle could not be loaded; the previous one still answers."
    assert "runbook ReloadFailed" in problem.do
    server.metrics.observe_reload(ok=True)
    assert server.after(1).problems == []


def test_a_server_that_starts_or_drains_says_so() -> None:
    """The state is also a metric."""
    server = Server()
    fresh = Status(Metrics(), server.clock)

    assert fresh.document().state == "starting"
    assert "is being loaded" in fresh.document().problems[0].what
    assert server.metrics.registry.get_sample_value("sentimill_ready") == 1
    server.status.drain()
    assert server.status.document().state == "draining"
    server.status.serve(FACTS, tuple(MIX), lambda: True)  # a reload that ends only now
    assert server.status.document().state == "draining"
    assert "is stopping" in server.status.document().problems[0].what
    assert server.metrics.registry.get_sample_value("sentimill_ready") == 0


def test_every_runbook_that_is_named_is_there() -> None:
    """A remedy that leads nowhere is none."""
    source = ROOT / "serve/sentimill/observability/problems.py"
    named = set(re.findall(r"[Rr]unbook (\w+)", source.read_text()))
    headings = set(re.findall(r"^## (\w+)$", GUIDE.read_text(), re.MULTILINE))

    assert named
    assert named <= headings


def test_a_broken_engine_is_told_until_it_answers() -> None:
    """The server is not ready meanwhile; a drain is not undone by an engine that recovers."""
    server = Status(Metrics())
    server.serve({}, (), lambda: True)
    server.set_healthy(False)
    ready = server.metrics.registry.get_sample_value("sentimill_ready")
    said = [problem.what for problem in server.document().problems]
    server.set_healthy(True)

    assert ready == 0
    assert said == ["The engine is broken: calls are refused until a new model or process answers."]
    assert (server.state, server.document().problems) == ("serving", [])
    server.drain()
    server.set_healthy(True)
    assert server.state == "draining"
