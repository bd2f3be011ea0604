"""The Grafana dashboard: true to its description, and to the metrics that there are."""

from __future__ import annotations

import json
import re

import pytest
import yaml
from prometheus_client import Metric

import dashboard
from dashboard import PANELS, TARGET, Panel, Query
from metric_families import full
from repository import ROOT
from sentimill.observability.history import TIMED
from sentimill.observability.metrics import WorkerMetrics
from sentimill.scoring.job_metrics import JobMetrics

RULES = ROOT / "deploy/prometheus/rules.yml"
ALERTS = ROOT / "deploy/prometheus/alerts.yml"
JOBS = [query for panel in PANELS["Scoring jobs"] for query in panel.queries]
EVERY = [panel for row in PANELS.values() for panel in row]


def rules() -> dict[str, str]:
    """Return every recording rule's expression by its name."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["record"]: rule["expr"] for group in groups for rule in group["rules"]}


def named(expression: str) -> set[str]:
    """Return the metrics that *expression* asks for."""
    return set(re.findall(r"(?<![\w:])(?:\w+:)*(?:sentimill|process)_\w+(?::\w+)*", expression))


def families() -> list[Metric]:
    """Return everything that a server, its workers or a scoring job count."""
    server = full()
    workers = WorkerMetrics(server.registry)
    workers.restarts.labels("0")
    workers.texts.labels("0")
    return [*server.registry.collect(), *JobMetrics("-").registry.collect()]


def known() -> set[str]:
    """Return every series that servers or a scoring job have, and every recording rule."""
    return {sample.name for family in families() for sample in family.samples} | rules().keys()


def test_the_committed_json_is_what_the_description_says() -> None:
    """`python deploy/grafana/dashboard.py` writes it; nobody edits it."""
    assert json.loads(TARGET.read_text()) == dashboard.dashboard()


def test_page_rules_and_dashboard_mean_the_same_calls() -> None:
    """The objectives are about calls that somebody waits for, wherever they are drawn."""
    lists = re.findall(r'method=~"([^"]+)"', RULES.read_text() + dashboard.CLASSIFY)

    assert {tuple(one.split("|")) for one in lists} == {TIMED}


@pytest.mark.parametrize("query", [each for one in EVERY for each in one.queries], ids=str)
def test_no_panel_names_a_metric_that_does_not_exist(query: Query) -> None:
    """A renamed metric would leave an empty picture that looks like a quiet night."""
    asked = named(query.promql)

    assert asked
    assert asked <= known()
    assert "FILTER" not in query.promql
    assert "JOBS" not in query.promql
    assert "$job" in query.promql or query in JOBS


@pytest.mark.parametrize("name", rules())
def test_no_rule_names_a_metric_that_does_not_exist(name: str) -> None:
    """Rules are held to the same."""
    assert named(rules()[name]) <= known()


def test_no_alert_names_a_metric_that_does_not_exist() -> None:
    """Alerts too: one on a metric that nobody writes never fires."""
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    for rule in (rule for group in groups for rule in group["rules"]):
        asked = named(rule["expr"])
        assert asked <= known(), rule["alert"]
        assert asked or rule["expr"].startswith("up{")


@pytest.mark.parametrize("panel", EVERY, ids=lambda panel: panel.title)
def test_every_panel_has_a_unit_and_says_what_it_tells(panel: Panel) -> None:
    """A picture without either is a riddle at three in the morning."""
    assert panel.unit
    assert panel.tells.endswith(".")
    assert panel.queries


def test_every_metric_of_ours_is_on_the_dashboard() -> None:
    """What nobody can see need not be counted."""
    ours = {family.name for family in families() if family.name.startswith("sentimill_")}
    shown = " ".join(each.promql for one in EVERY for each in one.queries)
    shown += " ".join(rules().values())

    assert sorted(name for name in ours if name not in shown) == []


def test_panels_do_not_overlap() -> None:
    """Each has a place of its own, in rows of three."""
    made = dashboard.dashboard()["panels"]
    assert isinstance(made, list)
    cells = [
        (x, y)
        for each in made
        for x in range(each["gridPos"]["x"], each["gridPos"]["x"] + each["gridPos"]["w"])
        for y in range(each["gridPos"]["y"], each["gridPos"]["y"] + each["gridPos"]["h"])
    ]

    assert len(cells) == len(set(cells))
    assert len({each["id"] for each in made}) == len(made)
