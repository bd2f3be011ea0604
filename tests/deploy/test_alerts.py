"""Rules and alerts: each alert fires where it should and is quiet where it should be."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

import operator_rules
from benchmarks.serving.prometheus_server import ALERTS, RULES
from repository import ROOT
from sentimill.observability.problems import ALERT_LIMITS
from system_programs import promtool

GUIDE = ROOT / "docs/runbooks.md"

JOB = 'job="sentimill"'
ON = f'{JOB}, instance="a"'
MODEL = "sentimill_model_info"


def alerts() -> dict[str, list[dict[str, Any]]]:
    """Return every alert's rules by its name without prefix."""
    found: dict[str, list[dict[str, Any]]] = {}
    for group in yaml.safe_load(ALERTS.read_text())["groups"]:
        for rule in group["rules"]:
            found.setdefault(rule["alert"].removeprefix("Sentimill"), []).append(rule)
    return found


EVERY = {"ProviderChanged": "5m"}
"""Between values, where a minute takes promtool too long; Prometheus looks back no further."""


@dataclass(frozen=True)
class Case:
    """Series that Prometheus saw, a value a minute or `EVERY`, and the labels of what fires."""

    series: dict[str, str]
    at: str
    fires: list[dict[str, str]] = field(default_factory=list)


def calls(ok: int, code: str, bad: int, minutes: int = 400) -> dict[str, str]:
    """Return the calls of a server that answers *ok* a minute with OK and *bad* with *code*."""
    name = "sentimill_requests_total"
    return {
        f'{name}{{{ON}, method="Classify", code="OK"}}': f"0+{ok}x{minutes}",
        f'{name}{{{ON}, method="Classify", code="{code}"}}': f"0+{bad}x{minutes}",
        # Polls hide nothing, and bulk work that is told to wait wakes nobody.
        f'{name}{{{ON}, method="GetModel", code="OK"}}': f"0+100000x{minutes}",
        f'{name}{{{ON}, method="ClassifyBulk", code="UNAVAILABLE"}}': f"0+1000x{minutes}",
    }


def times(quick: int, slow: int, minutes: int = 400) -> dict[str, str]:
    """Return calls of which *quick* a minute are within the objective and *slow* are not."""
    name, all_ = "sentimill_request_seconds", quick + slow
    return {
        f'{name}_bucket{{{ON}, method="Classify", le="0.5"}}': f"0+{quick}x{minutes}",
        f'{name}_count{{{ON}, method="Classify"}}': f"0+{all_}x{minutes}",
        # Polls and bulk work count for nothing, as many as they are.
        f'{name}_count{{{ON}, method="GetModel"}}': f"0+1000x{minutes}",
        f'{name}_count{{{ON}, method="ClassifyBulk"}}': f"0+1000x{minutes}",
    }


def mix(negative: int, positive: int, minutes: int = 150) -> dict[str, str]:
    """Return texts a minute by label, of a model that expects as many of each."""
    texts, reference = "sentimill_texts_total", "sentimill_reference_label_ratio"
    return {
        f'{texts}{{{ON}, outcome="negative"}}': f"0+{negative}x{minutes}",
        f'{texts}{{{ON}, outcome="positive"}}': f"0+{positive}x{minutes}",
        f'{texts}{{{ON}, outcome="EMPTY_TEXT"}}': f"0+1000x{minutes}",
        f'{reference}{{{ON}, outcome="negative"}}': f"0.5x{minutes}",
        f'{reference}{{{ON}, outcome="positive"}}': f"0.5x{minutes}",
    }


def two(name: str, label: str, one: str, other: str) -> dict[str, str]:
    """Return a series of 1 on each of two servers that differ in *label*."""
    return {
        f'{name}{{{JOB}, instance="a", {label}="{one}"}}': "1x60",
        f'{name}{{{JOB}, instance="b", {label}="{other}"}}': "1x60",
    }


def on_provider(provider: str, values: str) -> dict[str, str]:
    """Return a server that runs on *provider* while *values* are there."""
    return {f'{MODEL}{{{ON}, provider="{provider}"}}': values}


