"""The charts of all reports, as SVG in the colours of the page.

They are drawn with the objects of matplotlib, without pyplot, so they leave no global state and
need no display. Text stays text, so a reader can search it and a phone can scale it.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from sentimill_train.calibration.abstention import Point
from sentimill_train.metrics.classification import Bin
from sentimill_train.metrics.intervals import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# matplotlib does not support CSS variables, so it draws in placeholder colours, which are replaced
# by variables afterwards. The page sets the variables for its light and dark theme.
_INK: Final = "#010101"
_MUTED: Final = "#020202"
_LINE: Final = "#030303"
_SERIES: Final = ("#0a0a01", "#0a0a02", "#0a0a03", "#0a0a04", "#0a0a05", "#0a0a06")
_LEGEND_CHARACTERS: Final = 72  # that fit into a line of the narrowest chart
_STYLES: Final = ("-", "--", ":", "-.")
_VARIABLES: Final = {_INK: "var(--ink)", _MUTED: "var(--muted)", _LINE: "var(--line)"} | {
    colour: f"var(--c{i})" for i, colour in enumerate(_SERIES, start=1)
}


def risk_chart(curves: Mapping[str, Sequence[Point]], threshold: float | None) -> str:
    """Return risk against coverage, one line for each set; a dot marks the bundle's threshold."""
    axes = _axes(4.8, 3.2)
    for i, (name, points) in enumerate(curves.items()):
        _line(axes, i, name, [(p.coverage * 100, p.risk * 100) for p in points])
        answered = [p for p in points if threshold is not None and p.threshold >= threshold]
        if answered:
            axes.plot(answered[-1].coverage * 100, answered[-1].risk * 100, "o", color=_colour(i))
    axes.set_xlim(0, 100)
    axes.set_ylim(bottom=0)
    return _svg(axes, "answered, % of reviews", "wrong, % of the answers", "Risk against coverage")


