"""The report's plots, as SVG text to be put into the page."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from record import CascadePoint, Quality, Ratio, Scaling, Speed
from sentimill_train.cost.verdict import Study

__all__ = ["cascade", "cost_lines", "frontier", "ratios", "scaling", "speeds", "tornado"]

# The same input gives the same SVG: no random ids. Text stays text, so the page can be searched.
mpl.rcParams.update({"svg.hashsalt": "sentimill", "svg.fonttype": "none", "font.size": 10})


def _svg(draw: Callable[[Axes], None], *, width: float = 7.5, height: float = 4.2) -> str:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, alpha=0.25)
    draw(axes)
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    return text[text.index("<svg") :]


def speeds(rows: Sequence[Speed]) -> str:
    """Reviews a second of every contestant, every round a dot."""

    def draw(axes: Axes) -> None:
        for place, row in enumerate(reversed(rows)):
            colour = {"student": "C0", "large": "C3"}.get(row.kind, "C7")
            axes.plot(row.rates, [place] * len(row.rates), "o", color=colour, alpha=0.5)
            axes.plot([row.rate], [place], "|", color=colour, markersize=18)
        axes.set_yticks(range(len(rows)), [row.name for row in reversed(rows)])
        axes.set_xscale("log")
        axes.set_xlabel("reviews a second (bar: median of the rounds)")

    return _svg(draw, height=1.2 + 0.3 * len(rows))


def ratios(rows: Sequence[Ratio]) -> str:
    """How many times faster the student is, with intervals, and the claim's line at 100."""

    def draw(axes: Axes) -> None:
        for place, row in enumerate(reversed(rows)):
            axes.plot([row.low, row.high], [place, place], color="C0", linewidth=3)
            axes.plot([row.value], [place], "o", color="C0")
        names = [f"{row.large}\n{row.basis}" for row in reversed(rows)]
        axes.set_yticks(range(len(rows)), names, fontsize=8)
        axes.axvline(100, color="C3", linestyle="--")
        axes.set_xscale("log")
        axes.set_xlabel("student is so many times faster (dashed: the claim)")

    return _svg(draw, height=1.2 + 0.5 * len(rows))


def frontier(points: Sequence[tuple[str, float, Quality]]) -> str:
    """Quality against cost. points: name, US dollars a million reviews, quality."""

    def draw(axes: Axes) -> None:
        for place, (name, usd, row) in enumerate(points):
            error = [[100 * (row.accuracy - row.low)], [100 * (row.high - row.accuracy)]]
            axes.errorbar([usd], [100 * row.accuracy], yerr=error, fmt="o", color=f"C{place}")
            axes.annotate(name, (usd, 100 * row.accuracy), (6, 6), textcoords="offset points")
        axes.set_xscale("log")
        axes.set_xlabel("US dollars a million reviews")
        axes.set_ylabel("two-class accuracy, %")
        axes.margins(x=0.25)

    return _svg(draw)


def cascade(points: Sequence[CascadePoint]) -> str:
    """Cost against accuracy over the threshold, with the best point named."""

    def draw(axes: Axes) -> None:
        usd = [point.usd_million for point in points]
        axes.plot(usd, [100 * point.accuracy for point in points], "o-", markersize=3)
        low = [100 * point.low for point in points]
        axes.fill_between(usd, low, [100 * point.high for point in points], alpha=0.15)
        for point in points:
            if point.best:
                text = f"below {point.threshold:.3g}: {point.handed_over:.0%} handed over"
                place = (point.usd_million, 100 * point.accuracy)
                axes.plot(*place, "*", color="C3", markersize=14)
                axes.annotate(text, place, (8, -16), textcoords="offset points")
        axes.set_xscale("symlog", linthresh=1)
        axes.set_xlabel("US dollars a million reviews")
        axes.set_ylabel("three-class accuracy against the stars, %")

    return _svg(draw)


def cost_lines(found: Study) -> str:
    """Total cost over volume, online prices, on two logarithmic axes."""

    def draw(axes: Axes) -> None:
        axes.plot(found.volumes, found.student_totals_usd, "k", linewidth=2.5, label="student")
        for line in found.lines:
            if not line.batch:
                name = f"{line.model} ({line.tier})"
                axes.plot(found.volumes, line.totals_usd, label=name)
                if line.break_even is not None and line.break_even <= found.volumes[-1]:
                    usd = line.break_even * line.usd_million / 1e6
                    axes.plot([line.break_even], [usd], "ko", markersize=5)
        axes.axvspan(1e5, 1e6, color="C3", alpha=0.1)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("reviews (shaded: where the claim puts the break-even)")
        axes.set_ylabel("US dollars, everything")
        axes.legend(fontsize=8)

    return _svg(draw)


def tornado(found: Study, count: int = 12) -> str:
    """Break-even as each assumption is halved and doubled, the widest on top."""

    def draw(axes: Axes) -> None:
        rows = [s for s in found.swings if s.width != float("inf")][:count]
        for place, row in enumerate(reversed(rows)):
            ends = [row.break_even_low, row.break_even_high]
            axes.plot(ends, [place, place], linewidth=9, solid_capstyle="butt", color="C0")
            axes.annotate(f"{row.low:.4g}", (ends[0], place), fontsize=7, ha="center", va="center")
            axes.annotate(f"{row.high:.4g}", (ends[1], place), fontsize=7, ha="center", va="center")
        axes.set_yticks(range(len(rows)), [row.name for row in reversed(rows)])
        axes.set_xscale("log")
        axes.set_xlabel(f"break-even in reviews against {found.swings_against}")

    return _svg(draw, height=1.2 + 0.32 * min(count, len(found.swings)))


def scaling(points: Sequence[Scaling]) -> str:
    """One axis of the scaling section, with its bound where there is one."""

    def draw(axes: Axes) -> None:
        values = [point.value for point in points]
        axes.plot(values, [point.reviews_per_second for point in points], "o-", label="measured")
        bounds = [point.bound for point in points if point.bound is not None]
        if len(bounds) == len(points):
            axes.plot(values, bounds, "k--", label="matrix rate over operations")
            axes.legend(fontsize=8)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xlabel(points[0].axis)
        axes.set_ylabel("reviews a second")

    return _svg(draw, width=4.6, height=3.2)
