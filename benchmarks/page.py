"""One self-contained page from the runs' JSON: no network, no script, plots as inline SVG.

python benchmarks/page.py benchmarks/results/proof-cpu.json [proof-gpu.json] --readme README.md
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import jinja2
import plots
from markupsafe import Markup
from record import Proof, Quality, Scaling, read_proof
from sentimill_train.cost.plan import Plan
from sentimill_train.cost.rates import load_rates
from sentimill_train.cost.verdict import Study, choose, study
from tables import quality_table, ratio_table, readme_part, regenerate, speed_table

__all__ = ["cost_of", "main", "render"]

_TEMPLATE = Path(__file__).parent / "page.html.jinja"


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the page, and the README's part where a README is given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", help="JSON files of one run each")
    default = Path(__file__).parent / "results" / "proof.html"
    parser.add_argument("--out", type=Path, default=default, help="page to write")
    parser.add_argument("--readme", type=Path, help="README whose marked part is made anew")
    given = parser.parse_args(arguments)
    proofs = [read_proof(path) for path in given.runs]
    given.out.write_text(render(proofs), encoding="utf-8")
    if given.readme is not None:
        regenerate(given.readme, "proof", readme_part(proofs[0]))


def cost_of(proof: Proof) -> Study:
    """Cost the plan that `sentimill cost` shows, at this run's measured rate and price."""
    rates = load_rates()
    whole = [s for s in proof.speeds if s.kind == "student" and s.path in {"classify", "score"}]
    rate = max(speed.rate for speed in whole)
    plan = Plan(
        reviews_per_second=rate,
        usd_machine_hour=float(proof.settings["usd_hour"] or 0),
        utilisation=float(proof.settings["utilisation"] or 1),
    )
    notes = (f"model prices read {rates.checked}", f"{rate:.0f} reviews a second, measured")
    return study(plan, choose(rates, ()), 1e6, notes)


def render(proofs: Sequence[Proof]) -> str:
    """Return the page for some runs, the first of which is costed."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    cost = cost_of(proofs[0])
    return template.render(
        runs=[_run(proof, cost) for proof in proofs],
        cost=cost,
        cost_plot=Markup(plots.cost_lines(cost)),  # our own SVG, not text of a stranger
        tornado_plot=Markup(plots.tornado(cost)),
    )


def _run(proof: Proof, cost: Study) -> dict[str, object]:
    axes: dict[str, list[Scaling]] = {}
    for point in proof.scaling:
        axes.setdefault(point.axis, []).append(point)
    drawn = [points for points in axes.values() if len(points) > 1 and points[0].note == ""]
    told = [p for points in axes.values() if points not in drawn for p in points]
    return {
        "proof": proof,
        "tables": {
            "Student against large model": ratio_table(proof),
            "Every contestant": speed_table(proof),
            "Quality on held-out reviews": quality_table(proof),
        },
        "plots": [
            Markup(svg)
            for svg in (
                plots.ratios(proof.ratios),
                plots.speeds(proof.speeds),
                plots.frontier(_frontier(proof, cost)),
                plots.cascade(proof.cascade),
                *(plots.scaling(points) for points in drawn),
            )
        ],
        "on_paper": told,
    }


def _frontier(proof: Proof, cost: Study) -> list[tuple[str, float, Quality]]:
    """Pair each model's quality on the teacher's rows with what it costs."""
    usd = {"teacher (frontier)": cost.lines[0].usd_million, "student": cost.student_usd_million}
    student = next(speed for speed in proof.speeds if speed.kind == "student")
    for speed in proof.speeds:
        if speed.kind == "baseline":
            usd[speed.name] = cost.student_usd_million * student.rate / speed.rate
    return [
        (row.name, usd[row.name], row)
        for row in proof.qualities
        if row.classes == 2 and row.dataset == "teacher's rows" and row.name in usd
    ]


if __name__ == "__main__":
    main()
