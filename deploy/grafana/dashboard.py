"""The Grafana dashboard, described once: `python deploy/grafana/dashboard.py` writes its JSON.

A panel is a title, a unit, what it tells, and its queries; where it stands follows from the order.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["ELSEWHERE", "PANELS", "Panel", "Query", "dashboard"]

TARGET: Final = Path(__file__).parent / "dashboards/sentimill.json"

_SOURCE: Final = {"type": "prometheus", "uid": "${source}"}
_WIDE: Final = 24
_PANEL_WIDE, _PANEL_HIGH = 8, 7


@dataclass(frozen=True, slots=True)
class Query:
    """One expression; FILTER stands for the chosen jobs and instances, JOBS for the jobs alone."""

    expression: str
    legend: str
    exemplars: bool = False

    @property
    def promql(self) -> str:
        """The expression with Grafana's variables in it."""
        return self.expression.replace("FILTER", 'job=~"$job", instance=~"$instance"').replace(
            "JOBS", 'job=~"$job"'
        )


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture. unit: as Grafana names it."""

    title: str
    unit: str
    tells: str
    queries: tuple[Query, ...]
    kind: str = "timeseries"
    most: float | None = None


def _rate(name: str, by: str = "", more: str = "") -> str:
    """Return the summed rate of a counter; *more* selects inside it."""
    group = f" by ({by})" if by else ""
    return f"sum{group} (rate({name}{{FILTER{more}}}[$__rate_interval]))"


def _share(part: str, whole: str) -> str:
    return f"{_rate(part)} / {_rate(whole)}"


def _mean(name: str) -> str:
    return _share(f"{name}_sum", f"{name}_count")


def _quantile(q: float, name: str, more: str = "") -> str:
    return f"histogram_quantile({q}, {_rate(f'{name}_bucket', 'le', more)})"


def _quantiles(name: str, more: str = "") -> tuple[Query, ...]:
    return tuple(
        Query(_quantile(q, name, more), f"p{q * 100:g}", exemplars=True) for q in (0.5, 0.95, 0.99)
    )


CLASSIFY: Final = ', method=~"Classify|ClassifyStream|ModelInfer"'

PANELS: Final[dict[str, tuple[Panel, ...]]] = {
    "Overview": (
        Panel(
            "Servers that answer",
            "none",
            "How many replicas are ready. One that runs and is not ready loads a model or drains.",
            (Query("sum(sentimill_ready{FILTER})", "ready"),),
            kind="stat",
        ),
        Panel(
            "Error budget: calls failed by the server",
            "percentunit",
            "Share of calls of the last hour. The objective is 0.1 %.",
            (Query("job:sentimill_request_errors:ratio_rate1h{JOBS}", "{{job}}"),),
            kind="stat",
        ),
        Panel(
            "Latency budget: slow calls",
            "percentunit",
            "Share of Classify calls of the last hour that took over 0.5 s. The objective is 1 %.",
            (Query("job:sentimill_slow_requests:ratio_rate1h{JOBS}", "{{job}}"),),
            kind="stat",
        ),
        Panel(
            "Texts",
            "cps",
            "Texts answered a second, over the chosen servers.",
            (Query(_rate("sentimill_texts_total"), "texts"),),
        ),
        Panel(
            "Calls by code",
            "reqps",
            "INVALID_ARGUMENT is the callers' affair; UNAVAILABLE is a refusal, see beside.",
            (Query(_rate("sentimill_requests_total", "code"), "{{code}}"),),
        ),
        Panel(
            "Refused calls by reason",
            "reqps",
            "QUEUE_FULL and DEADLINE_TOO_SHORT want more replicas or fewer texts.",
            (Query(_rate("sentimill_refused_requests_total", "reason"), "{{reason}}"),),
        ),
        Panel(
            "Time of a call",
            "s",
            "From arrival to answer, of calls that classify and are not bulk work, which waits its"
            " turn. Points are traces of single calls.",
            _quantiles("sentimill_request_seconds", CLASSIFY),
        ),
        Panel(
            "Where the time goes",
            "s",
            "Mean of each step. A long queue wants replicas; a long engine call, smaller batches.",
            (
                Query(_mean("sentimill_tokenize_seconds"), "tokenise"),
                Query(_mean("sentimill_queue_seconds"), "queue"),
                Query(_mean("sentimill_engine_seconds"), "one engine call"),
            ),
        ),
        Panel(
            "Wait for the engine",
            "s",
            "The longest wait of a call's texts. What autoscaling should look at.",
            _quantiles("sentimill_queue_seconds"),
        ),
        Panel(
            "Waiting texts, share of the limit",
            "percentunit",
            "At 100 % calls are refused.",
            (Query("instance:sentimill_waiting_texts:ratio{FILTER}", "{{instance}}"),),
            most=1,
        ),
        Panel(
            "Waiting tokens, share of the limit",
            "percentunit",
            "At 100 % calls are refused. Long texts fill this before the other.",
            (
                Query(
                    "sentimill_waiting_tokens{FILTER} / sentimill_max_waiting_tokens{FILTER}",
                    "{{instance}}",
                ),
            ),
            most=1,
        ),
        Panel(
            "Calls under way",
            "none",
            "Calls that came and are not answered yet.",
            (Query("sum by (instance) (sentimill_in_flight_requests{FILTER})", "{{instance}}"),),
        ),
    ),
    "Batching": (
        Panel(
            "Engine busy",
            "percentunit",
            "Share of the time that the engine computes. At 100 % a server gives all that it can;"
            " --workers add up, so four of them do at 400 %.",
            (Query(_rate("sentimill_engine_busy_seconds_total", "instance"), "{{instance}}"),),
        ),
        Panel(
            "Useful tokens",
            "percentunit",
            "Share of what the engine computes that is text and not padding.",
            (
                Query(
                    _share("sentimill_useful_tokens_total", "sentimill_padded_tokens_total"),
                    "useful",
                ),
            ),
            most=1,
        ),
        Panel(
            "Why batches closed",
            "cps",
            "`drained`: nothing waited, so there is room. `full`: the token budget was used up."
            " `unlike`: what waited was of other lengths, and its padding would have cost more.",
            (Query(_rate("sentimill_closed_batches_total", "reason"), "{{reason}}"),),
        ),
        Panel(
            "Texts in a batch",
            "none",
            "Many where load is high or texts are short.",
            (
                Query(_mean("sentimill_batch_rows"), "mean"),
                Query(_quantile(0.95, "sentimill_batch_rows"), "p95"),
            ),
        ),
        Panel(
            "Tokens in a batch",
            "none",
            "Padding included; --batch-tokens is its limit.",
            (
                Query(_mean("sentimill_batch_tokens"), "mean"),
                Query(_quantile(0.95, "sentimill_batch_tokens"), "p95"),
            ),
        ),
        Panel(
            "Time of one engine call",
            "s",
            "Grows with the tokens of a batch.",
            _quantiles("sentimill_engine_seconds"),
        ),
    ),
    "Quality": (
        Panel(
            "Texts by outcome",
            "percentunit",
            "Share of each label, and of each reason why a text got none.",
            (
                Query(
                    _rate("sentimill_texts_total", "outcome")
                    + " / on () group_left () "
                    + _rate("sentimill_texts_total"),
                    "{{outcome}}",
                ),
            ),
            most=1,
        ),
        Panel(
            "Drift of the label mix",
            "none",
            "Population stability index of the last hour against the bundle's test set: under 0.1"
            " is usual, over 0.25 a shift. Empty for a bundle that carries no mix.",
            (Query("job:sentimill_label_mix:psi1h{JOBS}", "{{job}}"),),
        ),
        Panel(
            "Reference mix",
            "percentunit",
            "What the drift is counted against: the model's answers on its own test set.",
            (
                Query(
                    "max by (job, outcome) (sentimill_reference_label_ratio{FILTER})",
                    "{{job}} {{outcome}}",
                ),
            ),
            kind="stat",
        ),
        Panel(
            "Confidence",
            "percentunit",
            "Of answered texts. A fall means texts unlike those that the model was trained on.",
            (
                Query(_quantile(0.1, "sentimill_confidence_ratio"), "p10"),
                Query(_quantile(0.5, "sentimill_confidence_ratio"), "p50"),
            ),
            most=1,
        ),
        Panel(
            "Score",
            "none",
            "P(positive) - P(negative) of answered texts, from -1 to 1.",
            (
                Query(_quantile(0.25, "sentimill_score_ratio"), "p25"),
                Query(_quantile(0.5, "sentimill_score_ratio"), "p50"),
                Query(_quantile(0.75, "sentimill_score_ratio"), "p75"),
            ),
        ),
        Panel(
            "Abstained, truncated, dropped",
            "percentunit",
            "Shares of the texts: under the threshold; longer than the model reads; given up by"
            " their callers before they were computed.",
            (
                Query(
                    _share("sentimill_abstained_texts_total", "sentimill_texts_total"), "abstained"
                ),
                Query(
                    _share("sentimill_truncated_texts_total", "sentimill_texts_total"), "truncated"
                ),
                Query(_share("sentimill_dropped_texts_total", "sentimill_texts_total"), "dropped"),
            ),
        ),
        Panel(
            "Engine failures",
            "cps",
            "Texts on which the engine failed. There should be none.",
            (Query(_rate("sentimill_engine_failures_total", "instance"), "{{instance}}"),),
        ),
    ),
    "Model and host": (
        Panel(
            "Models",
            "none",
            "What each server answers from. One digest, but during a rollout.",
            (Query("sentimill_model_info{FILTER}", "{{instance}}"),),
            kind="table",
        ),
        Panel(
            "Model loaded",
            "dateTimeFromNow",
            "When the model that answers was loaded.",
            (
                Query(
                    "sentimill_model_loaded_timestamp_seconds{FILTER} * 1000",
                    "{{instance}}",
                ),
            ),
            kind="stat",
        ),
        Panel(
            "Reloads",
            "none",
            "Loads of another bundle in the last hour, by result; servers whose newest load failed;"
            " models loaded again because their engine was broken.",
            (
                Query(
                    "sum by (result) (increase(sentimill_reloads_total{FILTER}[1h]))", "{{result}}"
                ),
                Query("sum(1 - sentimill_last_reload_successful{FILTER})", "still failed"),
                Query(
                    "sum by (reason) (increase(sentimill_model_restarts_total{FILTER}[1h]))",
                    "restarted: {{reason}}",
                ),
            ),
        ),
        Panel(
            "Indexes of labelled reviews",
            "none",
            "Reviews in all indexes of a server. Empty or 0 without --index.",
            (Query("sentimill_index_rows{FILTER}", "{{instance}}"),),
        ),
        Panel(
            "Finding neighbours",
            "s",
            "Seconds a second, over all requests that ask for neighbours: at 1 one thread does"
            " nothing else.",
            (Query(_rate("sentimill_index_lookup_seconds_sum", "instance"), "{{instance}}"),),
        ),
        Panel(
            "Cores used",
            "none",
            "CPU seconds a second.",
            (Query(_rate("process_cpu_seconds_total", "instance"), "{{instance}}"),),
        ),
        Panel(
            "Memory",
            "bytes",
            "Resident. It should be flat after the first minutes.",
            (Query("process_resident_memory_bytes{FILTER}", "{{instance}}"),),
        ),
        Panel(
            "Open files",
            "percentunit",
            "Share of the process's limit; every connection is one.",
            (Query("process_open_fds{FILTER} / process_max_fds{FILTER}", "{{instance}}"),),
        ),
    ),
    "Workers": (
        Panel(
            "Processes",
            "none",
            "Processes of --workers: those that should answer, those that do, and restarts in the"
            " last hour. Empty where there is one process.",
            (
                Query("sum(sentimill_workers{FILTER})", "wanted"),
                Query("sum(sentimill_ready_workers{FILTER})", "ready"),
                Query("sum(increase(sentimill_worker_restarts_total{FILTER}[1h]))", "restarts"),
            ),
        ),
        Panel(
            "Texts by worker",
            "cps",
            "The kernel gives connections to workers blindly: one far above the others has a caller"
            " with one connection.",
            (
                Query(
                    _rate("sentimill_worker_texts_total", "instance, worker"),
                    "{{instance}} {{worker}}",
                ),
            ),
        ),
    ),
    # Not by FILTER: jobs come by node_exporter or a Pushgateway, which are no servers of ours.
    "Scoring jobs": (
        Panel(
            "Rows",
            "none",
            "Rows written, and those of them that carry an error in place of an answer.",
            (
                Query("sentimill_job_rows", "{{instance}} {{output}}"),
                Query("sentimill_job_failed_rows", "{{instance}} {{output}} failed"),
            ),
        ),
        Panel(
            "Useful tokens of jobs",
            "percentunit",
            "Share of what the engine computes that is text and not padding.",
            (
                Query(
                    "sentimill_job_useful_tokens / (sentimill_job_padded_tokens > 0)",
                    "{{instance}} {{output}}",
                ),
            ),
            most=1,
        ),
        Panel(
            "Time since a job's last success",
            "s",
            "Only of those that ended well; one that runs, or that was killed, is not here.",
            (
                Query(
                    "time() - (sentimill_job_last_success_timestamp_seconds > 0)",
                    "{{instance}} {{output}}",
                ),
            ),
        ),
        Panel(
            "Run time",
            "s",
            "How long each run has taken so far. A line that is flat before its end stands still.",
            (Query("sentimill_job_seconds", "{{instance}} {{output}}"),),
        ),
    ),
}
"""Panels by row."""

ELSEWHERE: Final = ("Workers", "Scoring jobs")
"""Rows that a server of one process does not feed."""


def dashboard() -> dict[str, object]:
    """Return the dashboard in Grafana's JSON model."""
    panels: list[dict[str, object]] = []
    y = 0
    for row, members in PANELS.items():
        at = {"h": 1, "w": _WIDE, "x": 0, "y": y}
        panels.append({"type": "row", "title": row, "gridPos": at, "id": len(panels) + 1})
        y += 1
        for place, panel in enumerate(members):
            column = place % (_WIDE // _PANEL_WIDE)
            if place and not column:
                y += _PANEL_HIGH
            at = {"h": _PANEL_HIGH, "w": _PANEL_WIDE, "x": column * _PANEL_WIDE, "y": y}
            panels.append({"gridPos": at, "id": len(panels) + 1, **_panel(panel)})
        y += _PANEL_HIGH
    return {
        "uid": "sentimill",
        "title": "Sentimill",
        "tags": ["sentimill"],
        "schemaVersion": 39,
        "editable": False,
        "refresh": "15s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": _variables()},
        "panels": panels,
    }


