"""Write every generated figure of README.md and docs/ from the committed results.

    python -m benchmarks.figures            (or: make figures)

Nothing is measured here. The figures come from `benchmarks/results/` and `bundles/reference`, and
`tests/docs/test_figures.py` compares the pages with them, so every figure on a page is in a file.
Run it after a benchmark has written its JSON and after the reference model was replaced.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

from benchmarks.proof import readme_tables as proof_pages
from benchmarks.proof.page import cost_of, fastest
from benchmarks.proof.record import Proof, read_proof
from benchmarks.proof.tables import Table
from benchmarks.record import RESULTS, ROOT, between
from benchmarks.reference import figures as reference_figures
from benchmarks.scoring import tables as scoring_tables
from benchmarks.serving import tables as serving_tables
from benchmarks.training import fewer_layers, first_run
from sentimill.classifier import Classifier
from sentimill.cli.classify import Table as AnswerTable
from sentimill_train.reporting.markdown import markdown_table

__all__ = ["PROOFS", "architecture", "first_answer", "main", "readme", "results_page"]

PROOFS: Final = (RESULTS / "proof-cpu.json", RESULTS / "proof-gpu.json")
_BUNDLE: Final = ROOT / "bundles/reference"
_TEXTS: Final = ("The battery died in a week.", "It is a kettle.", "Works as promised.")
"""The texts of the README's first answer."""

_NAMES: Final = {
    "yelp_kaggle10k": "Yelp, businesses",
    "amazon_blitzer30k": "Amazon, four kinds of product",
    "imdb": "IMDB, films",
    "hotels_datafiniti": "hotels",
    "womens_clothing": "women's clothing",
    "sst5": "SST-5, one sentence of a film review",
    "twitter_airline": "tweets to airlines",
    "dynasent_r1": "DynaSent, chosen to be hard",
}
"""Review sets in plain words, in the order of the README."""


def main() -> None:
    """Write them all."""
    # The page of the proof, the guide to choosing and the rate that `sentimill cost` takes.
    proof_pages.main([str(path) for path in PROOFS if path.exists()])
    serving_tables.main()
    _rewrite(ROOT / "docs/results.md", results_page)
    _rewrite(ROOT / "README.md", readme)
    _rewrite(ROOT / "docs/architecture.md", architecture)


def _rewrite(path: Path, change: Callable[[str], str]) -> None:
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")


def results_page(page: str) -> str:
    """Return docs/results.md with its tables, except those of the proof, which `main` writes."""
    page = reference_figures.fill(page, _BUNDLE)
    page = scoring_tables.fill(page, RESULTS)
    page = fewer_layers.fill(page, RESULTS)
    return first_run.fill(page, RESULTS / "first-run.json")


def readme(page: str) -> str:
    """Return the README with its summary and its two tables."""
    sets = _sets()
    cpu, *others = [read_proof(path) for path in PROOFS if path.exists()]
    page = between(page, "first-answer", f"```\n{first_answer()}```\n")
    page = between(page, "summary", _summary(sets, cpu, others))
    page = between(page, "quality", f"{markdown_table(*_quality(sets))}\n")
    speed = f"{markdown_table(*_speed(cpu, others))}\n\n{fewer_layers.sentence(RESULTS)}"
    return between(page, "speed", speed)


def first_answer() -> str:
    """Return what `sentimill classify` prints for the README's texts in a terminal."""
    answers = Classifier.load(_BUNDLE).classify(_TEXTS)
    return "".join(f"{line}\n" for line in AnswerTable().lines(_TEXTS, answers))


def architecture(page: str) -> str:
    """Return docs/architecture.md with a line for each package: what its docstring says first."""
    rows: list[tuple[str, ...]] = []
    for half in (ROOT / "serve/sentimill", ROOT / "train/sentimill_train"):
        for file in sorted(half.rglob("__init__.py")):
            first = (ast.get_docstring(ast.parse(file.read_bytes())) or "").splitlines()
            folder = file.parent.relative_to(half.parent)
            rows.append((f"`{folder}`", first[0] if first else "Generated from `protos/`."))
    return between(page, "packages", f"{markdown_table(('package', 'what it has'), rows)}\n")


def _sets() -> list[dict[str, Any]]:
    """Return the judged sets, the best known first, each with its TF-IDF baseline's figures."""
    judgement = json.loads((RESULTS / "reference.json").read_text(encoding="utf-8"))["judgement"]
    plain = next(each for each in judgement["rivals"] if each["name"] == "TF-IDF")
    order = [*_NAMES, *(each["name"] for each in judgement["sets"])]
    found = [
        one | {"plain": of_plain["figures"]}
        for one, of_plain in zip(judgement["sets"], plain["sets"], strict=True)
    ]
    return sorted(found, key=lambda one: order.index(one["name"]))


