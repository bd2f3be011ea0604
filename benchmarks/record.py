"""What every result file records about where and how it was measured, and how it is written."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from sentimill.engine.hardware import Machine, usable_cores
from sentimill.installed_packages import package_version

__all__ = [
    "RESULTS",
    "between",
    "cpu_name",
    "peak_mib",
    "process_status",
    "surroundings",
    "write_result",
]

ROOT: Final = Path(__file__).parents[1]
"""The root of the checkout."""

RESULTS: Final = ROOT / "benchmarks" / "results"
_PACKAGES = (
    "sentimill",
    "openvino",
    "tokenizers",
    "tokie",
    "grpcio",
    "numpy",
)


def cpu_name() -> str:
    """Return the processor's name as the system tells it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "unknown"


def surroundings() -> dict[str, object]:
    """Return machine, load, commit and versions. On a busy machine only ratios are meaningful."""
    machine = Machine.here()
    flags = sorted(
        flag for flag in machine.cpu_flags if flag.startswith(("avx512_", "amx_", "avx2", "avx_"))
    )
    return {
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": cpu_name(),
        "cpu_flags": flags,
        "cores": usable_cores(),
        "load_average": os.getloadavg()[0],
        "python": platform.python_version(),
        "commit": os.environ.get("SENTIMILL_COMMIT") or _commit(),
        # As imported: the packages for CPUs and GPUs overwrite one another's files.
        "onnxruntime": machine.onnxruntime,
        **{name: package_version(name) for name in _PACKAGES},
    }


def _commit() -> str:
    """Return the commit that is checked out, empty where git knows none."""
    command = ["git", "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def peak_mib() -> float:
    """Return the largest resident set of this process so far."""
    return process_status("VmHWM") / 1024


def process_status(field: str, process: int | str = "self") -> int:
    """Return a number that the system keeps of a process; sizes (VmHWM, VmRSS) are in KiB."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def between(readme: str, part: str, made: str) -> str:
    """Return *readme* with *made* between the markers of a part, which stay.

    Raises:
        SystemExit: the markers are not there.
    """
    pattern = re.compile(rf"(<!-- {part}:[^>]*-->\n).*?(<!-- /{part} -->)", re.DOTALL)
    if not pattern.search(readme):
        raise SystemExit(f"the README has no markers <!-- {part}: ... --> and <!-- /{part} -->")
    return pattern.sub(lambda found: f"{found[1]}{made}{found[2]}", readme)


def write_result(path: Path | None, result: Mapping[str, object]) -> str:
    """Return *result* as one line of JSON, written to *path* too where there is one."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=2) + "\n")
    return json.dumps(result)
