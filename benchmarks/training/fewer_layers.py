"""What do half the layers lose and save? Compares minilm-l3 with the l6 that it was cut from.

    python -m benchmarks.training.fewer_layers --whole bundles/reference \
        --half bundles/reference-small --on bundles/reference-work/mix/held-out.jsonl --data DIR

The bound: half the layers have half the matrix products, so the rate can at most double; tokenising
and other work once a text stays. For accuracy, both models answer the same test rows, those of
`benchmarks.reference.figures` and the held-out ones, and McNemar's test says whether a difference
is more than chance. For the rate, both run in the precision that ships, in the same engine, on the
same texts, in turns; medians are reported. Writes `results/fewer_layers.json`; docs/results.md has
its table.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks.record import RESULTS, between, surroundings, write_result
from benchmarks.reference.figures import SETS
from benchmarks.reviews import read_reviews
from benchmarks.training.judged_bundle import evaluated
from sentimill.bundle.reader import open_bundle
from sentimill.classifier import Classifier
from sentimill_train.reporting.markdown import markdown_table

FIGURES: Final = ("accuracy", "macro_f1", "two_class_accuracy", "ece")


def main() -> None:
    """Measure, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--whole", type=Path, required=True, help="bundle with all layers")
    parser.add_argument("--half", type=Path, required=True, help="from --preset minilm-l3 on it")
    parser.add_argument("--on", type=Path, required=True, help="held-out rows, test split")
    parser.add_argument("--data", type=Path, required=True, help="folder of Parquet files")
    parser.add_argument("--most-rows", type=int, default=2000, help="of each set")
    parser.add_argument("--texts", type=int, default=256, help="in a turn")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS / "fewer_layers.json")
    given = parser.parse_args()
    result = {
        "question": "minilm-l3 beside the l6 that it was cut from, as they ship",
        "most_rows": given.most_rows,
        "sets": quality(given),
        "training": open_bundle(given.half).manifest.training,
        **speed(given),
        **surroundings(),
    }
    print(write_result(given.out, result))  # noqa: T201 # the result of a program


def quality(given: argparse.Namespace) -> list[dict[str, Any]]:
    """Return for each set the figures of both on the same rows, and the paired comparison."""
    files = [given.on, *(given.data / f"{name}.parquet" for name in SETS)]
    judgement = evaluated(
        *("--bundle", given.half, "--against", given.whole),
        *("--on", *files, "--most-rows", str(given.most_rows)),
    )
    (whole,) = judgement["rivals"]
    return [
        {
            "name": ours["name"],
            "rows": ours["rows"],
            "half": {name: ours["figures"][name] for name in FIGURES},
            "whole": {name: theirs["figures"][name] for name in FIGURES},
            "half_against_whole": theirs["comparison"],
        }
        for ours, theirs in zip(judgement["sets"], whole["sets"], strict=True)
    ]


def speed(given: argparse.Namespace) -> dict[str, Any]:
    """Return reviews a second of both, and the median of the ratios of each turn."""
    texts = read_reviews(given.data, given.texts)
    both = {
        name: Classifier.load(folder, provider="cpu")
        for name, folder in (("whole", given.whole), ("half", given.half))
    }
    rates: dict[str, list[float]] = {name: [] for name in both}
    for number in range(given.turns + 1):
        for name, classifier in both.items():
            began = time.perf_counter()
            classifier.classify(texts)
            if number:  # the first turn warms up
                rates[name].append(len(texts) / (time.perf_counter() - began))
    ratios = [half / whole for half, whole in zip(rates["half"], rates["whole"], strict=True)]
    return {
        "precision": {name: each.precision for name, each in both.items()},
        "texts": len(texts),
        "texts_per_second": {name: median(each) for name, each in rates.items()},
        "times_as_fast": median(ratios),
        "times_as_fast_each": ratios,
    }


def sentence(results: Path) -> str:
    """Return in words what the smaller model saves and loses, as the README says it."""
    found = json.loads((results / "fewer_layers.json").read_text(encoding="utf-8"))
    public = [one for one in found["sets"] if one["name"] in SETS]
    lost = [
        one["whole"]["two_class_accuracy"]["value"] - one["half"]["two_class_accuracy"]["value"]
        for one in public
    ]
    return (
        "`--bundle bundles/reference-small` is a model with half of the layers, made from the"
        " included one. On a CPU it answers"
        f" {found['times_as_fast']:.1f} times as many reviews a second. With two classes"
        f" its accuracy on the {len(public)} sets is {100 * sum(lost) / len(lost):.1f} points lower"
        f" on average, and {100 * max(lost):.1f} points at worst.\n"
    )


def fill(page: str, results: Path) -> str:
    """Return docs/results.md with the table of both models."""
    found = json.loads((results / "fewer_layers.json").read_text(encoding="utf-8"))
    heads = (
        *("test rows of", "rows", "two-class of the whole, %", "of the half, %"),
        *("macro-F1 of the whole, %", "of the half, %", "half less whole, accuracy in points"),
    )
    rows = []
    for one in found["sets"]:
        figures = [
            f"{100 * one[who][figure]['value']:.1f}"
            for figure in ("two_class_accuracy", "macro_f1")
            for who in ("whole", "half")
        ]
        value, low, high = (
            f"{100 * one['half_against_whole']['accuracy'][name]:+.1f}"
            for name in ("value", "low", "high")
        )
        rows.append((one["name"], f"{one['rows']:,}", *figures, f"{value} ({low} to {high})"))
    return between(page, "half", f"{sentence(results)}\n{markdown_table(heads, rows)}\n")


if __name__ == "__main__":
    main()
