"""How good is the reference student, on which sets, and does it beat plain models on its rows?

    python -m benchmarks.reference.figures --bundle bundles/reference --data DIR --work WORK

The bound: people agree with stars no better than the stars agree with their own words, so three
classes on reviews end well below one hundred (`frontier.py`). DIR holds one Parquet file a set;
only test splits are judged, of which `make reference` learnt no text and no sentence, and of a
large one a sample, by a hash of the text. WORK is what `make reference` leaves: the baselines are
fitted on the same rows. Some twenty minutes on two cores. Writes `results/reference.json`, with
CheckList's suite `results/checklist.md`, and with --readme what the bundle's own papers say into
the README.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Final

import msgspec

from benchmarks.record import RESULTS, between, surroundings, write_result
from benchmarks.training.judged_bundle import evaluated
from sentimill_train.evaluation.published_rates import PUBLISHED
from sentimill_train.evaluation.result import Rival
from sentimill_train.reporting.markdown import markdown_table

SETS: Final = (
    "yelp_kaggle10k",
    "amazon_blitzer30k",
    "sst5",
    "dynasent_r1",
    "imdb",
    "twitter_airline",
    "womens_clothing",
    "hotels_datafiniti",
)
FLOORS: Final = (
    ("sst5", "two_class_accuracy", 0.92),
    ("sst5", "macro_f1", 0.67),
    ("yelp_kaggle10k", "two_class_accuracy", 0.973),
    ("yelp_kaggle10k", "macro_f1", 0.745),
    ("amazon_blitzer30k", "two_class_accuracy", 0.95),
    ("imdb", "two_class_accuracy", 0.94),
    ("womens_clothing", "two_class_accuracy", 0.958),
    ("womens_clothing", "macro_f1", 0.68),
    ("hotels_datafiniti", "two_class_accuracy", 0.96),
    ("hotels_datafiniti", "macro_f1", 0.69),
    ("dynasent_r1", "two_class_accuracy", 0.745),
    ("dynasent_r1", "macro_f1", 0.67),
    ("twitter_airline", "two_class_accuracy", 0.90),
    ("twitter_airline", "macro_f1", 0.70),
)
"""What the second generation was to reach, set before it was trained."""

IN_DOMAIN_ECE: Final = 0.02
"""At most this, on the test rows of all sets that it learnt from, together: what the bundle's own
metrics.json says. Alone, a set with its own mix of labels comes out above it."""


def main() -> None:
    """Judge, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True, help="the reference student")
    parser.add_argument("--data", type=Path, required=True, help="folder of Parquet files")
    parser.add_argument("--work", type=Path, help="folder of `make reference`, for the baselines")
    parser.add_argument("--suite", type=Path, nargs="*", default=[], help="behavioural suites")
    parser.add_argument("--most-rows", type=int, default=2000, help="of each set")
    parser.add_argument("--out", type=Path, default=RESULTS / "reference.json")
    parser.add_argument("--readme", type=Path, help="README whose table to write anew")
    given = parser.parse_args()
    judgement = judge(given)
    result = {
        **surroundings(),
        "most_rows": given.most_rows,
        "floors": [reached(judgement, *floor) for floor in FLOORS],
        "in_domain_ece": calibrated(json.loads((given.bundle / "metrics.json").read_text())),
        "judgement": judgement,
    }
    write_result(given.out, result)
    if beside := checklist(judgement):
        given.out.with_name("checklist.md").write_text(beside, encoding="utf-8")
    sys.stdout.write(table(result))
    if given.readme:
        given.readme.write_text(fill(given.readme.read_text(encoding="utf-8"), given.bundle))


def fill(readme: str, bundle: Path, results: Path = RESULTS / "reference.json") -> str:
    """Return *readme* with what *bundle*'s papers and the *results* say, between its markers."""
    metrics = json.loads((bundle / "metrics.json").read_text())
    result = json.loads(results.read_text()) | {"in_domain_ece": calibrated(metrics)}
    return between(readme, "reference", f"{sentence(metrics)}\n{table(result)}")


def sentence(judgement: dict[str, Any]) -> str:
    """Return what `train` found on its test split, in words."""
    test = judgement["sets"][0]
    figures = {
        name: f"{100 * one['value']:.1f} % ({100 * one['low']:.1f} to {100 * one['high']:.1f})"
        for name, one in test["figures"].items()
    }
    failed = sum(one["failures"] for one in judgement["behaviour"])
    cases = sum(one["rate"]["rows"] for one in judgement["behaviour"])
    return (
        f"The reference student, in fp32, on {test['rows']:,} test rows (at most 250 of each set"
        " that it learnt from, the hard kinds kept back and starter reviews): accuracy"
        f" {figures['accuracy']}, macro-F1"
        f" {figures['macro_f1']}, two-class accuracy {figures['two_class_accuracy']},"
        f" with 95 % intervals. It fails {failed} of our"
        f" {cases} behaviour cases. What ships is int8 of it; its card says how near that comes.\n"
    )


