"""The report of a curation: one HTML file without a network, its charts inside it.

It quotes reviews, so it is as private as they are. Everything in it is escaped.
"""

from __future__ import annotations

import io
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from sentimill.errors import UsageError
from sentimill_train.curation.drop_reasons import REASONS
from sentimill_train.curation.pipeline import Curated, CurateJob
from sentimill_train.data.jsonl_stream import write_lines

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["write_report"]

_TEMPLATE: Final = Path(__file__).parents[1] / "reporting" / "templates" / "curation.html.j2"
_MOST_BARS: Final = 15
_BEFORE, _AFTER = "#b8c4ce", "#1f6f8b"


def write_report(path: Path, job: CurateJob, found: Curated) -> None:
    """Write the HTML file, and its figures as JSON beside it.

    Raises:
        UsageError: the extra `label` is not installed.
    """
    try:
        import jinja2
        import matplotlib
    except ImportError as error:
        raise UsageError(
            f"the report needs {error.name}: pip install 'sentimill[label]'",
            reason="EXTRA_MISSING",
        ) from error
    # The same input gives the same bytes: no date, no random ids.
    with matplotlib.rc_context({"svg.hashsalt": "sentimill", "svg.fonttype": "none"}):
        charts = {
            "classes": _bars(found.classes),
            "domains": _bars(_largest(found.domains)),
            "confidence": _histogram(found.confidence) if any(found.confidence[0]) else "",
        }
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    html = environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        source=Path(job.source).name,
        found=found,
        reasons=REASONS,
        charts=charts,
        settings=_settings(job),
    )
    with write_lines(path) as file:
        file.write(html.encode("utf-8", "replace"))
    figures = {
        "rows": found.rows,
        "kept": found.kept,
        "drops": found.drops,
        "classes": found.classes,
        "domains": found.domains,
        "confidence": found.confidence,
        "notes": found.notes,
        "settings": _settings(job),
    }
    with write_lines(path.with_suffix(".json")) as file:
        file.write(msgspec.json.format(msgspec.json.encode(figures), indent=2) + b"\n")


def _settings(job: CurateJob) -> dict[str, str]:
    shown = {field.name: getattr(job, field.name) for field in fields(job)}
    shown["filters"] = (
        f"labels {', '.join(job.filters.labels)}; languages"
        f" {', '.join(sorted(job.filters.languages)) or 'any'}; at least"
        f" {job.filters.min_words} words"
    )
    shown["holdout"] = ", ".join(Path(name).name for name in job.holdout)
    for hidden in ("source", "out", "columns", "scratch"):
        del shown[hidden]
    return {name: str(value) for name, value in shown.items()}


def _largest(domains: dict[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
    ordered = sorted(domains.items(), key=lambda item: (-item[1][0], item[0]))
    return dict(ordered[:_MOST_BARS])


def _bars(values: dict[str, tuple[int, int]]) -> str:
    """Return a chart of rows before and after, a pair of bars a name."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 0.8 + 0.45 * len(values)), layout="tight")
    axes = figure.subplots()
    places = range(len(values))
    axes.barh([y - 0.2 for y in places], [v[0] for v in values.values()], 0.4, color=_BEFORE)
    axes.barh([y + 0.2 for y in places], [v[1] for v in values.values()], 0.4, color=_AFTER)
    axes.set_yticks(list(places), [name.replace("$", r"\$") for name in values])
    axes.invert_yaxis()
    axes.set_xlabel("rows")
    axes.legend(["before", "after"], loc="lower right", frameon=False)
    return _svg(figure)


def _histogram(bins: tuple[list[int], list[int]]) -> str:
    """Return a chart of the largest share a row, before and after."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3), layout="tight")
    axes = figure.subplots()
    width = 1 / len(bins[0])
    centres = [(k + 0.5) * width for k in range(len(bins[0]))]
    axes.bar(centres, bins[0], width * 0.9, color=_BEFORE, label="before")
    axes.bar(centres, bins[1], width * 0.6, color=_AFTER, label="after")
    axes.set_xlim(0.3, 1.0)
    axes.set_xlabel("largest share")
    axes.set_ylabel("rows")
    axes.legend(frameon=False)
    return _svg(figure)


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
