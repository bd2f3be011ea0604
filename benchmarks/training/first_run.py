"""How good are a new user's first models? The demo's, and one trained on 6,000 real reviews.

    python -m benchmarks.training.first_run --data DIR --demo bundles/demo --out first-run.json

DIR holds one Parquet file a set with the columns text, label, stars, domain and split. Everything
runs through the command line, as a user would run it. The models are judged only on test splits,
which neither training nor tuning has seen. Absolute times are from one machine on one day.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import random
import re
import subprocess
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import pyarrow.parquet as pq
from sklearn.metrics import f1_score

from benchmarks.record import between, cpu_name
from benchmarks.training.judged_bundle import SENTIMILL
from sentimill_train.packaging.source_commit import commit_of
from sentimill_train.reporting.markdown import markdown_table

SETS: Final = (
    "amazon_devices",
    "amazon_finefood5k",
    "amazon_musical",
    "hotels_datafiniti",
    "hotels_tripadvisor5k",
    "mcdonalds",
    "womens_clothing",
    "yelp_kaggle10k",
)
"""Where the 6,000 training rows come from, in equal parts: eight sets, five kinds of business."""

LABELS: Final = ("negative", "neutral", "positive")

Row = dict[str, str]


def main() -> None:
    """Train, score, judge, and write one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of Parquet files")
    parser.add_argument("--demo", type=Path, required=True, help="the bundle that make demo left")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument(
        "--rows",
        type=int,
        default=6000,
        help="training rows; 0 judges the demo alone, and keeps what --out has of the other",
    )
    parser.add_argument("--epochs", type=int, default=2, help="epochs of that training")
    parser.add_argument("--seed", type=int, default=0, help="draws the rows")
    parser.add_argument("--readme", type=Path, help="README whose table to write anew")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        yelp = rows_of(given.data, "yelp_kaggle10k", "test")
        imdb = rows_of(given.data, "imdb", "test")
        random.Random(given.seed).shuffle(imdb)
        demo = {
            "starter_test": own_test(given.demo),
            "yelp_kaggle10k": judge(work, yelp, given.demo),
            "imdb_1000": judge(work, imdb[:1000], given.demo),
        }
        if given.rows:
            settings = {name: vars(given)[name] for name in ("rows", "epochs", "seed")}
            other = {
                **train_and_judge(work, given, yelp, imdb[:1000]),
                "settings": {**settings, "sets": SETS},
            }
        else:
            other = json.loads(given.out.read_text())["real_reviews"]
    found = {
        "question": "What does a newcomer get?",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit_of(Path(__file__)),
        "machine": {"processor": cpu_name(), "cores": len(os.sched_getaffinity(0))},
        "python": platform.python_version(),
        "demo": demo,
        "real_reviews": other,
    }
    given.out.write_text(json.dumps(found, indent=2) + "\n")
    if given.readme:
        given.readme.write_text(fill(given.readme.read_text(encoding="utf-8"), given.out))


def train_and_judge(
    work: Path, given: argparse.Namespace, yelp: list[Row], imdb: list[Row]
) -> dict[str, Any]:
    """Train on a sample of real reviews through the command line, and judge the bundle.

    Without moving back to the reference student: how far do these rows alone take it?
    """
    reviews = work / "reviews.jsonl"
    write_reviews(reviews, given.data, given.rows, given.seed)
    epochs = ("--epochs", str(given.epochs))
    out = ("--out", str(work / "mine"))
    run = sentimill("train", "--reviews", str(reviews), *out, *epochs, "--no-interpolate")
    return {
        "commit": commit_of(Path(__file__)),
        "train_seconds": run.seconds,
        "train_peak_mib": run.peak_mib,
        "own_test": own_test(work / "mine"),
        "yelp_kaggle10k": judge(work, yelp, work / "mine"),
        "imdb_1000": judge(work, imdb, work / "mine"),
    }


def own_test(bundle: Path) -> dict[str, Any]:
    """Return the figures of a bundle on its own test split, from its metrics.json."""
    judged = json.loads((bundle / "metrics.json").read_text())["sets"][0]
    polar = sum(label["rows"] for label in judged["labels"] if label["label"] != "neutral")
    figures = {name: figure["value"] for name, figure in judged["figures"].items()}
    return {"test": {"rows": judged["rows"], "two_class_rows": polar, **figures}}


def fill(readme: str, results: Path) -> str:
    """Return *readme* with the table of *results* between its markers."""
    return between(readme, "first-run", table(json.loads(results.read_text())))


