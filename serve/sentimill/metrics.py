"""Every metric of server and jobs: name, unit, labels and buckets, and how they are shown."""

from __future__ import annotations

import logging
from pathlib import Path
from threading import Thread
from typing import Final
from wsgiref.simple_server import WSGIServer

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    push_to_gateway,
    start_http_server,
    write_to_textfile,
)

from sentimill.errors import UsageError

__all__ = ["JobMetrics", "Metrics", "MetricsPort"]

log = logging.getLogger(__name__)

_SECONDS: Final = tuple(0.001 * 2**i for i in range(15))  # 1 ms to 16 s
_ROWS: Final = tuple(float(2**i) for i in range(11))  # 1 to 1024


class Metrics:
    """Everything the server counts. One a server; a test passes a registry of its own."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        registry = registry or CollectorRegistry()
        self.registry = registry
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self.requests = Counter(
            "sentimill_requests",
            "Calls answered, by method and gRPC code.",
            ["method", "code"],
            registry=registry,
        )
        self.request_seconds = Histogram(
            "sentimill_request_seconds",
            "From a call's arrival to its answer.",
            ["method"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.texts = Counter(
            "sentimill_texts",
            "Texts answered, by label or by the reason of their error.",
            ["outcome"],
            registry=registry,
        )
        self.truncated_texts = Counter(
            "sentimill_truncated_texts", "Texts longer than the model reads.", registry=registry
        )
        self.dropped_texts = Counter(
            "sentimill_dropped_texts",
            "Waiting texts dropped before they were computed: caller gone or deadline passed.",
            registry=registry,
        )
        self.refused = Counter(
            "sentimill_refused_requests", "Calls refused, by reason.", ["reason"], registry=registry
        )
        self.waiting_texts = Gauge(
            "sentimill_waiting_texts", "Texts that wait or run.", registry=registry
        )
        self.waiting_tokens = Gauge(
            "sentimill_waiting_tokens", "Tokens that wait or run.", registry=registry
        )
        self.queue_seconds = Histogram(
            "sentimill_queue_seconds",
            "The longest wait of a call's texts for the engine.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.engine_seconds = Histogram(
            "sentimill_engine_seconds", "One engine call.", buckets=_SECONDS, registry=registry
        )
        self.engine_failures = Counter(
            "sentimill_engine_failures", "Texts on which the engine failed.", registry=registry
        )
        self.batch_rows = Histogram(
            "sentimill_batch_rows", "Texts in one engine call.", buckets=_ROWS, registry=registry
        )
        self.useful_tokens = Counter(
            "sentimill_useful_tokens", "Tokens of texts given to the engine.", registry=registry
        )
        self.padded_tokens = Counter(
            "sentimill_padded_tokens",
            "Tokens given to the engine, padding included; useful / padded is the useful share.",
            registry=registry,
        )
        self.model = Info("sentimill_model", "The loaded model.", registry=registry)

    def observe_batch(self, rows: int, useful: int, padded: int, seconds: float) -> None:
        """Count one engine call of *rows* texts that took *seconds*."""
        self.batch_rows.observe(rows)
        self.useful_tokens.inc(useful)
        self.padded_tokens.inc(padded)
        self.engine_seconds.observe(seconds)


class JobMetrics:
    """Everything a scoring job counts; gauges, because a resumed job goes on from where it was."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()

        def gauge(name: str, says: str) -> Gauge:
            return Gauge(f"sentimill_job_{name}", says, registry=self._registry)

        self._rows = gauge("rows", "Rows written, those of an interrupted run included.")
        self._failed = gauge("failed_rows", "Rows that carry an error in place of an answer.")
        self._useful = gauge("useful_tokens", "Tokens of texts given to the engine.")
        self._padded = gauge("padded_tokens", "Tokens given to the engine, padding included.")
        self._seconds = gauge("seconds", "How long this run has taken.")
        self._ended = gauge("last_success_timestamp_seconds", "When the job ended; 0 before.")

    def set_job(
        self, *, rows: int, failed: int, useful_tokens: int, padded_tokens: int, seconds: float
    ) -> None:
        """Say how far the job is."""
        self._rows.set(rows)
        self._failed.set(failed)
        self._useful.set(useful_tokens)
        self._padded.set(padded_tokens)
        self._seconds.set(seconds)

    def finish(self) -> None:
        """Say that the job ended well, now."""
        self._ended.set_to_current_time()

    def publish(self, textfile: Path | None, gateway: str | None) -> None:
        """Write to *textfile* (for node_exporter) and push to *gateway* (host:port) where given.

        Failing to do so is logged and no reason to end a job.
        """
        try:
            if textfile is not None:
                write_to_textfile(str(textfile), self._registry)
            if gateway is not None:
                push_to_gateway(gateway, job="sentimill_score", registry=self._registry, timeout=5)
        except OSError as error:
            log.warning("metrics could not be written: %s", error)


class MetricsPort:
    """Serves `/metrics` over HTTP in a thread of its own until closed."""

    def __init__(self, metrics: Metrics, host: str, port: int) -> None:
        """Listen. Port 0 takes a free one. Raises UsageError when the port is taken."""
        try:
            server, thread = start_http_server(port, addr=host, registry=metrics.registry)
        except OSError as error:
            raise UsageError(
                f"the metrics port {host}:{port} cannot be opened ({error.strerror}): stop what"
                " uses it or choose another with --metrics-port",
                reason="PORT_BUSY",
            ) from error
        self._server: WSGIServer = server
        self._thread: Thread = thread
        self.port: int = server.server_port

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
