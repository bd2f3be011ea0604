"""Writes the table that compares `sample` with chance, from the runs of `sampling.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.runs import cell
from sentimill_train.reporting.markdown import markdown_table

__all__ = ["write_table"]


def write_table(markdown: Path, state: dict[str, Any]) -> None:
    """Write it, with the machine and the settings underneath."""
    settings, before = state["settings"], state["before"]
    lines = [
        "# Does `sentimill sample` beat chance?",
        "",
        "A student trained on Amazon reviews goes on with the labels of a few tweets about"
        f" airlines, picked from {settings['pool']:,}; judged on {settings['test_rows']:,} others."
        " Mean and standard deviation over seeds.",
        "",
    ]
    rows = [["0", "", "1", f"{before['accuracy']:.3f}", f"{before['macro_f1']:.3f}", ""]]
    for line in state["table"]:
        gains = ", ".join(f"{100 * gain:+.1f} pp" for gain in line.get("gain_by_seed", []))
        cells = [line["size"], line["arm"], line["runs"]]
        cells += [cell(line, name) for name in ("accuracy", "macro_f1")]
        rows.append([*map(str, cells), gains])
    heads = ("labels", "picked by", "runs", "accuracy", "macro-F1", "sample less random, by seed")
    lines.append(markdown_table(heads, rows))
    machine = state["machine"]
    trial = ", **a trial with random layers: no result**" if settings["tiny"] else ""
    lines += [
        "",
        f"{machine['cpu']}, {machine['cores']} cores, commit {machine['commit']},"
        f" {machine['utc']}{trial}. Made by `python -m benchmarks.training.sampling`.",
        "",
    ]
    markdown.write_text("\n".join(lines), encoding="utf-8")
