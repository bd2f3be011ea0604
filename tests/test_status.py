"""What a server says of its own health."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from sentimill.history import KEPT
from sentimill.metrics import Metrics, WorkerMetrics
from sentimill.status import Document, Status

MIX = {"negative": 0.25, "neutral": 0.25, "positive": 0.5}
FACTS = {"name": "tiny", "version": "1", "digest": "d", "precision": "fp32", "provider": "cpu"}
GUIDE = Path(__file__).parents[1] / "docs/operate.md"


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
        self.metrics.set_limits(texts=8192, tokens=1 << 20)
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
    (fail, "The engine failed on 2 texts in the last minute.", "EngineFailing", 60),
    (break_down, "1 calls failed inside the server in the last minute.", "ErrorBudgetBurn", 60),
    (dawdle, "50% of the calls of the last minute took longer", "LatencyBudgetBurn", 60),
    (drift, "The mix of labels is not that of the model's test set", "LabelMixDrift", 600),
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
    ],
    ids=["few texts", "bad texts", "a call in time", "a caller's mistake", "a good reload"],
)
def test_what_is_usual_is_no_problem(make: Callable[[Metrics], None]) -> None:
    """A person is told only of what they can act on."""
    server = Server()
    server.after(1)
    make(server.metrics)

    assert server.after(1).problems == []


def test_a_worker_that_is_away_is_told() -> None:
    """The others answer, so nothing else on the page would say it."""
    server = Server()
    workers = WorkerMetrics(server.metrics.registry)
    workers.workers.set(4)
    workers.ready.set(3)

    (problem,) = server.after(2).problems

    assert problem.what == "1 of 4 worker processes are away."
    workers.ready.set(4)
    assert server.after(2).problems == []


def test_a_failed_reload_is_told_until_one_works() -> None:
    """However long that takes: the bundle that somebody wanted still does not answer."""
    server = Server()
    server.metrics.observe_reload(ok=False)
    server.after(1)

    (problem,) = server.after(10_000).problems

    assert problem.what == "A new bundle could not be loaded; the one before answers."
    assert "runbook ReloadFailed" in problem.do
    server.metrics.observe_reload(ok=True)
    assert server.after(1).problems == []


def test_a_server_that_starts_or_drains_says_so() -> None:
    """The state is also a metric."""
    server = Server()
    fresh = Status(Metrics(), server.clock)

    assert fresh.document().state == "starting"
    assert "is being loaded" in fresh.document().problems[0].what
    assert server.metrics.registry.get_sample_value("sentimill_ready_ratio") == 1
    server.status.drain()
    assert server.status.document().state == "draining"
    server.status.serve(FACTS, tuple(MIX), lambda: True)  # a reload that ends only now
    assert server.status.document().state == "draining"
    assert "is stopping" in server.status.document().problems[0].what
    assert server.metrics.registry.get_sample_value("sentimill_ready_ratio") == 0


def test_every_runbook_that_is_named_is_there() -> None:
    """A remedy that leads nowhere is none."""
    source = Path(__file__).parents[1] / "serve/sentimill/status.py"
    named = set(re.findall(r"[Rr]unbook (\w+)", source.read_text()))
    headings = set(re.findall(r"^### (\w+)$", GUIDE.read_text(), re.MULTILINE))

    assert named
    assert named <= headings