def reliability_chart(bins: Sequence[Bin]) -> str:
    """Return accuracy against confidence in bins of equal mass; the diagonal is calibrated."""
    axes = _axes(3.6, 3.2)
    points = [(b.confidence * 100, b.accuracy * 100) for b in bins]
    low = max(0.0, 5 * ((min(map(min, points)) - 3) // 5))
    axes.plot([low, 100], [low, 100], "-", color=_MUTED, linewidth=1)
    for confidence, accuracy in points:
        axes.plot([confidence] * 2, [confidence, accuracy], "-", color=_SERIES[1], linewidth=2)
        axes.plot(confidence, accuracy, "o", color=_SERIES[0], markersize=4.5)
    axes.set_xlim(low, 100.5)
    axes.set_ylim(low, 100.5)
    return _svg(axes, "confidence, %", "right, %", "Reliability diagram")


def intervals_chart(rows: Mapping[str, Mapping[str, Figure]], label: str) -> str:
    """Return a dot and its interval for each model on each set. rows: set to model to figure."""
    models = list(dict.fromkeys(model for figures in rows.values() for model in figures))
    axes = _axes(4.8, 0.9 + len(rows) * (0.26 + 0.13 * len(models)))
    for place, figures in enumerate(rows.values()):
        for i, model in enumerate(models):
            if model in figures:
                y = place + (i - (len(models) - 1) / 2) * 0.2
                figure, name = figures[model], _plain(model) if place == 0 else None
                ends = [figure.low * 100, figure.high * 100]
                axes.plot(ends, [y, y], "-", color=_colour(i), linewidth=1.6)
                x, look = figure.value * 100, _marker(i)
                axes.plot(x, y, look, color=_colour(i), markersize=4.5, label=name)
    _names(axes, rows)
    return _svg(axes, label, title=label, above=True)


def curves_chart(
    curves: Mapping[str, Sequence[tuple[float, float]]],
    x: str,
    y: str,
    *,
    log: str = "",
    shaded: tuple[float, float] | None = None,
) -> str:
    """Return one line for each name; points are (x, y).

    log: the axes that are logarithmic, "x", "y" or "xy". shaded: a span of x.
    """
    axes = _axes(4.8, 2.8 if not log else 3.2)
    if shaded is not None:
        axes.axvspan(*shaded, color=_LINE, alpha=0.6, linewidth=0)
    for i, (name, points) in enumerate(curves.items()):
        _line(axes, i, name, points, marker="o" if len(points) < 30 else None)
    _scale(axes, log)
    return _svg(axes, x, y)


def ranges_chart(
    rows: Mapping[str, tuple[float, float, float]], x: str, *, mark: float | None = None
) -> str:
    """Return a bar from low to high with a dot, for each name, on a logarithmic axis.

    rows: (low, value, high), all above 0. mark: a value to draw a line at.
    """
    axes = _axes(4.8, 0.8 + 0.27 * len(rows))
    if mark is not None:
        axes.axvline(mark, color=_SERIES[1], linestyle="--", linewidth=1.2)
    for place, (low, value, high) in enumerate(rows.values()):
        axes.plot([low, high], [place, place], "-", color=_SERIES[0], linewidth=4, alpha=0.45)
        axes.plot(value, place, "o", color=_SERIES[0], markersize=4.5)
    _names(axes, rows)
    _scale(axes, "x")
    return _svg(axes, x, title=x)


def bars_chart(values: Mapping[str, Sequence[int]], x: str) -> str:
    """Return two bars for each name, before and after. values: at least one name."""
    axes = _axes(4.8, 0.9 + 0.4 * len(values))
    for part, (name, colour) in enumerate((("before", _MUTED), ("after", _SERIES[0]))):
        places = [place - 0.2 + 0.4 * part for place in range(len(values))]
        widths = [value[part] for value in values.values()]
        axes.barh(places, widths, 0.36, color=colour, label=name)
    _names(axes, values)
    return _svg(axes, x, title=x, above=True)


def places_chart(points: Mapping[str, tuple[float, Figure]], x: str, y: str) -> str:
    """Return a share in %, with its interval, for each name, over a logarithmic x."""
    axes = _axes(4.8, 3.2)
    for i, (name, (place, share)) in enumerate(points.items()):
        axes.plot([place, place], [100 * share.low, 100 * share.high], "-", color=_colour(i))
        axes.plot(place, 100 * share.value, _marker(i), color=_colour(i), label=_plain(name))
    _scale(axes, "x")
    axes.margins(x=0.15)
    return _svg(axes, x, y)


def _line(
    axes: Axes, i: int, name: str, points: Sequence[tuple[float, float]], marker: str | None = None
) -> None:
    """Draw line *i* of a chart. If there are more lines than colours, their styles differ."""
    x, y = zip(*points, strict=True) if points else ((), ())
    axes.plot(
        x,
        y,
        _STYLES[i // len(_SERIES) % len(_STYLES)],
        color=_colour(i),
        label=_plain(name),
        marker=marker,
        markersize=3.5,
        linewidth=1.6,
    )


def _names(axes: Axes, rows: Collection[str]) -> None:
    """Write the name of each row next to it, the first on top."""
    axes.set_yticks(range(len(rows)), [_plain(name) for name in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)


def _scale(axes: Axes, log: str) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

    if "x" in log:
        axes.set_xscale("log")
    if "y" in log:
        axes.set_yscale("log")
    for name in log:
        axis = axes.xaxis if name == "x" else axes.yaxis
        low, high = axis.get_view_interval()
        if high < 50 * low:  # only powers of ten would give such an axis almost no ticks
            powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
            ticks = [m * 10.0**n for n in powers for m in (1, 2, 5) if low <= m * 10.0**n <= high]
            if len(ticks) < 3:
                ticks = list(MaxNLocator(4, steps=[1, 2, 5, 10]).tick_values(low, high))
            axis.set_major_locator(FixedLocator(ticks))
            axis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
        axis.set_minor_locator(NullLocator())


def _short(value: float) -> str:
    """Return a number in few characters: 5 M, 200 K, 0.5."""
    if value < 1e4:
        return f"{value:,.12g}"
    size, unit = next(each for each in ((1e9, "G"), (1e6, "M"), (1e3, "K")) if value >= each[0])
    return f"{value / size:,.12g} {unit}"


def _colour(i: int) -> str:
    return _SERIES[i % len(_SERIES)]


def _marker(i: int) -> str:
    return "os^Dv"[i % 5]


def _axes(width: float, height: float) -> Axes:
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(width, height), layout="constrained")
    canvas.patch.set_alpha(0)
    axes = canvas.subplots()
    axes.patch.set_alpha(0)
    axes.grid(color=_LINE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_MUTED, labelcolor=_INK, labelsize=9, length=0)
    axes.xaxis.label.set(color=_INK, fontsize=9)
    axes.yaxis.label.set(color=_INK, fontsize=9)
    for side, spine in axes.spines.items():
        spine.set(visible=side in ("left", "bottom"), color=_LINE)
    return axes


def _legend(axes: Axes, *, above: bool = False) -> None:
    _, names = axes.get_legend_handles_labels()
    if not names:
        return
    if above:  # a legend of the whole canvas, whose layout leaves space for it
        fitting = max(1, min(3, _LEGEND_CHARACTERS // (max(map(len, names)) + 4)))
        axes.figure.legend(
            loc="outside upper left", ncols=fitting, frameon=False, labelcolor=_INK, fontsize=8
        )
        return
    axes.legend(frameon=False, labelcolor=_INK, fontsize=8, loc="best")


def _plain(name: str) -> str:
    """Escape *name* so that matplotlib shows it as text: no mathematics, and not hidden."""
    return name.replace("$", r"\$").removeprefix("_")


def _svg(axes: Axes, x: str, y: str = "", title: str = "", *, above: bool = False) -> str:
    """Name the axes, draw the legend, and return the chart. title: `y by x` by default."""
    from matplotlib import rc_context

    axes.set_xlabel(x)
    axes.set_ylabel(y)
    _legend(axes, above=above)
    title = title or f"{y} by {x}"
    canvas, out = axes.get_figure(root=True), io.StringIO()
    assert canvas is not None
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": title}), warnings.catch_warnings():
        # The font of matplotlib may lack a glyph of a name; the browser of the reader has it.
        warnings.filterwarnings("ignore", "Glyph .* missing")
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        canvas.savefig(out, format="svg", metadata={**nothing, "Title": title})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    # Keep only the view box, because the page sets the width of a chart.
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r'\1 role="img"', text, count=1)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' font-family: [^;"]*;', "", text)
    text = re.sub(r' id="[a-zA-Z0-9.]+_\d+"', "", text)  # several charts share one page
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, variable)
    return text