def judge(given: argparse.Namespace) -> dict[str, Any]:
    """Return what `sentimill evaluate` finds."""
    options: list[str | Path] = ["--bundle", given.bundle, "--on"]
    options += [given.data / f"{name}.parquet" for name in SETS]
    options += ["--most-rows", str(given.most_rows)]
    if given.work:
        options += ["--baselines", given.work / "mix" / "assistant.jsonl"]
        options += ["--baselines", given.work / "mix" / "held-out.jsonl"]
    for suite in given.suite:
        options += ["--behaviour", suite]
    return without_their_texts(evaluated(*options))


def without_their_texts(judgement: dict[str, Any]) -> dict[str, Any]:
    """Return *judgement* without examples of the suites that are not ours to publish."""
    kept = [
        one if one["suite"] == "sentimill" else one | {"examples": []}
        for one in judgement["behaviour"]
    ]
    return judgement | {"behaviour": kept}


def reached(judgement: dict[str, Any], name: str, figure: str, floor: float) -> dict[str, Any]:
    """Return whether one floor was reached, with the figure."""
    found = next(one for one in judgement["sets"] if one["name"] == name)["figures"][figure]
    return {
        "set": name,
        "figure": figure,
        "floor": floor,
        "value": round(found["value"], 4),
        "reached": found["value"] >= floor,
    }


def calibrated(metrics: dict[str, Any]) -> dict[str, Any]:
    """Return the in-domain ECE with its interval, and the limit for it."""
    ece = metrics["sets"][0]["figures"]["ece"]
    return {**ece, "at_most": IN_DOMAIN_ECE, "reached": ece["value"] <= IN_DOMAIN_ECE}


def not_beaten(rivals: list[dict[str, Any]]) -> list[str]:
    """Return a line for each rival: the sets on which the student is not clearly better."""
    return [
        msgspec.convert(rival, Rival).sentence().replace("The bundle", "- the student", 1)
        for rival in rivals
    ]


def table(result: dict[str, Any]) -> str:
    """Return the figures as Markdown: a row for each set, then the floors, then behaviour."""
    judgement = result["judgement"]
    rivals = judgement["rivals"]
    head = ["test rows of", "rows", "two-class, %", "macro-F1, %", "accuracy, %", "ECE"]
    head += [f"two-class of {rival['name']}, %" for rival in rivals]
    lines = []
    for i, one in enumerate(judgement["sets"]):
        cells = [one["name"], f"{one['rows']:,}"]
        cells += [percent(one["figures"].get(n)) for n in ("two_class_accuracy", "macro_f1")]
        cells += [percent(one["figures"]["accuracy"]), f"{one['figures']['ece']['value']:.3f}"]
        cells += [
            percent(rival["sets"][i]["figures"].get("two_class_accuracy")) for rival in rivals
        ]
        lines.append(cells)
    said = markdown_table(head, lines)
    floors = "\n".join(
        f"- {f['set']}, {f['figure'].replace('_', ' ')}: {f['value']:.1%}, "
        f"{'reached' if f['reached'] else 'missed'} (floor {f['floor']:.1%})"
        for f in result["floors"]
    )
    ece = result["in_domain_ece"]
    floors += (
        f"\n- ECE in domain, all sets together: {ece['value']:.4f} ({ece['low']:.3f} to"
        f" {ece['high']:.3f}), {'reached' if ece['reached'] else 'missed'} (at most"
        f" {ece['at_most']})"
    )
    rest = "\n".join(not_beaten(rivals) + behaviour(judgement))
    return f"{said}\n\nWith 95 % intervals.\n\n{floors}\n\n{rest}\n"


def behaviour(judgement: dict[str, Any]) -> list[str]:
    """Return a line for each suite: how many of its cases fail."""
    lines = []
    for suite in dict.fromkeys(one["suite"] for one in judgement["behaviour"]):
        tests = [one for one in judgement["behaviour"] if one["suite"] == suite]
        failed, cases = sum(t["failures"] for t in tests), sum(t["rate"]["rows"] for t in tests)
        if cases:
            lines.append(f"- behaviour, {suite}: {failed:,} of {cases:,} cases fail")
    return lines


def checklist(judgement: dict[str, Any]) -> str:
    """Return a table of CheckList's tests with the rates of its paper; empty without any."""
    lines = [
        (
            one["test"],
            f"{one['rate']['rows']:,}",
            percent(one["rate"]),
            *map(str, PUBLISHED[one["test"]]),
        )
        for one in judgement["behaviour"]
        if one["test"] in PUBLISHED and one["rate"]["rows"]
    ]
    if not lines:
        return ""
    return (
        "Failures in per cent: of the reference student over so many cases, with 95 % intervals,"
        " and of BERT-base and\nRoBERTa-base fine-tuned on SST-2, over the whole suite, as Ribeiro"
        " et al. 2020 give them in table 1. Made by\n`benchmarks/reference/figures.py`.\n\n"
        + markdown_table(("test", "cases", "the reference student", "BERT", "RoBERTa"), lines)
        + "\n"
    )


def percent(figure: dict[str, Any] | None) -> str:
    """Return a figure with its interval, or a blank where the set has none."""
    if figure is None:
        return ""
    return f"{figure['value']:.1%} ({figure['low']:.1%} to {figure['high']:.1%})".replace("%", "")


if __name__ == "__main__":
    main()