def _three_classes(one: dict[str, Any]) -> bool:
    return any(label["label"] == "neutral" and label["rows"] for label in one["labels"])


def _percent(figure: dict[str, Any]) -> str:
    return f"{100 * figure['value']:.1f}"


def _summary(sets: Sequence[dict[str, Any]], cpu: Proof, others: Sequence[Proof]) -> str:
    """Return three lines: how good, how fast, how cheap."""
    best = fastest(cpu)
    fast = f"{best.rate:,.0f} reviews a second on {cpu.machine.name}"
    for proof in others:
        served = max((row for row in proof.speeds if row.path == "grpc"), key=lambda row: row.rate)
        processes = served.name.rpartition(", ")[2]
        fast += (
            f"; {served.rate:,.0f} from a server of {processes} with one {proof.machine.name},"
            " in half precision (fp16)"
        )
    cost = cost_of(cpu)
    online = [line for line in cost.lines if not line.batch]
    dearest = max(online, key=lambda line: line.usd_million)
    cheapest = min(online, key=lambda line: line.usd_million)
    return (
        f"- **How good:** without the neutral reviews it labels"
        f" {_told(sets, 'two_class_accuracy')} test reviews right, and"
        f" {_least(sets, 'two_class_accuracy')} of the hardest set; with neutral as a"
        f" third class {_told(filter(_three_classes, sets), 'accuracy')} ([all {len(sets)} sets]"
        f"(#results)).\n"
        f"- **How fast:** {fast} ([how measured](docs/results.md)).\n"
        f"- **How cheap:** ${cost.student_usd_million:.2f} of machine time for a million reviews;"
        f" large models take ${cheapest.usd_million:,.0f} to ${dearest.usd_million:,.0f}"
        f" ([assumptions](docs/when-to-use.md)).\n"
    )


def _least(sets: Iterable[dict[str, Any]], figure: str) -> str:
    """Return the smallest value of a figure over all sets, in percent."""
    return f"{100 * min(one['figures'][figure]['value'] for one in sets):.0f} %"


def _told(sets: Iterable[dict[str, Any]], figure: str) -> str:
    """Return a figure of the three best known sets, in words."""
    first, *others = [
        f"{100 * one['figures'][figure]['value']:.0f} % of {_name(one).partition(',')[0]}"
        for one in islice(sets, 3)
    ]
    return " and ".join([", ".join([first, *others[:-1]]), others[-1]])


def _name(one: dict[str, Any]) -> str:
    name: str = one["name"]
    return _NAMES.get(name, name)


def _quality(sets: Sequence[dict[str, Any]]) -> Table:
    """Return a row for each set: accuracy with two and three classes, next to TF-IDF."""
    heads = (
        "test reviews of", "rows", "two classes, %", "TF-IDF, %", "three classes, %", "TF-IDF, %",
    )  # fmt: skip
    rows: list[tuple[str, ...]] = []
    for one in sets:
        three = _three_classes(one)
        rows.append(
            (
                _name(one),
                f"{one['rows']:,}",
                _percent(one["figures"]["two_class_accuracy"]),
                _percent(one["plain"]["two_class_accuracy"]),
                _percent(one["figures"]["accuracy"]) if three else "",
                _percent(one["plain"]["accuracy"]) if three else "",
            )
        )
    return heads, rows


def _speed(cpu: Proof, others: Sequence[Proof]) -> Table:
    """Return a row for each way to answer: where, how many a second, what a million cost."""
    cost = cost_of(cpu)
    rows: list[tuple[str, ...]] = []
    for name, what in (
        ("Classifier", "in a Python program"),
        ("gRPC", "`sentimill serve`"),
        ("sentimill score", "`sentimill score`, start included"),
    ):
        speed = next((row for row in cpu.speeds if row.name == name), None)
        if speed is not None:
            usd = f"{cost.student_usd_million:.2f}" if speed is fastest(cpu) else ""
            rows.append((f"{what}, {cpu.machine.name}", f"{speed.rate:,.0f}", usd))
    for proof in others:
        speed = max((row for row in proof.speeds if row.path == "grpc"), key=lambda row: row.rate)
        rows.append((f"`sentimill serve`, one {proof.machine.name}", f"{speed.rate:,.0f}", ""))
    costs = [line for line in cost.lines if not line.batch]
    for line in sorted(costs, key=lambda each: -each.usd_million):
        rows.append((f"{line.model}, at its price", "", f"{line.usd_million:,.2f}"))
    return ("who answers", "reviews/s", "$ a million reviews"), rows


if __name__ == "__main__":
    main()
