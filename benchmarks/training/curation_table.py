"""The table and the plot of "what curation buys", from the runs of `curation.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.runs import cell

__all__ = ["write_table"]

_COLOURS = {"raw": "#b8860b", "curated": "#1f6f8b"}
_TICKS = (250, 500, 1000, 2000, 4000)


def write_table(markdown: Path, plot: Path, state: dict[str, Any]) -> None:
    """Write both, with the machine and the settings under the table."""
    settings = state["settings"]
    lines = [
        "# What curation buys",
        "",
        f"Students on n frontier labels, raw or curated; {settings['test_rows']:,} test rows of"
        " eight sets, judged by their stars. Mean and standard deviation over seeds.",
        "",
        f"![accuracy by number of rows]({plot.name})",
        "",
        "| n | arm | rows | runs | accuracy | macro-F1 | two-class | ECE |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for line in state["table"]:
        cells = [
            str(line["size"] or "all"),
            line["arm"],
            f"{line['rows']:,}",
            str(line["runs"]),
            *(cell(line, name) for name in ("accuracy", "macro_f1", "two_class", "ece")),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    machine = state["machine"]
    lines += [
        "",
        f"{machine['cpu']}, {machine['cores']} cores, commit {machine['commit']}, {machine['utc']};"
        f" about {settings['budget_rows']:,} rows shown a run, at most {settings['max_tokens']}"
        " tokens each. Made by `python -m benchmarks.training.curation`.",
        "",
    ]
    markdown.write_text("\n".join(lines), encoding="utf-8")
    _draw(plot, state["table"])


def _draw(path: Path, table: list[dict[str, Any]]) -> None:
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": "sentimill"}):
        figure = Figure(figsize=(9, 3.6), layout="tight")
        for axes, name in zip(figure.subplots(1, 2), ("accuracy", "macro_f1"), strict=True):
            for arm, colour in _COLOURS.items():
                found = [line for line in table if line["arm"] == arm]
                axes.errorbar(
                    [line["rows"] for line in found],
                    [line[name] for line in found],
                    yerr=[line[f"{name}_sd"] or 0.0 for line in found],
                    color=colour,
                    marker="o",
                    capsize=3,
                    label=arm,
                )
            axes.set_xscale("log")
            axes.set_xticks(_TICKS, labels=[f"{rows:,}" for rows in _TICKS])
            axes.minorticks_off()
            axes.set_xlabel("training rows")
            axes.set_ylabel(name.replace("_", "-"))
            axes.grid(alpha=0.3)
        axes.legend(frameon=False)
        figure.savefig(path, metadata={"Date": None})