def workers(ready: str, restarts: str = "0x40") -> dict[str, str]:
    """Return a server of four workers, of which *ready* answer."""
    return {
        f"sentimill_workers{{{ON}}}": "4x40",
        f"sentimill_ready_workers{{{ON}}}": ready,
        f'sentimill_worker_restarts_total{{{ON}, worker="0"}}': restarts,
    }


def score(seconds: str, ended: str, gateway: bool = False) -> dict[str, str]:
    """Return what a scoring job says of its run time and its last success."""
    on = 'job="sentimill_score", output="0a1b"' if gateway else 'job="node", instance="batch"'
    return {
        f"sentimill_job_seconds{{{on}}}": seconds,
        f"sentimill_job_last_success_timestamp_seconds{{{on}}}": ended,
    }


PAGE = {"job": "sentimill", "severity": "page"}
TICKET = {"job": "sentimill", "severity": "ticket"}

CASES: dict[str, list[Case]] = {
    "Down": [
        Case({f"up{{{ON}}}": "1 1 0x10"}, "8m", [{**PAGE, "instance": "a"}]),
        Case({f"up{{{ON}}}": "1 1 stale", 'up{job="other"}': "1x10"}, "8m", [{"severity": "page"}]),
        Case({f"up{{{ON}}}": "1 0 1x10", 'up{job="other", instance="a"}': "0x10"}, "8m"),
    ],
    "NotReady": [
        Case({f"sentimill_ready{{{ON}}}": "0x10"}, "8m", [{**PAGE, "instance": "a"}]),
        Case({f"sentimill_ready{{{ON}}}": "0 0 1x10"}, "8m"),
    ],
    "WorkersMissing": [
        Case(workers("4x10 3x20"), "20m", [{**TICKET, "instance": "a"}]),
        Case(workers("4x10 3 4x20", "0+1x40"), "20m", [{**TICKET, "instance": "a"}]),
        Case(workers("4x10 3 4x20", "0x10 1x20"), "20m"),
    ],
    "ModelsDiffer": [
        Case(two(MODEL, "digest", "x", "y"), "40m", [TICKET]),
        Case(two(MODEL, "digest", "x", "x"), "40m"),
        Case(two(MODEL, "digest", "x", "y"), "20m"),
    ],
    "ProvidersDiffer": [
        Case(two(MODEL, "provider", "cuda", "cpu"), "20m", [TICKET]),
        Case(two(MODEL, "provider", "cuda", "cuda"), "20m"),
    ],
    "ProviderChanged": [
        Case(
            on_provider("cuda", "1x200 stale") | on_provider("cpu", "_x200 1x120"),
            "25h",
            [{**TICKET, "provider": "cpu"}],
        ),
        Case(on_provider("cuda", "1x320"), "25h"),
        Case(on_provider("cuda", "_x200 1x120"), "25h"),  # a new job
        Case(on_provider("cuda", "1x200 stale") | on_provider("cpu", "_x200 1x400"), "42h"),  # told
    ],
    "ReloadFailed": [
        Case(
            {f"sentimill_last_reload_successful{{{ON}}}": "1x10 0x600"},
            "10h",
            [{**TICKET, "instance": "a"}],
        ),
        Case({f"sentimill_last_reload_successful{{{ON}}}": "1x10 0x20 1x5"}, "33m"),
    ],
    "ErrorBudgetBurn": [
        Case(
            calls(980, "INTERNAL", 20),
            "6h",
            [{**PAGE, "window": "1h"}, {**PAGE, "window": "6h"}, {**TICKET, "window": "3d"}],
        ),
        Case(
            calls(992, "UNAVAILABLE", 8),
            "6h",
            [{**PAGE, "window": "6h"}, {**TICKET, "window": "3d"}],
        ),
        Case(calls(9995, "DEADLINE_EXCEEDED", 5), "6h"),
        Case(calls(500, "INVALID_ARGUMENT", 500), "6h"),
        Case(calls(1, "INTERNAL", 0) | calls(0, "INTERNAL", 1), "1h"),  # 60 calls an hour
    ],
    "LatencyBudgetBurn": [
        Case(
            times(80, 20),
            "6h",
            [{**PAGE, "window": "1h"}, {**PAGE, "window": "6h"}, {**TICKET, "window": "3d"}],
        ),
        Case(times(97, 3), "6h", [{**TICKET, "window": "3d"}]),
        Case(times(995, 5), "6h"),
        Case(times(0, 1), "6h"),
    ],
    "Refusing": [
        Case(
            calls(90, "UNAVAILABLE", 10, 30),
            "20m",
            [PAGE],
        ),
        Case(calls(999, "UNAVAILABLE", 1, 30), "20m"),
        Case(calls(90, "UNAUTHENTICATED", 10, 30), "20m"),
        Case(calls(90, "RESOURCE_EXHAUSTED", 10, 30), "20m"),
        Case(calls(0, "UNAVAILABLE", 1, 30), "20m"),  # too few to wake somebody
    ],
    "QueueNearlyFull": [
        Case(
            {
                f"sentimill_waiting_texts{{{ON}}}": "90x20",
                f"sentimill_max_waiting_texts{{{ON}}}": "100x20",
            },
            "10m",
            [{**TICKET, "instance": "a"}],
        ),
        Case(
            {
                f"sentimill_waiting_texts{{{ON}}}": "90 90 60x20",
                f"sentimill_max_waiting_texts{{{ON}}}": "100x20",
            },
            "10m",
        ),
        Case(
            {
                f"sentimill_waiting_tokens{{{ON}}}": "75x20",
                f"sentimill_max_waiting_tokens{{{ON}}}": "100x20",
            },
            "10m",
            [{**TICKET, "instance": "a"}],
        ),
    ],
    "ModelRestarted": [
        Case(
            {f'sentimill_model_restarts_total{{{ON}, reason="timeout"}}': "0x10 1x30"},
            "15m",
            [{**TICKET, "instance": "a"}],
        ),
        Case({f'sentimill_model_restarts_total{{{ON}, reason="timeout"}}': "1x40"}, "30m"),
    ],
    "EngineFailing": [
        Case(
            {f"sentimill_engine_failures_total{{{ON}}}": "0+1x30"},
            "20m",
            [{**PAGE, "instance": "a"}],
        ),
        Case({f"sentimill_engine_failures_total{{{ON}}}": "5x30"}, "20m"),
    ],
    "LabelMixDrift": [
        Case(mix(20, 80), "150m", [TICKET]),
        Case(mix(100, 0), "150m", [TICKET]),
        Case(mix(40, 60), "150m"),
        Case(mix(1, 4), "150m"),
    ],
    "JobNotFinished": [
        Case(
            score("0+60x10 600x60", "0x70"),
            "60m",
            [{"job": "node", "instance": "batch", "severity": "ticket"}],
        ),
        Case(
            score("7x70", "0x70", gateway=True),
            "50m",
            [{"job": "sentimill_score", "output": "0a1b", "severity": "ticket"}],
        ),
        Case(
            score("7x70", "0x70", gateway=True)
            | {
                series.replace("0a1b", "2c3d"): values
                for series, values in score("0+60x70", "0x70", gateway=True).items()
            },
            "50m",
            [{"job": "sentimill_score", "output": "0a1b", "severity": "ticket"}],
        ),  # beside one that works on
        Case(score("0+60x70", "0x70"), "60m"),  # it works on
        Case(score("0+60x10 600x60", "0x9 1.7e9x60"), "60m"),  # it ended well
        Case(score("0+60x10 600x60", "0x70"), "30m"),  # too soon to tell
        Case(score("0+60x10 600x39 0+60x20", "0x70"), "65m"),  # it was run again
    ],
}


