"""The limits that docs/security.md promises are those that the program has."""

from __future__ import annotations

import pytest

from metric_families import SERIES
from repository import ROOT
from sentimill.observability import http_server as web
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
        ("one call", f"{LIMITS.max_request_bytes >> 20} MiB"),
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
