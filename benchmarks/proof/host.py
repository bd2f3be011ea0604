"""Describes the machine of a labelling benchmark, and writes its JSON."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

from benchmarks.record import RESULTS, cpu_name


def machine() -> dict[str, Any]:
    """Return the machine, its load and the commit."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    return {
        "commit": commit,
        "cores": os.cpu_count(),
        "cpu": cpu_name(),
        "load_1_min": os.getloadavg()[0],
        "python": platform.python_version(),
        "utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def write_result(name: str, result: dict[str, Any]) -> None:
    """Write a result file and print it: the last line of a benchmark is its JSON."""
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(result, indent=1, sort_keys=True)
    (RESULTS / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    print(json.dumps(result, sort_keys=True))  # noqa: T201 # the result of a program