def test_the_rules_and_the_configuration_are_valid() -> None:
    """Promtool reads all three files."""
    promtool("check", "rules", str(RULES))
    promtool("check", "rules", str(ALERTS))
    promtool("check", "config", "--syntax-only", str(ALERTS.with_name("prometheus.yml")))


def test_every_alert_has_a_case_that_fires_and_one_that_does_not() -> None:
    """An alert that cannot fire, or always does, is worse than none."""
    assert CASES.keys() == alerts().keys()
    for name, cases in CASES.items():
        assert {bool(case.fires) for case in cases} == {True, False}, name


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_an_alert_fires_and_stays_quiet_as_its_cases_say(name: str, tmp_path: Path) -> None:
    """Promtool plays the series through the rules that are shipped."""
    rules = alerts()[name]
    tests = [
        {
            "interval": EVERY.get(name, "1m"),
            "input_series": [{"series": s, "values": v} for s, v in case.series.items()],
            "alert_rule_test": [
                {
                    "eval_time": case.at,
                    "alertname": f"Sentimill{name}",
                    "exp_alerts": [
                        {"exp_labels": labels, "exp_annotations": rule_for(rules, labels)}
                        for labels in case.fires
                    ],
                }
            ],
        }
        for case in CASES[name]
    ]
    file = tmp_path / "tests.yml"
    # JSON is YAML, and one that promtool reads.
    file.write_text(
        json.dumps(
            {
                "rule_files": [str(RULES), str(ALERTS)],
                "evaluation_interval": EVERY.get(name, "1m"),
                "tests": tests,
            }
        )
    )

    promtool("test", "rules", str(file))


