"""Runs by arm and seed: which were run already, and their means with the spread."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.record import surroundings

__all__ = ["cell", "resumed", "spread_of"]


def resumed(out: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Return the state to continue from: the runs of *out*, if it has the same *settings*."""
    state: dict[str, Any] = {"machine": surroundings(), "settings": settings, "runs": {}}
    if out.exists() and (before := json.loads(out.read_text()))["settings"] == settings:
        state["runs"] = before["runs"]
    return state


def spread_of(runs: Sequence[dict[str, Any]], names: Sequence[str]) -> dict[str, float | None]:
    """Return mean and standard deviation of each figure, None where there are too few runs."""
    line: dict[str, float | None] = {}
    for name in names:
        values = [run[name] for run in runs]
        line[name] = statistics.mean(values) if values else None
        line[f"{name}_sd"] = statistics.stdev(values) if len(values) > 1 else None
    return line


def cell(line: dict[str, Any], name: str) -> str:
    """Return a figure with its spread, blank where no run has it."""
    if line[name] is None:
        return ""
    spread = line[f"{name}_sd"]
    return f"{line[name]:.3f}" + (f" ± {spread:.3f}" if spread is not None else "")
