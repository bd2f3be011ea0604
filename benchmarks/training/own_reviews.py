"""Which defaults learn a user's own reviews and forget the least of others?

    python -m benchmarks.training.own_reviews --data DIR [--own SET ...] [--rows N ...] [--seeds N]

DIR has one Parquet file a set, with the columns text, label and split. One set plays the user's own
reviews: N of its train rows, which `train` parts into train, validation and test by itself. Each
arm continues the reference student on them. Judged on: rows of the own set's test split, test rows
of five other sets, and the behaviour suite of the package. `base` is the reference student itself.

The arm `before` has the defaults of the first release (1.5e-4, ten times that for the head, dropout
of the base, no replay), `after` those of `train` today. A run that the result file has already is
not repeated, so a stopped benchmark continues.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.record import RESULTS, surroundings, write_result
from sentimill.bundle.reference import reference_bundle
from sentimill.text.tokenizer import TextEncoder
from sentimill_train.data.examples import read_examples, write_examples
from sentimill_train.data.schema import SENTIMENTS, Example
from sentimill_train.data.splits import sample_rows
from sentimill_train.data.tokenized import tokenise
from sentimill_train.evaluation.behaviour import OWN_SUITE, Case, judge_case, read_cases
from sentimill_train.evaluation.result import measured
from sentimill_train.metrics.classification import Answers
from sentimill_train.model.student import Student, load_student, predict
from sentimill_train.pipeline import Quiet, Train
from sentimill_train.pipeline.inputs import read_inputs
from sentimill_train.training.defaults import defaults_for
from sentimill_train.training.loop import FitConfig

OWN: Final = ("twitter_airline", "druglib", "dynasent_r1", "mcdonalds")
OTHERS: Final = (
    *("yelp_kaggle10k", "sst5", "womens_clothing", "hotels_datafiniti", "amazon_musical"),
    *("twitter_airline", "dynasent_r1"),
)
TEST_ROWS: Final = {"own": 500, "other": 200}
MAX_TOKENS: Final = 128
ARMS: Final = ("before", "after")


def main() -> None:
    """Run every arm that the result file lacks, and write it after each."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of Parquet files")
    parser.add_argument("--own", nargs="+", default=OWN, help="sets that play the own reviews")
    parser.add_argument("--rows", nargs="+", type=int, default=[300, 1000, 5000])
    parser.add_argument("--seeds", type=int, default=1, help="runs of each arm")
    parser.add_argument("--arms", nargs="+", default=ARMS)
    parser.add_argument("--base", help="bundle to continue; by default the reference student")
    parser.add_argument("--out", type=Path, default=RESULTS / "own-reviews.json")
    given = parser.parse_args()
    base = given.base or str(reference_bundle())
    runs: list[dict[str, Any]] = []
    if given.out.exists():
        runs = json.loads(given.out.read_text(encoding="utf-8"))["runs"]
    known = {(run["own"], run["rows"], run["seed"], run["arm"]) for run in runs}
    wanted = [(own, 0, 0, "base") for own in given.own]
    wanted += [
        (own, rows, seed, arm)
        for rows in given.rows
        for seed in range(given.seeds)
        for own in given.own
        for arm in given.arms
    ]
    for own, rows, seed, arm in wanted:
        if (own, rows, seed, arm) in known:
            continue
        student = load_student(Path(base))
        facts: dict[str, Any] = {}
        if arm != "base":
            student, facts = trained(given.data, base, own, rows, seed, arm)
        figures = judged(student, Path(base), given.data, own)
        runs.append({"own": own, "rows": rows, "seed": seed, "arm": arm, **facts, **figures})
        print(json.dumps(runs[-1]), flush=True)  # noqa: T201
        write_result(
            given.out,
            {"question": __doc__.partition("\n")[0], "base": base_name(base), "runs": runs}
            | {"table": table(runs), **surroundings()},
        )


def base_name(base: str) -> str:
    """Return name and version of the bundle, without the folder."""
    manifest = json.loads((Path(base) / "manifest.json").read_text(encoding="utf-8"))
    return f"{manifest['name']} {manifest['version']}"


def trained(
    data: Path, base: str, own: str, rows: int, seed: int, arm: str
) -> tuple[Student, dict[str, Any]]:
    """Return the student of one run, and what its training did."""
    with tempfile.TemporaryDirectory(prefix="own-reviews-") as folder:
        reviews = Path(folder) / "own.jsonl"
        found = [e for e in read(data, own) if e.split != "test"]
        chosen = np.random.default_rng(seed).permutation(len(found))[:rows]
        write_examples(reviews, [replace(found[i], split=None) for i in chosen])
        config = configured(arm, str(reviews), Path(folder) / "out", base, seed)
        student, fitted = config.fit_student(read_inputs(config, lambda stage: None), Quiet())
    facts = {
        "best_epoch": fitted.best_epoch,
        "share": fitted.interpolated_share,
        "seconds": round(fitted.seconds, 1),
    }
    return student, facts


