"""What this machine is: cores, CPU flags, and the versions of what is installed."""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ["cpu_flags", "package_version", "usable_cores"]


def cpu_flags() -> frozenset[str]:
    """Return the processor's flags; empty where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    flags = next((line for line in lines if line.startswith("flags")), "")
    return frozenset(flags.partition(":")[2].split())


def usable_cores() -> int:
    """Return how many cores this process may use; a container has fewer than its machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def package_version(package: str) -> str | None:
    """Return the installed version of *package*, None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
