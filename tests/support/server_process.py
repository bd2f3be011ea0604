"""A server as a process of its own, started with the command that an operator types."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from live_server import WAIT_SECONDS

COMMAND = (sys.executable, "-c", "from sentimill.cli.main import main; main()")


class Replica:
    """One `sentimill serve`; the port that it took is the one it takes again."""

    def __init__(self, arguments: Sequence[str], *, before: Sequence[str] = ()) -> None:
        """Store what to run: `sentimill` with *arguments*, which *before* may wrap."""
        self._arguments = [*before, *COMMAND, *arguments]
        self._ports = ["--port=0", "--metrics-port=0"]
        self._process: subprocess.Popen[bytes] | None = None
        self.address = ""
        self.http = ""
        self.said = ""

    def start(self) -> None:
        """Start it, and return when it answers calls."""
        with tempfile.NamedTemporaryFile(prefix="replica-", suffix=".log") as log:
            self._process = subprocess.Popen([*self._arguments, *self._ports], stderr=log)
            end = time.monotonic() + 2 * WAIT_SECONDS
            while not (said := _addresses(text := Path(log.name).read_text(errors="replace"))):
                assert self._process.poll() is None, text
                assert time.monotonic() < end, text
                time.sleep(0.05)  # the process is to speak; there is nothing to wait on
        self.address, self.http = said
        self.said = text
        self._ports = [
            f"--port={self.address.rpartition(':')[2]}",
            f"--metrics-port={self.http.rpartition(':')[2]}",
        ]

    def stop(self) -> int:
        """Send SIGTERM and return the exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(2 * WAIT_SECONDS)

    def kill(self) -> None:
        """End it if it still runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()


def _addresses(log: str) -> tuple[str, str] | None:
    if told := re.search(r'"message": "serving".*"address": "([^"]+)", "http": "([^"]+)"', log):
        return told[1], told[2]
    grpc = re.search(r"^serving .* on (\S+)$", log, re.MULTILINE)
    http = re.search(r"^metrics on http://([^/]+)/metrics$", log, re.MULTILINE)
    return (grpc[1], http[1]) if grpc and http else None