def _panel(panel: Panel) -> dict[str, object]:
    targets = [
        {
            "refId": chr(ord("A") + place),
            "datasource": _SOURCE,
            "expr": query.promql,
            "legendFormat": query.legend,
            "exemplar": query.exemplars,
            "instant": panel.kind != "timeseries",
            "range": panel.kind == "timeseries",
            "format": "table" if panel.kind == "table" else "time_series",
        }
        for place, query in enumerate(panel.queries)
    ]
    limits = {} if panel.most is None else {"max": panel.most}
    lowest = {} if panel.title == "Score" else {"min": 0}
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.tells,
        "datasource": _SOURCE,
        "targets": targets,
        "fieldConfig": {"defaults": {"unit": panel.unit, **lowest, **limits}, "overrides": []},
    }


def _variables() -> list[dict[str, object]]:
    def ask(name: str, label: str, of: str) -> dict[str, object]:
        return {
            "type": "query",
            "name": name,
            "label": label,
            "datasource": _SOURCE,
            "query": {"query": f"label_values({of}, {name})", "refId": name},
            "refresh": 2,
            "multi": True,
            "includeAll": True,
            "allValue": ".*",
            "current": {"text": ["All"], "value": ["$__all"]},
        }

    source: dict[str, object] = {
        "type": "datasource",
        "name": "source",
        "label": "Data source",
        "query": "prometheus",
    }
    return [
        source,
        ask("job", "Job", "sentimill_ready"),
        ask("instance", "Instance", 'sentimill_ready{job=~"$job"}'),
    ]


if __name__ == "__main__":
    TARGET.write_text(json.dumps(dashboard(), indent=2) + "\n", encoding="utf-8")
