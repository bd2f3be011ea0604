"""The limits that docs/security.md promises are those that the program has."""

from __future__ import annotations

import pytest

from metric_families import SERIES
from repository import ROOT
from sentimill.observability import http_server as web
from sentimill.server import error_interceptor as interceptor
from sentimill.server import message_parser, server
from sentimill.server import sentiment_service as service
from sentimill.server.request_handler import Limits
from sentimill.types import MAX_TEXT_BYTES

PAGE = (ROOT / "docs/security.md").read_text(encoding="utf-8")
LIMITS = Limits()


@pytest.mark.parametrize(
    ("what", "limit"),
    [
        ("one text", f"{MAX_TEXT_BYTES >> 20} MiB of UTF-8"),
        ("texts in a call", f"{LIMITS.max_items:,}"),
        ("fields of a message without texts", f"{message_parser.SMALL.most}"),
        ("one request of health or reflection", f"{interceptor._MOST_FOREIGN_BYTES >> 10} KiB"),
        ("one call", f"{LIMITS.max_request_bytes >> 20} MiB"),
        ("bytes of calls being answered", f"{LIMITS.max_waiting_bytes >> 20} MiB"),
        ("calls and streams at a time", f"{LIMITS.max_calls:,}"),
        ("the same over one connection", f"{LIMITS.connection_calls:,}"),
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
