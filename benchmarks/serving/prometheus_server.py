"""Runs a real Prometheus with the shipped rules, whose time windows are shortened."""

from __future__ import annotations

import json
import math
import re
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

__all__ = ["ALERTS", "RULES", "Prometheus", "hasten", "prometheus", "until"]

_DEPLOY: Final = Path(__file__).parents[2] / "deploy/prometheus"
RULES: Final = _DEPLOY / "rules.yml"
ALERTS: Final = _DEPLOY / "alerts.yml"
ANSWER_SECONDS: Final = 60.0
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def hasten(rules: str, faster: int) -> str:
    """Return *rules* with every window and every `for` divided by *faster*, up to whole seconds."""

    def divide(found: re.Match[str]) -> str:
        seconds = int(found[2]) * _UNITS[found[3]] / faster
        return f"{found[1]}{math.ceil(seconds)}s"

    return re.sub(r"(\[|for: )(\d+)([smhd])", divide, rules)


class Prometheus:
    """A running Prometheus."""

    def __init__(self, address: str) -> None:
        """Store the address, `host:port`."""
        self._address = address

    def ask(self, path: str, **query: str) -> Any:
        """Ask the API once, and return the data of its answer."""
        url = f"http://{self._address}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=ANSWER_SECONDS) as answer:
            return json.load(answer)["data"]

    def firing(self) -> set[str]:
        """Return the names of the alerts that fire."""
        found = self.ask("alerts")["alerts"]
        return {each["labels"]["alertname"] for each in found if each["state"] == "firing"}


@contextmanager
def prometheus(program: str, folder: Path, target: str, *, faster: int) -> Iterator[Prometheus]:
    """Scrape *target* twice a second, with the rules *faster* than shipped, on a free port.

    Raises:
        SystemExit: it does not start; the message is its log.
    """
    for file in (RULES, ALERTS):
        (folder / file.name).write_text(hasten(file.read_text(), faster))
    config = {
        "global": {"scrape_interval": "500ms", "evaluation_interval": "500ms"},
        "rule_files": [RULES.name, ALERTS.name],
        "scrape_configs": [
            {"job_name": "sentimill", "static_configs": [{"targets": [target]}]},
        ],
    }
    (folder / "prometheus.yml").write_text(json.dumps(config))
    command = [
        program,
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        "--web.listen-address=127.0.0.1:0",
    ]
    log = folder / "log"
    with log.open("wb") as out, subprocess.Popen(command, stderr=out, stdout=out) as process:
        try:
            until(lambda: _listening(log) or process.poll() is not None)
            if process.poll() is not None:
                raise SystemExit(log.read_text())
            yield Prometheus(_listening(log))
        finally:
            process.terminate()


def _listening(log: Path) -> str:
    """Return the address that the log names, an empty text before it does."""
    found = re.search(r'"Listening on" address=(\S+)', log.read_text())
    return found[1] if found else ""


def until(condition: Callable[[], object], seconds: float = 3 * ANSWER_SECONDS) -> None:
    """Wait until *condition* holds.

    Raises:
        TimeoutError: it does not within *seconds*.
    """
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {seconds:g} s")
        time.sleep(0.1)  # another process is to act; there is nothing to wait on
