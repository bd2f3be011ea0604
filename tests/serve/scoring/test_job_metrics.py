"""What a scoring job publishes, and where."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from sentimill.scoring.checkpoint import RowCounts
from sentimill.scoring.job_metrics import JobMetrics


class Gateway(HTTPServer):
    """A Pushgateway as far as it is asked: the newest page of each group."""

    def __init__(self) -> None:
        """Listen on a free port of this machine."""
        self.groups: dict[str, str] = {}
        super().__init__(("127.0.0.1", 0), _Put)


class _Put(BaseHTTPRequestHandler):
    server: Gateway

    def do_PUT(self) -> None:
        page = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.groups[self.path] = page
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    """Return one that runs."""
    with Gateway() as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def test_each_output_has_a_group_of_its_own_and_keeps_it(
    gateway: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A killed job does not hide behind a running one, and goes on in its group when run again."""
    monkeypatch.chdir(tmp_path)
    for output, seconds in (("a.csv", 1.0), ("b.csv", 2.0), (str(tmp_path / "a.csv"), 3.0)):
        job = JobMetrics(output)
        job.set_job(RowCounts(rows=1, useful_tokens=1, padded_tokens=1), seconds)
        job.publish(None, f"127.0.0.1:{gateway.server_port}")

    assert sorted("sentimill_job_seconds 3.0" in page for page in gateway.groups.values()) == [
        False,
        True,
    ]
    for group in gateway.groups:
        assert group.startswith("/metrics/job/sentimill_score/output/")
        assert str(tmp_path.name) not in group
