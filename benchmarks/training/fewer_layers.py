"""What do half the layers cost, and what do they save? minilm-l3 beside the l6 it was cut from.

    python -m benchmarks.training.fewer_layers --whole bundles/reference-work/fine \
        --half bundles/l3 --on bundles/reference-work/mix/held-out.jsonl --data DIR

The bound of what is saved: half the layers are half the matrix products, so at most twice the rate;
tokenising, and what is done once a text, stays. Accuracy: both answer the same held-out rows, and
McNemar's test says whether the difference is more than chance. Rate: both in fp32 in the same
engine, the same texts in turns, medians. Writes `results/fewer_layers.json`.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks.record import RESULTS, surroundings, write_result
from benchmarks.reviews import read_reviews
from benchmarks.training.judged_bundle import evaluated
from sentimill.bundle.reader import open_bundle
from sentimill.classifier import Classifier

FIGURES: Final = ("accuracy", "macro_f1", "two_class_accuracy", "ece")


def main() -> None:
    """Measure, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--whole", type=Path, required=True, help="bundle with all layers")
    parser.add_argument("--half", type=Path, required=True, help="from --preset minilm-l3 on it")
    parser.add_argument("--on", type=Path, required=True, help="labelled rows, test split")
    parser.add_argument("--data", type=Path, required=True, help="folder of Parquet files")
    parser.add_argument("--texts", type=int, default=256, help="in a turn")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS / "fewer_layers.json")
    given = parser.parse_args()
    result = {
        "question": "minilm-l3 beside the l6 that it was cut from, both in fp32",
        "quality": quality(given),
        "training": open_bundle(given.half).manifest.training,
        **speed(given),
        **surroundings(),
    }
    print(write_result(given.out, result))  # noqa: T201 # the result of a program


def quality(given: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of both on the same rows, and the paired comparison."""
    bundles = ("--bundle", given.half, "--against", given.whole)
    judgement = evaluated(*bundles, "--on", given.on, "--precision", "fp32")
    ours, (rival,) = judgement["sets"][0], judgement["rivals"]
    theirs = rival["sets"][0]
    return {
        "rows": ours["rows"],
        "half": {name: ours["figures"][name] for name in FIGURES},
        "whole": {name: theirs["figures"][name] for name in FIGURES},
        "half_against_whole": theirs["comparison"],
    }


def speed(given: argparse.Namespace) -> dict[str, Any]:
    """Return reviews a second of both, and the median of the ratios of each turn."""
    texts = read_reviews(given.data, given.texts)
    both = {
        name: Classifier.load(folder, engine="onnx", precision="fp32", provider="cpu")
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
        "texts": len(texts),
        "texts_per_second": {name: median(each) for name, each in rates.items()},
        "times_as_fast": median(ratios),
        "times_as_fast_each": ratios,
    }


if __name__ == "__main__":
    main()
