"""A real Prometheus that watches a live server: queries, rules, and an alert that comes and goes.

The rules are those that are shipped, sixty times as fast: every duration in them is divided.
"""

from __future__ import annotations

import json
import math
import re
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dashboard import PANELS, Query
from live import WAIT_SECONDS, live_server
from load import load
from programs import find
from sentimill.desk import Limits
from sentimill.server import Serve
from test_alerts import ALERTS, RULES
from tiny import write_tiny_bundle

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

FASTER = 60
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
TEXTS = ["good battery", "bad", "", "good " * 20]
QUERIES = [query for row in PANELS.values() for panel in row for query in panel.queries]


def hasten(rules: str) -> str:
    """Return *rules* with every window and every `for` divided by `FASTER`."""

    def divide(found: re.Match[str]) -> str:
        seconds = int(found[2]) * _UNITS[found[3]] / FASTER
        return f"{found[1]}{math.ceil(seconds)}s"

    return re.sub(r"(\[|for: )(\d+)([smhd])", divide, rules)


class Prometheus:
    """A running one."""

    def __init__(self, address: str) -> None:
        self._address = address

    def ask(self, path: str, **query: str) -> Any:
        """Return the data of one answer of the API."""
        url = f"http://{self._address}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=WAIT_SECONDS) as answer:
            return json.load(answer)["data"]

    def values(self, query: Query) -> list[float]:
        """Return what an expression of the dashboard gives now, for all jobs and instances."""
        expression = re.sub(r"\$(job|instance)", ".*", query.promql)
        expression = expression.replace("$__rate_interval", "5s")
        return [float(each["value"][1]) for each in self.ask("query", query=expression)["result"]]

    def firing(self) -> set[str]:
        """Return the names of the alerts that fire."""
        found = self.ask("alerts")["alerts"]
        return {each["labels"]["alertname"] for each in found if each["state"] == "firing"}


@contextmanager
def prometheus(folder: Path, target: str) -> Iterator[Prometheus]:
    """Scrape *target* twice a second, with the shipped rules, on a free port."""
    for file in (RULES, ALERTS):
        (folder / file.name).write_text(hasten(file.read_text()))
    config = {
        "global": {"scrape_interval": "500ms", "evaluation_interval": "500ms"},
        "rule_files": [RULES.name, ALERTS.name],
        "scrape_configs": [
            {"job_name": "sentimill", "static_configs": [{"targets": [target]}]},
        ],
    }
    (folder / "prometheus.yml").write_text(json.dumps(config))
    command = [
        find("prometheus"),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        "--web.listen-address=127.0.0.1:0",
    ]
    log = folder / "log"
    with log.open("wb") as out, subprocess.Popen(command, stderr=out, stdout=out) as process:
        try:
            until(lambda: listening(log) or process.poll() is not None)
            assert process.poll() is None, log.read_text()
            yield Prometheus(listening(log))
        finally:
            process.terminate()


def listening(log: Path) -> str:
    """Return the address that the log names, empty before."""
    found = re.search(r'"Listening on" address=(\S+)', log.read_text())
    return found[1] if found else ""


def until(condition: Callable[[], object], seconds: float = 3 * WAIT_SECONDS) -> None:
    """Wait until *condition* holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)  # another process is to act; there is nothing to wait on


def test_windows_are_hastened_and_names_are_not() -> None:
    """The rules in the test are the shipped ones in everything but time."""
    rule = "record: a:b:rate5m\nexpr: rate(x[5m]) + rate(y[3d]) > 14.4 * 0.01\nfor: 1h\n"

    expected = "record: a:b:rate5m\nexpr: rate(x[5s]) + rate(y[4320s]) > 14.4 * 0.01\nfor: 60s\n"
    assert hasten(rule) == expected


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
        prometheus(tmp_path, live.metrics_address) as watch,
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
        if not any(math.isfinite(value) for value in watch.values(query))
    ]
