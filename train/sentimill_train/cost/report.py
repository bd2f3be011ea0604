"""Renders the study as an HTML page with two charts, without scripts or external files."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Final

from sentimill_train.cost.claims import CLAIMED_VOLUMES, Study
from sentimill_train.reporting import charts
from sentimill_train.reporting import html as pages

_SHOWN_SWINGS: Final = 12


def render_cost(found: Study) -> str:
    """Return the page."""
    values = {"study": found, "plan": asdict(found.plan), "charts": cost_charts(found)}
    return pages.render("cost.html.j2", values, {"volume": count})


def cost_charts(found: Study) -> dict[str, str]:
    """Return the charts of totals by volume and of the swings, as SVG for a template."""
    from markupsafe import Markup

    totals = {"student": list(zip(found.volumes, found.student_totals_usd, strict=True))}
    for line in found.lines:
        if not line.batch:
            totals[line.model] = list(zip(found.volumes, line.totals_usd, strict=True))
    swings = {
        f"{one.name}, {one.low:,.5g} to {one.high:,.5g}": (
            min(one.break_even_low, one.break_even_high),
            found.swings_at,
            max(one.break_even_low, one.break_even_high),
        )
        for one in found.swings[:_SHOWN_SWINGS]
        if math.isfinite(one.width)
    }
    curves = charts.curves_chart(totals, "reviews", "US dollars", log="xy", shaded=CLAIMED_VOLUMES)
    ranges = charts.ranges_chart(swings, "break-even, reviews") if swings else ""
    return {"totals": Markup(curves), "swings": Markup(ranges)}


def count(value: float | None) -> str:
    """Format a number of reviews, such as 1.2 M; `never` for None and for infinity."""
    if value is None or math.isinf(value):
        return "never"
    rounded = float(f"{value:.3g}")  # first, so that 999,700 is 1 M and not 1000 K
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " K")):
        if rounded >= size:
            part = rounded / size
            return f"{part:,.0f}{unit}" if part >= 1000 else f"{part:.3g}{unit}"
    return f"{value:.0f}"