def table(found: dict[str, Any]) -> str:
    """Return the figures as a Markdown table, and how they came about."""
    demo, real = found["demo"], found["real_reviews"]
    settings = real["settings"]
    starter = demo["starter_test"]["test"]
    rows = [_cells("starter reviews, test split", "`make demo`", starter)]
    models = [("`make demo`", demo), (f"{settings['rows']:,} real reviews", real)]
    for key, name in (("yelp_kaggle10k", "Yelp, test split"), ("imdb_1000", "IMDB, test, 1,000")):
        rows += [_cells(name, model, part[key]) for model, part in models]
    yelp = models[-1][1]["yelp_kaggle10k"]
    trained = (
        f" The second model is `sentimill train --no-interpolate` on {settings['rows']:,} balanced"
        f" rows of the train splits of {len(settings['sets'])} public review sets,"
        f" {settings['epochs']} epochs, {real['train_seconds']:.0f} s."
    )
    heads = ("judged on", "model", "rows", "accuracy", "macro-F1", "two-class accuracy")
    lines = [markdown_table(heads, rows), ""]
    lines.append(
        f"`sentimill score` did the {yelp['rows']:,} Yelp rows at {yelp['rows_per_second']:.0f}"
        f" rows a second with {yelp['peak_mib']:.0f} MiB at the peak, in fp32 on"
        f" {found['machine']['cores']} shared cores of an {found['machine']['processor']}: a time"
        f" of that day.{trained} A label of three stars counts as neutral, and people who read"
        " such a review often would not say so. Every figure is in"
        " `benchmarks/results/first-run.json`."
    )
    return "\n".join(lines) + "\n"


def _cells(judged_on: str, model: str, figures: dict[str, float]) -> tuple[str, ...]:
    # IMDB has no neutral reviews: three-class figures would count how often one is called neutral.
    three = figures["rows"] != figures["two_class_rows"]
    accuracy = f"{figures['accuracy']:.3f}" if three else ""
    macro_f1 = f"{figures['macro_f1']:.3f}" if three else ""
    two_class = f"{figures['two_class_accuracy']:.3f}"
    return judged_on, model, f"{figures['rows']:,}", accuracy, macro_f1, two_class


def rows_of(data: Path, name: str, split: str) -> list[Row]:
    """Return a set's rows of one split as text, label, domain."""
    columns = ["text", "label", "split"]
    table = pq.read_table(data / f"{name}.parquet", columns=columns).to_pylist()
    return [
        {"text": row["text"], "label": row["label"], "domain": name}
        for row in table
        if row["split"] == split
    ]


def write_reviews(path: Path, data: Path, rows: int, seed: int) -> None:
    """Write a balanced sample of the train splits, and smaller ones of validation and test."""
    draw = random.Random(seed)
    parts = {"train": rows, "validation": rows // 6, "test": rows // 6}
    with path.open("w", encoding="utf-8") as out:
        for split, count in parts.items():
            chosen: list[Row] = []
            for name in SETS:
                found = rows_of(data, name, split)
                draw.shuffle(found)
                for label in LABELS:
                    of_label = [row for row in found if row["label"] == label]
                    chosen += of_label[: round(count / len(SETS) / len(LABELS))]
            draw.shuffle(chosen)
            for row in chosen:
                out.write(json.dumps({**row, "split": split}, ensure_ascii=False) + "\n")


def judge(work: Path, rows: list[Row], bundle: Path) -> dict[str, float]:
    """Score *rows* with `sentimill score` and compare with their labels."""
    source, target = work / "rows.csv", work / "scored.csv"
    with source.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["text", "label", "domain"])
        writer.writeheader()
        writer.writerows(rows)
    run = sentimill("score", str(source), str(target), "--bundle", str(bundle), "--overwrite")
    # The job says how long it took without start-up and loading.
    job_seconds = float(re.findall(r"rows in ([0-9.]+) s", run.stderr)[0])
    csv.field_size_limit(1 << 24)
    with target.open(encoding="utf-8", newline="") as file:
        scored = list(csv.DictReader(file))
    gold = [row["label"] for row in rows]
    got = [row["sentiment_label"] for row in scored]
    polar = [(g, float(s["sentiment_score"]) > 0) for g, s in zip(gold, scored, strict=True)]
    two = [(g == "positive") == up for g, up in polar if g != "neutral"]
    present = [label for label in LABELS if label in gold]
    return {
        "rows": len(rows),
        "accuracy": sum(g == p for g, p in zip(gold, got, strict=True)) / len(rows),
        "macro_f1": float(f1_score(gold, got, labels=present, average="macro")),
        "two_class_rows": len(two),
        "two_class_accuracy": sum(two) / len(two),
        "job_seconds": job_seconds,
        "rows_per_second": len(rows) / job_seconds,
        "seconds_with_start": run.seconds,
        "peak_mib": run.peak_mib,
    }


class Run(NamedTuple):
    """A finished command: its messages, wall time and largest resident set."""

    stderr: str
    seconds: float
    peak_mib: float


def sentimill(*arguments: str) -> Run:
    """Run the command line as a user would."""
    began = time.monotonic()
    process = subprocess.Popen([str(SENTIMILL), *arguments], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    messages = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"sentimill {arguments[0]} failed:\n{messages}")
    return Run(messages, time.monotonic() - began, usage.ru_maxrss / 1024)


if __name__ == "__main__":
    main()
