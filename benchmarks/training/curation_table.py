"""Writes the table and the plot of what curation gains, from the runs of `curation.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.runs import cell
from sentimill_train.reporting.charts import curves_chart
from sentimill_train.reporting.markdown import markdown_table

__all__ = ["write_table"]

_DAY = "#1c1b19", "#68655f", "#e2dfd8", "#0b6e99", "#c8501e", "#4a8c2a", "#8a4fa3"
_NAMES = "ink", "muted", "line", "c1", "c2", "c3", "c4"


def write_table(markdown: Path, state: dict[str, Any]) -> None:
    """Write the table, and a plot for each share of noise, with machine and settings below."""
    settings, machine = state["settings"], state["machine"]
    heads = ("wrong labels", "n", "arm", "rows", "runs", "accuracy", "macro-F1", "less raw")
    rows = [
        (
            f"{line['noise']:.0%}",
            str(line["size"] or "all"),
            line["arm"],
            f"{line['rows']:,}",
            str(line["runs"]),
            *(cell(line, name) for name in ("accuracy", "macro_f1")),
            ", ".join(f"{100 * gain:+.1f}" for gain in line.get("gain_by_seed", [])),
        )
        for line in state["table"]
    ]
    plots = [_plot(markdown, state["table"], noise) for noise in settings["noise"]]
    rows_asked = settings["pool_rows"] + settings["validation_rows"]
    lines = [
        "# What curation gains",
        "",
        "A logistic regression on the embeddings of the reference student, fitted to n of"
        f" {settings['pool_rows']:,} rows of {', '.join(settings['sets'])}, with"
        f" {settings['repeats']:.0%} repeats and leaks added, and a share of labels replaced."
        f" Judged on {settings['test_rows']:,} clean test rows. Mean and standard deviation over"
        " seeds; the last column is the accuracy in points less that of raw rows, seed by seed.",
        "",
        *(f"![accuracy by rows]({plot.name})" for plot in plots),
        "",
        markdown_table(heads, rows),
        "",
        f"{machine['cpu']}, {machine['cores']} cores, commit {machine['commit']}, {machine['utc']}."
        f" Made by `python -m benchmarks.training.curation --rows {rows_asked}`.",
        "",
    ]
    markdown.write_text("\n".join(lines), encoding="utf-8")


def _plot(markdown: Path, table: list[dict[str, Any]], noise: float) -> Path:
    """Write accuracy by rows, a line for each arm."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for line in table:
        if line["noise"] == noise:
            curves.setdefault(line["arm"], []).append((line["rows"], line["accuracy"]))
    svg = curves_chart(curves, "training rows", f"accuracy, {noise:.0%} wrong labels", log="x")
    for name, colour in zip(_NAMES, _DAY, strict=True):
        svg = svg.replace(f"var(--{name})", colour)
    path = markdown.with_name(f"{markdown.stem}-{noise:.0%}.svg".replace("%", ""))
    path.write_text(svg, encoding="utf-8")
    return path
