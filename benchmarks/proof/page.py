"""Makes one page from the JSON of the runs. It loads nothing, and its plots are inline SVG.

python -m benchmarks.proof.readme_tables benchmarks/results/proof-cpu.json [proof-gpu.json]
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from markupsafe import Markup

from benchmarks.proof.record import Proof, Quality, Scaling, Speed
from benchmarks.proof.tables import cascade_table, quality_table, ratio_table, speed_table
from sentimill_train.cost.break_even import Plan
from sentimill_train.cost.claims import Study, choose, study
from sentimill_train.cost.prices import load_rates
from sentimill_train.cost.report import cost_charts, count
from sentimill_train.reporting import charts
from sentimill_train.reporting import html as pages


def fastest(proof: Proof) -> Speed:
    """Return the student's fastest way to answer texts, which is what a job would use."""
    whole = [s for s in proof.speeds if s.kind == "student" and s.path in {"classify", "score"}]
    return max(whole, key=lambda speed: speed.rate)


def cost_of(proof: Proof) -> Study:
    """Return the costs that `sentimill cost` shows, with this run's measured rate and price."""
    rates = load_rates()
    rate = fastest(proof).rate
    plan = Plan(
        reviews_per_second=rate,
        usd_machine_hour=float(proof.settings["usd_hour"] or 0),
        utilisation=float(proof.settings["utilisation"] or 1),
    )
    notes = (f"model prices read {rates.checked}", f"{rate:.0f} reviews a second, measured")
    return study(plan, choose(rates, ()), 1e6, notes)


def render(proofs: Sequence[Proof]) -> str:
    """Return the page for some runs. The costs are those of the first."""
    cost = cost_of(proofs[0])
    runs = [_run(proof, cost) for proof in proofs]
    values = {"runs": runs, "cost": cost, "cost_plots": cost_charts(cost)}
    return pages.render("page.html.jinja", values, {"volume": count}, [Path(__file__).parent])


def _run(proof: Proof, cost: Study) -> dict[str, object]:
    tables = {
        "Student against large model": ratio_table(proof),
        "Every contestant": speed_table(proof),
        "Quality on held-out reviews": quality_table(proof),
        "The cascade": cascade_table(proof),
    }
    return {
        "proof": proof,
        "tables": {title: table for title, table in tables.items() if table[1]},
        "plots": [(title, Markup(svg)) for title, svg in _plots(proof, cost)],  # our own SVG
        "on_paper": [point for point in proof.scaling if point.note],
    }


def _plots(proof: Proof, cost: Study) -> Iterator[tuple[str, str]]:
    ratios = {
        f"{row.large}, {'measured' if row.basis == 'measured' else row.basis.split(',')[0]}": (
            row.low,
            row.value,
            row.high,
        )
        for row in proof.ratios
    }
    yield (
        "How many times faster the student is; the line is the claim.",
        charts.ranges_chart(ratios, "times faster", mark=100),
    )
    speeds = {row.name: (min(row.rates), row.rate, max(row.rates)) for row in proof.speeds}
    yield (
        "Every contestant: the median of its rounds, and the slowest to the fastest.",
        charts.ranges_chart(speeds, "reviews a second"),
    )
    if proof.qualities:
        points = {name: (usd, row.accuracy) for name, usd, row in _frontier(proof, cost)}
        yield (
            "Quality against cost, on the teacher's rows.",
            charts.places_chart(points, "US dollars a million reviews", "two-class accuracy, %"),
        )
    if proof.cascade:
        points_of = [(one.usd_million, 100 * one.accuracy.value) for one in proof.cascade]
        best = [p for p, one in zip(points_of, proof.cascade, strict=True) if one.best]
        yield (
            "The cascade over its threshold.",
            charts.curves_chart(
                {"cascade": points_of, "best": best},
                "US dollars a million reviews",
                "three-class accuracy, %",
                log="x",
            ),
        )
    yield from _scaling(proof)


def _scaling(proof: Proof) -> Iterator[tuple[str, str]]:
    axes: dict[str, list[Scaling]] = {}
    for point in proof.scaling:
        if not point.note:
            axes.setdefault(point.axis, []).append(point)
    for axis, points in axes.items():
        curves = {"measured": [(one.value, one.reviews_per_second) for one in points]}
        bound = [(one.value, one.bound) for one in points if one.bound is not None]
        if bound:
            curves["matrix rate over operations"] = bound
        title = f"Throughput over {axis}."
        yield title, charts.curves_chart(curves, axis, "reviews a second", log="xy")


def _frontier(proof: Proof, cost: Study) -> list[tuple[str, float, Quality]]:
    """Pair each model's quality on the teacher's rows with what it costs."""
    usd = {"teacher": cost.lines[0].usd_million, "student": cost.student_usd_million}
    for speed in proof.speeds:
        if speed.kind == "baseline":
            usd[speed.name] = cost.student_usd_million * fastest(proof).rate / speed.rate
    return [
        (row.name, usd[row.name], row)
        for row in proof.qualities
        if row.classes == 2 and row.dataset.startswith("teacher's") and row.name in usd
    ]