def rule_for(rules: list[dict[str, Any]], labels: dict[str, str]) -> dict[str, str]:
    """Return the annotations of the rule among *rules* whose own labels are in *labels*."""
    (found,) = [rule for rule in rules if rule["labels"].items() <= labels.items()]
    annotations: dict[str, str] = found["annotations"]
    return annotations


@pytest.mark.parametrize("name", alerts())
def test_every_alert_names_a_runbook_that_is_there(name: str) -> None:
    """Whoever is woken finds the section by its name."""
    headings = set(re.findall(r"^## (\w+)$", GUIDE.read_text(), re.MULTILINE))

    assert name in headings
    for rule in alerts()[name]:
        assert rule["annotations"]["runbook"] == f"docs/runbooks.md#{name.lower()}"
        assert rule["annotations"]["summary"].endswith(".")
        assert rule["labels"]["severity"] in ("page", "ticket")


def test_every_severity_reaches_a_receiver_of_its_own() -> None:
    """Prometheus sends to the Alertmanager of compose, which tells a page from a ticket."""
    scrape = yaml.safe_load(ALERTS.with_name("prometheus.yml").read_text())
    services = yaml.safe_load((ROOT / "deploy/compose.yml").read_text())["services"]
    told = yaml.safe_load((ROOT / "deploy/alertmanager/alertmanager.yml").read_text())
    (target,) = scrape["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"]
    severities = {rule["labels"]["severity"] for rules in alerts().values() for rule in rules}
    routes = {route["matchers"][0]: route["receiver"] for route in told["route"]["routes"]}

    assert target.partition(":")[0] in services
    assert routes == {f'severity = "{each}"': each for each in severities}
    assert {each["name"] for each in told["receivers"]} == severities


def test_the_operator_gets_the_same_rules() -> None:
    """`python deploy/prometheus/operator_rules.py` writes them; nobody edits them."""
    text = operator_rules.TARGET.read_text()
    specs = [made["spec"] for made in yaml.safe_load_all(text)]

    assert text == operator_rules.manifest()
    assert specs == [yaml.safe_load(path.read_text()) for path in (RULES, ALERTS)]


def test_a_failing_case_is_noticed(tmp_path: Path) -> None:
    """The other tests would pass if promtool never failed."""
    case = {
        "interval": "1m",
        "input_series": [{"series": f"up{{{ON}}}", "values": "0x10"}],
        "alert_rule_test": [
            {"eval_time": "8m", "alertname": "SentimillDown", "exp_alerts": []},
        ],
    }
    file = tmp_path / "tests.yml"
    file.write_text(json.dumps({"rule_files": [str(ALERTS)], "tests": [case]}))

    with pytest.raises(subprocess.CalledProcessError):
        promtool("test", "rules", str(file))


@pytest.mark.parametrize("name", ALERT_LIMITS)
def test_the_status_page_has_the_limits_of_the_alerts(name: str) -> None:
    """Whoever changes one changes the other."""
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    expressions = [rule["expr"] for rule in rules if rule["alert"] == f"Sentimill{name}"]

    limit = re.escape(str(ALERT_LIMITS[name]))
    assert expressions
    assert all(re.search(rf"> ([\d.]+ \* )?{limit}(?![\d.])", each) for each in expressions)
