"""The HTTP port: metrics, health, and the status page. It only reads, unless the playground is on.

The port never shows a text, a caller or a path, so it may be open to anyone who may see the load of
the server. It has no authentication of its own. With the playground, the page classifies texts that
somebody types, on loopback only. The header `X-Sentimill` keeps the pages of other sites out,
because browsers send it to another site only with that site's permission.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from importlib.resources import files
from threading import Event, Thread
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.types import StartResponse, WSGIEnvironment

import msgspec
from prometheus_client.exposition import ThreadingWSGIServer, choose_encoder

from sentimill.errors import UsageError
from sentimill.observability.history import STEP_SECONDS
from sentimill.observability.status import Status

_IDLE_SECONDS: Final = 10.0
"""A connection is closed after this time without a request, so that idle ones do not pile up."""

_TRY: Final = "/try"
_UNLISTED: Final = (_TRY, "/status_page.css", "/status_page.js")
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:;"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The page may run its own script and style, ask this server, and nothing else."""

_LOOPBACK: Final = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d+)?")
"""A Host header that names this machine. Browsers leave port 80 out."""

_MOST_TRIED_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class _Answer:
    content: bytes
    kind: str
    status: HTTPStatus = HTTPStatus.OK


class _Server6(ThreadingWSGIServer):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    timeout = _IDLE_SECONDS

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: a scrape comes every few seconds."""


class HttpServer:
    """Answers HTTP in threads of its own until closed, and samples the status meanwhile."""

    def __init__(self, status: Status, host: str, port: int) -> None:
        """Listen. Port 0 takes a free one. Raises UsageError when the port is taken."""
        kind = _Server6 if ":" in host else ThreadingWSGIServer
        try:
            server = make_server(host, port, application(status), kind, _Handler)
        except OSError as error:
            raise UsageError(
                f"the metrics port {host}:{port} cannot be opened ({error.strerror}): stop what"
                " uses it or choose another with --metrics-port",
                reason="PORT_BUSY",
            ) from error
        self._server: WSGIServer = server
        self._status = status
        self._stop = Event()
        self._threads = [
            Thread(target=server.serve_forever, args=(0.05,), name="http", daemon=True),
            Thread(target=self._sample, name="status", daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        self.port: int = server.server_port

    def close(self) -> None:
        """Stop listening."""
        self._stop.set()
        self._server.shutdown()
        self._server.server_close()
        for thread in self._threads:
            thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(STEP_SECONDS):
            self._status.sample()


def application(status: Status) -> Callable[[WSGIEnvironment, StartResponse], Iterable[bytes]]:
    """Return the WSGI application that shows *status*."""

    def metrics(environ: WSGIEnvironment) -> _Answer:
        encode, kind = choose_encoder(environ.get("HTTP_ACCEPT", ""))
        return _Answer(encode(status.metrics.shown), kind)

    def ready(environ: WSGIEnvironment) -> _Answer:
        ok = status.state == "serving"
        return _plain(status.state, HTTPStatus.OK if ok else HTTPStatus.SERVICE_UNAVAILABLE)

    def healthy(environ: WSGIEnvironment) -> _Answer:
        if status.alive():
            return _plain("ok")
        return _plain("the event loop does not answer", HTTPStatus.SERVICE_UNAVAILABLE)

    pages: dict[str, Callable[[WSGIEnvironment], _Answer]] = {
        "/": _page("html", "text/html"),
        "/status_page.css": _page("css", "text/css"),
        "/status_page.js": _page("js", "text/javascript"),
        "/metrics": metrics,
        "/status.json": lambda _: _Answer(
            msgspec.json.encode(status.document()), "application/json"
        ),
        _TRY: lambda _: _plain("use POST", HTTPStatus.METHOD_NOT_ALLOWED),
        "/healthz": healthy,
        "/readyz": ready,
    }

    def answer(environ: WSGIEnvironment) -> _Answer:
        found = pages.get(environ.get("PATH_INFO", ""))
        if found is None:
            known = ", ".join(page for page in pages if page not in _UNLISTED)
            return _plain(f"no such page; there are {known}", HTTPStatus.NOT_FOUND)
        if environ["PATH_INFO"] == _TRY and environ["REQUEST_METHOD"] == "POST":
            return _tried(status, environ)
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return _plain("this port is read-only: use GET", HTTPStatus.METHOD_NOT_ALLOWED)
        return found(environ)

    def respond(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        said = answer(environ)
        headers = [
            ("Content-Type", said.kind),
            ("Content-Length", str(len(said.content))),
            ("Content-Security-Policy", _POLICY),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
            ("Cache-Control", "no-store"),
        ]
        start(f"{said.status.value} {said.status.phrase}", headers)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [said.content]

    return respond


def _page(suffix: str, kind: str) -> Callable[[WSGIEnvironment], _Answer]:
    content = files("sentimill.observability").joinpath(f"status_page.{suffix}").read_bytes()
    return lambda _: _Answer(content, f"{kind}; charset=utf-8")


def _tried(status: Status, environ: WSGIEnvironment) -> _Answer:
    """Classify the text in the body, if the playground is on and the status page sent it."""
    size = environ.get("CONTENT_LENGTH") or "0"
    if status.playground is None or environ.get("HTTP_X_SENTIMILL") is None:
        return _plain("the playground is off", HTTPStatus.FORBIDDEN)
    # DNS rebinding: the page of another site, whose name resolves to this host
    if not _LOOPBACK.fullmatch(environ.get("HTTP_HOST", "")):
        return _plain("the playground works only on this machine", HTTPStatus.FORBIDDEN)
    if not size.isdecimal() or int(size) > _MOST_TRIED_BYTES:
        why = f"the text has more than {_MOST_TRIED_BYTES} bytes"
        return _plain(why, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    found = status.playground(environ["wsgi.input"].read(int(size)))
    return _Answer(msgspec.json.encode(found), "application/json")


def _plain(text: str, status: HTTPStatus = HTTPStatus.OK) -> _Answer:
    return _Answer(f"{text}\n".encode(), "text/plain; charset=utf-8", status)
