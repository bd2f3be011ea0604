"""The report of a curation: one HTML file without external files, and its figures as JSON.

The HTML quotes reviews, so it is as private as they are. Everything in it is escaped.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Final

import msgspec

from sentimill.atomic_write import write_atomically
from sentimill_train.curation.drops import REASONS
from sentimill_train.curation.pipeline import Curated, CurateJob
from sentimill_train.optional_packages import needed_for

_MOST_BARS: Final = 15
_HIDDEN: Final = ("source", "out", "columns", "scratch")


def write_report(path: Path, job: CurateJob, found: Curated) -> None:
    """Write the HTML file, and its figures without any text as JSON with the suffix .json.

    Raises:
        UsageError: EXTRA_MISSING if the packages for reports are not installed.
    """
    with needed_for("the report"):
        from markupsafe import Markup

        from sentimill_train.reporting import charts, html

        drawn = {"classes": Markup(charts.bars_chart(found.classes, "rows of train"))}
        if len(found.domains) > 1:
            largest = sorted(found.domains.items(), key=lambda item: (-item[1][0], item[0]))
            bars = charts.bars_chart(dict(largest[:_MOST_BARS]), "rows of train")
            drawn["domains"] = Markup(bars)
        values = {
            "source": Path(job.source).name,
            "found": found,
            "reasons": REASONS,
            "charts": drawn,
            "settings": _settings(job),
        }
        page = html.render("curation.html.j2", values, {"rows": lambda count: f"{count:,}"})
    write_atomically(path, page.encode("utf-8", "replace"))
    figures = {f.name: getattr(found, f.name) for f in fields(found)}
    del figures["examples"], figures["suspects"]
    figures["settings"] = _settings(job)
    data = msgspec.json.format(msgspec.json.encode(figures), indent=2) + b"\n"
    write_atomically(path.with_suffix(".json"), data)


def _settings(job: CurateJob) -> dict[str, str]:
    shown = {f.name: getattr(job, f.name) for f in fields(job) if f.name not in _HIDDEN}
    shown["labels"] = ", ".join(job.labels)
    shown["holdout"] = ", ".join(Path(name).name for name in job.holdout)
    return {name: str(value) for name, value in shown.items()}