def configured(arm: str, reviews: str, out: Path, base: str, seed: int) -> Train:
    """Return the training of *arm*, such as `after` or `after:learning_rate=1e-4,replay=0`."""
    name, _, changes = arm.partition(":")
    default = defaults_for(continues=True, lora=False)
    fit = FitConfig(
        epochs=default.epochs,
        learning_rate=default.learning_rate,
        head_factor=default.head_factor,
        seed=seed,
    )
    config = Train(
        reviews=(reviews,),
        out=out,
        base=base,
        max_tokens=MAX_TOKENS,
        dropout=default.dropout,
        fit=fit,
    )
    if name == "before":
        fit = FitConfig(epochs=3, learning_rate=1.5e-4, head_factor=10.0, seed=seed)
        config = replace(config, fit=fit, replay=False, dropout=None)
    for change in filter(None, changes.split(",")):
        option, _, value = change.partition("=")
        match option:
            case "replay":
                config = replace(config, replay=value != "0")
            case "interpolate":
                config = replace(config, interpolate=value != "0")
            case "dropout":
                config = replace(config, dropout=float(value))
            case "epochs":
                config = replace(config, fit=replace(config.fit, epochs=int(value)))
            case "learning_rate":
                config = replace(config, fit=replace(config.fit, learning_rate=float(value)))
            case _:
                raise SystemExit(f"unknown option {option} of an arm")
    return config


@cache
def read(data: Path, name: str) -> list[Example]:
    """Return the labelled rows of a set."""
    return [e for e in read_examples(str(data / f"{name}.parquet")) if e.label is not None]


def judged(student: Student, base: Path, data: Path, own: str) -> dict[str, Any]:
    """Return the figures on the own test rows, on others, and on behaviour, in percent."""
    encoder = TextEncoder.from_bytes(
        (base / "tokenizer.json").read_bytes(), max_tokens=MAX_TOKENS, truncation="head-tail"
    )
    others = [name for name in OTHERS if name != own][:5]
    found: dict[str, Any] = {"own_figures": figures(student, encoder, sample(data, own, "own"))}
    found["others"] = {
        name: figures(student, encoder, sample(data, name, "other")) for name in others
    }
    found["behaviour_failed"] = behaviour(student, encoder, read_cases(OWN_SUITE))
    return found


@cache
def sample(data: Path, name: str, kind: str) -> list[Example]:
    """Return test rows, see `sample_rows`."""
    return sample_rows([e for e in read(data, name) if e.split == "test"], TEST_ROWS[kind])


def figures(student: Student, encoder: TextEncoder, rows: Sequence[Example]) -> dict[str, float]:
    """Return accuracy, macro-F1 and two-class accuracy, in percent."""
    read_rows, _ = tokenise(rows, encoder, SENTIMENTS)
    logits = predict(student, read_rows).astype(np.float64)
    probs = np.exp(logits - logits.max(1, keepdims=True))
    probs /= probs.sum(1, keepdims=True)
    found = measured(Answers(SENTIMENTS, read_rows.gold, probs))
    names = ("accuracy", "macro_f1", "two_class_accuracy")
    return {name: round(100 * found[name], 2) for name in names}


def behaviour(student: Student, encoder: TextEncoder, cases: Sequence[Case]) -> int:
    """Return how many cases fail."""
    texts = [text for case in cases for text in case.texts]
    rows, refused = tokenise(
        [Example(id="x", text=text, source="x") for text in texts], encoder, SENTIMENTS
    )
    assert not refused
    logits = predict(student, rows).astype(np.float64)
    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    failed = start = 0
    for case in cases:
        failed += bool(judge_case(case, probs[start : start + len(case.texts)], SENTIMENTS))
        start += len(case.texts)
    return failed


def table(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the means over own sets and seeds, a line for each number of rows and arm."""
    lines = []
    for rows, arm in dict.fromkeys((run["rows"], run["arm"]) for run in runs):
        found = [run for run in runs if (run["rows"], run["arm"]) == (rows, arm)]
        lines.append(
            {
                "rows": rows,
                "arm": arm,
                "runs": len(found),
                "own_accuracy": mean([run["own_figures"]["accuracy"] for run in found]),
                "own_macro_f1": mean([run["own_figures"]["macro_f1"] for run in found]),
                "others_accuracy": mean(
                    [o["accuracy"] for run in found for o in run["others"].values()]
                ),
                "others_two_class": mean(
                    [o["two_class_accuracy"] for run in found for o in run["others"].values()]
                ),
                "behaviour_failed": mean([run["behaviour_failed"] for run in found]),
            }
        )
    return lines


def mean(values: Sequence[float]) -> float:
    """Return the mean with two decimals."""
    return round(float(np.mean(values)), 2)


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
