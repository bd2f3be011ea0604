"""The HTTP port: what it shows, and that it only reads."""

from __future__ import annotations

import http.client
import json
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from live_server import WAIT_SECONDS, live_server
from sentimill.errors import UsageError
from sentimill.observability.http_server import HttpServer
from sentimill.observability.metrics import Metrics
from sentimill.observability.status import Status
from sentimill.server.settings import Serve
from tiny_bundle import write_tiny_bundle


@contextmanager
def port(status: Status | None = None, host: str = "127.0.0.1") -> Iterator[int]:
    """Open a port over *status*, and return its number."""
    made = HttpServer(status or Status(Metrics()), host, 0)
    try:
        yield made.port
    finally:
        made.close()


def ask(
    number: int, path: str, method: str = "GET", **headers: str
) -> tuple[int, http.client.HTTPMessage, str]:
    """Return status, headers and body."""
    connection = http.client.HTTPConnection("127.0.0.1", number, timeout=WAIT_SECONDS)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read().decode()
    finally:
        connection.close()


def test_the_port_shows_the_metrics_until_it_is_closed() -> None:
    """A free port is taken, answers, and is free again afterwards."""
    with port() as number:
        status, _, text = ask(number, "/metrics")

    assert status == 200
    assert "sentimill_waiting_texts 0.0" in text
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", number), timeout=10)


def test_a_scraper_gets_the_format_that_it_asks_for() -> None:
    """OpenMetrics carries exemplars, the older text does not."""
    with port() as number:
        _, headers, text = ask(number, "/metrics", Accept="application/openmetrics-text")

    assert headers["Content-Type"].startswith("application/openmetrics-text")
    assert text.endswith("# EOF\n")


def test_a_busy_port_is_a_usage_error() -> None:
    """The message names the port and the option."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]

        with pytest.raises(UsageError, match=f"127.0.0.1:{number} cannot be .*--metrics-port"):
            HttpServer(Status(Metrics()), "127.0.0.1", number)


def test_readiness_follows_the_state() -> None:
    """A balancer sends calls only to a server that answers them."""
    status = Status(Metrics())
    with port(status) as number:
        starting = ask(number, "/readyz")
        status.serve({}, (), lambda: True)
        serving = ask(number, "/readyz")
        status.drain()
        draining = ask(number, "/readyz")

    assert (starting[0], starting[2]) == (503, "starting\n")
    assert (serving[0], serving[2]) == (200, "serving\n")
    assert (draining[0], draining[2]) == (503, "draining\n")


def test_health_is_whether_the_loop_still_turns() -> None:
    """A server that is stuck is restarted; one that starts or drains is not."""
    status = Status(Metrics())
    with port(status) as number:
        assert ask(number, "/healthz")[0] == 200
        status.serve({}, (), lambda: False)
        code, _, why = ask(number, "/healthz")

    assert (code, why) == (503, "the event loop does not answer\n")


def test_a_live_server_is_healthy_and_ready(bundle: Path) -> None:
    """The real loop is asked, and the page's twin names the real model."""
    with live_server(Serve(bundle=bundle, port=0, metrics_port=0)) as made:
        number = int(made.metrics_address.rpartition(":")[2])
        assert ask(number, "/healthz")[0] == 200
        assert ask(number, "/readyz")[0] == 200
        shown = json.loads(ask(number, "/status.json")[2])

    assert shown["state"] == "serving"
    assert shown["model"]["name"] == "tiny"
    assert shown["problems"] == []
    assert set(shown["series"]["shares"]) == {"negative", "neutral", "positive"}


@pytest.mark.parametrize("path", ["/", "/metrics", "/status.json", "/healthz", "/nothing"])
def test_every_answer_forbids_what_it_does_not_need(path: str) -> None:
    """No script, style, picture or connection from anywhere else, and no frame around it."""
    with port() as number:
        _, headers, _ = ask(number, path)

    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "connect-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_nothing_can_be_written(method: str) -> None:
    """The port only reads."""
    with port() as number:
        code, _, why = ask(number, "/metrics", method)

    assert (code, why) == (405, "this port is read-only: use GET\n")


@pytest.mark.parametrize("path", ["/nothing", "/../metrics", "/metrics/", "/%00"])
def test_what_is_not_there_is_not_found(path: str) -> None:
    """There are no files behind the port, so no path leads to one."""
    with port() as number:
        code, _, why = ask(number, path)

    assert code == 404
    assert why == ("no such page; there are /, /metrics, /status.json, /healthz, /readyz\n")


