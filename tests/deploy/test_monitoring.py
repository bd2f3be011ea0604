"""A real Prometheus that watches a live server: queries, rules, and an alert that comes and goes.

The rules are those that are shipped, sixty times as fast: every duration in them is divided.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import msgspec
import pytest

from background_load import load
from benchmarks.serving.prometheus_server import Prometheus, hasten, prometheus, until
from dashboard import ELSEWHERE, PANELS, Query
from live_server import live_server
from sentimill.server.request_handler import Limits
from sentimill.server.settings import Serve
from system_programs import find
from tiny_bundle import write_tiny_bundle

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

FASTER = 60
TEXTS = ["good battery", "bad", "", "good " * 20]
QUERIES = [
    query
    for row, panels in PANELS.items()
    if row not in ELSEWHERE
    for panel in panels
    for query in panel.queries
]


def values(watch: Prometheus, query: Query) -> list[float]:
    """Return what an expression of the dashboard gives now, for all jobs and instances."""
    expression = re.sub(r"\$(job|instance)", ".*", query.promql)
    expression = expression.replace("$__rate_interval", "5s")
    return [float(each["value"][1]) for each in watch.ask("query", query=expression)["result"]]


def test_windows_are_hastened_and_names_are_not() -> None:
    """The rules in the test are the shipped ones in everything but time."""
    rule = "record: a:b:rate5m\nexpr: rate(x[5m]) + rate(y[3d]) > 14.4 * 0.01\nfor: 1h\n"

    expected = "record: a:b:rate5m\nexpr: rate(x[5s]) + rate(y[4320s]) > 14.4 * 0.01\nfor: 60s\n"
    assert hasten(rule, FASTER) == expected


def test_prometheus_sees_a_live_server_and_an_overload_come_and_go(tmp_path: Path) -> None:
    """Every query of the dashboard gives a number, every rule evaluates, an alert fires and ends.

    The overload is real: more callers than the queue has room for, without a pause.
    """
    mix = {"negative": 0.25, "neutral": 0.25, "positive": 0.5}
    made = write_tiny_bundle(
        tmp_path / "tiny", change=lambda m: msgspec.structs.replace(m, label_mix=mix)
    )
    limits = Limits(max_waiting_texts=16)
    server = Serve(bundle=made.path, port=0, metrics_port=0, limits=limits)
    with (
        live_server(server) as live,
        prometheus(find("prometheus"), tmp_path, live.metrics_address, faster=FASTER) as watch,
        load(live.address, TEXTS, callers=1, pause=0.02) as calm,
    ):
        until(lambda: calm.codes.get("OK", 0) > 20)
        until(lambda: watch.ask("query", query="job:sentimill_texts:rate5m > 0")["result"])
        assert watch.firing() == set()

        with load(live.address, TEXTS, callers=16) as rush:
            until(lambda: "SentimillRefusing" in watch.firing())
            until(lambda: not missing(watch))
            assert rush.codes["UNAVAILABLE"] > 0
        until(lambda: "SentimillRefusing" not in watch.firing())

        groups = watch.ask("rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) > 30
    assert {rule["health"] for rule in rules} == {"ok"}


def missing(watch: Prometheus) -> list[str]:
    """Return the queries that give no number."""
    return [
        query.promql
        for query in QUERIES
        if not any(math.isfinite(value) for value in values(watch, query))
    ]
