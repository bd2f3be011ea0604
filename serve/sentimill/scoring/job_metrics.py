"""Every metric of a scoring job, for node_exporter's textfile collector or a Pushgateway."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge, push_to_gateway, write_to_textfile

from sentimill.scoring.checkpoint import RowCounts
from sentimill.scoring.storage import absolute

log = logging.getLogger(__name__)


class JobMetrics:
    """The metrics of a scoring job. They are gauges, because a resumed job keeps its counts.

    output: the job's target, which identifies the job in a Pushgateway.
    """

    def __init__(self, output: str) -> None:
        # Each output has a group of its own, so that a running job does not hide a killed one. The
        # same command, run again on any machine, has the same group. A label holds no path.
        self._group = {"output": hashlib.sha256(absolute(output).encode()).hexdigest()[:12]}
        self.registry = CollectorRegistry()

        def gauge(name: str, says: str) -> Gauge:
            return Gauge(f"sentimill_job_{name}", says, registry=self.registry)

        self._rows = gauge("rows", "Rows written, those of an interrupted run included.")
        self._failed = gauge("failed_rows", "Rows with an error in place of an answer.")
        self._useful = gauge("useful_tokens", "Tokens of texts given to the engine.")
        self._padded = gauge("padded_tokens", "Tokens given to the engine, padding included.")
        self._seconds = gauge("seconds", "How long this run has taken.")
        self._ended = gauge("last_success_timestamp_seconds", "When the job ended; 0 before.")

    def set_job(self, counts: RowCounts, seconds: float) -> None:
        """Set the progress of the job."""
        self._rows.set(counts.rows)
        self._failed.set(counts.failed)
        self._useful.set(counts.useful_tokens)
        self._padded.set(counts.padded_tokens)
        self._seconds.set(seconds)

    def finish(self) -> None:
        """Set the time of success to now."""
        self._ended.set_to_current_time()

    def publish(self, textfile: Path | None, gateway: str | None) -> None:
        """Write to *textfile* (for node_exporter) and push to *gateway* (host:port) if given.

        A failure is logged and does not end the job.
        """
        try:
            if textfile is not None:
                write_to_textfile(str(textfile), self.registry)
            if gateway is not None:
                push_to_gateway(
                    gateway,
                    job="sentimill_score",
                    registry=self.registry,
                    grouping_key=self._group,
                    timeout=5,
                )
        except OSError as error:
            log.warning("metrics could not be written: %s", error)
