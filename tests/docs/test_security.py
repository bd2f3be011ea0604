"""The limits that docs/security.md promises are those that the program has."""

from __future__ import annotations

import json

import pytest

from metric_families import SERIES
from repository import ROOT
from sentimill.observability import http_server as web
from sentimill.server import sentiment_service as service
from sentimill.server import server
from sentimill.server.request_handler import Limits
from sentimill.types import MAX_TEXT_BYTES

PAGE = (ROOT / "docs/security.md").read_text(encoding="utf-8")
LIMITS = Limits()


@pytest.mark.parametrize(
    ("what", "limit"),
    [
        ("one text", f"{MAX_TEXT_BYTES >> 20} MiB of UTF-8"),
        ("texts in a call", f"{LIMITS.max_items:,}"),
        ("one call", f"{LIMITS.max_request_bytes >> 20} MiB"),
        ("bytes of calls being answered", f"{LIMITS.max_waiting_bytes >> 20} MiB"),
        ("calls and streams at a time", f"{LIMITS.max_calls:,}"),
        ("a call without a deadline", f"{LIMITS.default_deadline_seconds:.0f} s"),
        ("pings of a client", f"one each {server._LEAST_PING_MS // 1000} s"),
        ("waiting texts", f"{LIMITS.max_waiting_texts:,}"),
        ("waiting tokens", f"{LIMITS.max_waiting_tokens:,}"),
        ("requests of one stream at once", f"{service._STREAM_AHEAD}"),
        ("idle HTTP connection", f"{web._IDLE_SECONDS:.0f} s"),
        ("series in `/metrics`", f"{SERIES}"),
    ],
)
def test_a_promised_limit_is_the_default(what: str, limit: str) -> None:
    """Whoever changes one changes the page."""
    assert f"| {what} | {limit} |" in PAGE


RESULTS = ROOT / "benchmarks/results"


def test_the_attack_table_is_what_was_measured() -> None:
    """Every row has the figures of the two files that the benchmark wrote, before and after."""
    files = [RESULTS / f"attacks{name}.json" for name in ("-before", "")]
    before, after = (json.loads(file.read_text(encoding="utf-8")) for file in files)

    for old, new in zip(before["attacks"], after["attacks"], strict=True):
        cells = [new["attack"].replace("none", "no attack")]
        for key in ("health_p99_ms", "answers_a_second", "failed_calls"):
            cells.append(f"{old[key]:,.0f} → {new[key]:,.0f}")
        cells.append(f"{old['memory_mib']['peak']:,} → {new['memory_mib']['peak']:,}")
        assert f"| {' | '.join(cells)} |" in PAGE
    for fault in after["faults"]:
        unready, ready = fault["unready_seconds"], fault["recovered_seconds"]
        times = (f"{unready:.1f} s", f"{ready:.1f} s") if ready else ("never", "not needed")
        assert f"| {fault['workers']} | {times[0]} | {times[1]} |" in PAGE