def test_head_has_the_headers_and_no_body() -> None:
    """Probes that use HEAD work."""
    with port() as number:
        code, headers, body = ask(number, "/metrics", "HEAD")

    assert (code, body) == (200, "")
    assert int(headers["Content-Length"]) > 0


def test_one_connection_that_says_nothing_keeps_nobody_waiting() -> None:
    """Each connection has a thread of its own."""
    with port() as number, socket.create_connection(("127.0.0.1", number), timeout=10):
        assert ask(number, "/healthz")[0] == 200


def test_an_ipv6_address_is_served() -> None:
    """Where there is IPv6 at all."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return
    with port(host="::1") as number:
        url = f"http://[::1]:{number}/healthz"
        with urllib.request.urlopen(url, timeout=WAIT_SECONDS) as answer:
            assert answer.read() == b"ok\n"


def test_the_label_mix_of_a_bundle_is_shown_beside_the_labels(tmp_path: Path) -> None:
    """What drift is counted against comes from the manifest; every label has a series at once."""
    mix = {"negative": 0.5, "neutral": 0.25, "positive": 0.25}
    made = write_tiny_bundle(
        tmp_path / "mixed", change=lambda m: msgspec.structs.replace(m, label_mix=mix)
    )
    with live_server(Serve(bundle=made.path, port=0, metrics_port=0)) as server:
        _, _, page = ask(int(server.metrics_address.rpartition(":")[2]), "/metrics")

    assert 'sentimill_reference_label_ratio{outcome="negative"} 0.5' in page
    assert 'sentimill_texts_total{outcome="positive"} 0.0' in page


def post(address: str, data: bytes, headers: dict[str, str]) -> tuple[int, str]:
    """Send *data* to the playground; return the status and the body of the answer."""
    asked = urllib.request.Request(f"http://{address}/try", data, headers, method="POST")
    try:
        with urllib.request.urlopen(asked) as found:
            return found.status, found.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


OURS = {"X-Sentimill": "1"}


def test_the_playground_is_off_by_default(bundle: Path) -> None:
    """The port only reads."""
    with live_server(Serve(bundle=bundle, port=0, metrics_port=0)) as made:
        assert post(made.metrics_address, b"good", OURS)[0] == 403


def test_the_playground_answers_its_own_page_alone(bundle: Path) -> None:
    """Not a form of another site, which cannot set the header, nor a name that leads here."""
    with live_server(Serve(bundle=bundle, port=0, metrics_port=0, playground=True)) as made:
        code, found = post(made.metrics_address, b"good", OURS)
        assert (code, json.loads(found)["label"]) == (200, "positive")
        assert "error" in json.loads(post(made.metrics_address, b"\xff", OURS)[1])
        assert post(made.metrics_address, b"good", {})[0] == 403
        assert post(made.metrics_address, b"good", OURS | {"Host": "evil.example:80"})[0] == 403
        # The length alone is refused, before the body is read.
        large = OURS | {"Content-Length": str((1 << 20) + 1)}
        assert post(made.metrics_address, b"x", large)[0] == 413


@pytest.mark.parametrize(
    ("host", "code"),
    [
        ("127.0.0.1", 200),  # a browser leaves port 80 out
        ("localhost", 200),
        ("[::1]", 200),
        ("127.0.0.1:9464", 200),
        ("localhost:9464", 200),
        ("[::1]:9464", 200),
        ("evil.example", 403),
        ("evil.example:80", 403),
        ("localhost.evil.example", 403),
        ("localhost:evil.example", 403),
        ("127.0.0.1.evil.example:80", 403),
        ("", 403),
    ],
)
def test_the_playground_answers_under_a_name_of_this_machine_alone(host: str, code: int) -> None:
    """With and without a port."""
    status = Status(Metrics())
    status.playground = lambda text: {"label": text.decode()}
    with port(status) as number:
        assert post(f"127.0.0.1:{number}", b"good", OURS | {"Host": host})[0] == code


@pytest.mark.parametrize(
    "options", [{"metrics_host": "0.0.0.0"}, {"tokens": Path("tokens")}], ids=["network", "tokens"]
)
def test_the_playground_is_for_this_machine_alone(bundle: Path, options: dict[str, Any]) -> None:
    """It asks for no token, so nobody else may reach it."""
    with pytest.raises(UsageError, match="only on this machine"):
        Serve(bundle=bundle, playground=True, **options).check_host()
