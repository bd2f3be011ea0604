"""What does curation gain? Models on 250 to all rows of a messy pool, raw and curated.

    python -m benchmarks.training.curation --data DIR [--rows N]

The pool has labelled rows of three sets that the reference student never learnt, made messy on
purpose: a tenth of it are repeats (half of them with two words changed) and copies of test rows,
and 0, 10 or 30 % of its labels are replaced by another. There are three arms: `raw` draws n rows at
random; `curated` draws n of the rows that `curate` leaves; `errors dropped` also drops the labels
that `curate` takes for wrong (`--drop-label-errors`). All are judged on clean test rows.

The model is a logistic regression on the embeddings of the reference student, each text embedded
once: 108 trainings of the whole encoder would take hours, and the question is about the rows. Its
ridge is the one of `RIDGES` with the least loss on clean validation rows.

The bound: 6,000 texts of 40 tokens to embed take four minutes at the 1,000 tokens a second of one
slow core. 108 fits and 72 runs of `curate` take seconds each.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.record import RESULTS
from benchmarks.runs import resumed, spread_of
from benchmarks.training.curation_table import write_table
from benchmarks.training.own_reviews import parted
from sentimill.bundle.reference import reference_bundle
from sentimill.classifier import Classifier
from sentimill_train.curation.label_errors import Embed
from sentimill_train.curation.pipeline import CurateJob, curate_rows
from sentimill_train.data.examples import read_examples, write_examples
from sentimill_train.data.schema import SENTIMENTS, Example
from sentimill_train.data.splits import sample_rows
from sentimill_train.metrics.classification import macro_f1_of
from sentimill_train.monitoring.observations import embeddings

SIZES: Final = (250, 500, 1000, None)
NOISE: Final = (0.0, 0.1, 0.3)
SEEDS: Final = (0, 1, 2)
ARMS: Final = ("raw", "curated", "errors dropped")
REPEATS: Final = 0.1
SETS: Final = ("twitter_airline", "dynasent_r1", "yelp_augpe")
TEST_ROWS_A_SET: Final = 300
VALIDATION_SHARE: Final = 0.1
RIDGES: Final = (0.001, 0.01, 0.1)


def main() -> None:
    """Fill the table, run by run, and draw it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of Parquet files")
    parser.add_argument("--rows", type=int, default=6000, help="rows of the clean pool")
    parser.add_argument("--out", type=Path, default=RESULTS / "curation.json")
    options = parser.parse_args()
    parts = [parted(options.data, name) for name in SETS]
    clean = [e for rows, _ in parts for e in sample_rows(rows, options.rows // len(SETS))]
    test = [e for _, rows in parts for e in sample_rows(rows, TEST_ROWS_A_SET)]
    random.Random(0).shuffle(clean)
    cut = round(VALIDATION_SHARE * len(clean))
    validation = [replace(row, split="validation") for row in clean[:cut]]
    pool = clean[cut:]
    held_out = [*validation, *(replace(row, split="test") for row in test)]
    settings = {
        "sets": list(SETS),
        "pool_rows": len(pool),
        "repeats": REPEATS,
        "noise": list(NOISE),
        "validation_rows": len(validation),
        "test_rows": len(test),
        "ridges": list(RIDGES),
    }
    state = resumed(options.out, settings)
    embed = embedder(reference_bundle())
    todo = [
        (seed, noise, size, arm)  # seeds outermost: a stopped run still has every arm
        for seed in SEEDS
        for noise in NOISE
        for size in SIZES
        for arm in ARMS
        if f"{arm} {size or 'all'} noise {noise} seed {seed}" not in state["runs"]
    ]
    with tempfile.TemporaryDirectory() as work:
        for seed, noise, size, arm in todo:
            started = time.monotonic()
            rows = messy(pool, test, noise, seed)
            train = chosen(arm, rows, size, seed, held_out, Path(work), embed)
            run: dict[str, Any] = {"rows": len(train), **fitted(train, validation, test, embed)}
            run |= {"arm": arm, "size": size, "noise": noise, "seed": seed}
            run["seconds"] = round(time.monotonic() - started, 1)
            name = f"{arm} {size or 'all'} noise {noise} seed {seed}"
            state["runs"][name] = run
            state["table"] = summary(state["runs"])
            options.out.write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")
            print(name, run, flush=True)  # noqa: T201 # progress of a program
    write_table(options.out.with_suffix(".md"), state)


def fitted(
    train: Sequence[Example], validation: Sequence[Example], test: Sequence[Example], embed: Embed
) -> dict[str, float]:
    """Return the figures on *test* of the regression whose ridge is best on *validation*."""
    inputs, labels = [], []
    for examples in (train, validation, test):
        inputs.append(embed([e.text for e in examples]))
        labels.append(np.array([SENTIMENTS.index(str(e.label)) for e in examples]))
    models = {}
    for ridge in RIDGES:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=ridge, max_iter=300))
        model.fit(inputs[0], labels[0])
        models[log_loss(labels[1], model.predict_proba(inputs[1]))] = model
    answers = models[min(models)].predict(inputs[2])
    return {
        "accuracy": float((answers == labels[2]).mean()),
        "macro_f1": macro_f1_of(answers, labels[2]),
    }


def messy(
    pool: Sequence[Example], test: Sequence[Example], noise: float, seed: int
) -> list[Example]:
    """Return the pool with repeats, leaks and wrong labels, in random order."""
    draw = random.Random(seed)
    extra = round(REPEATS * len(pool))
    found = [*pool, *draw.sample(list(pool), extra * 3 // 4), *draw.sample(list(test), extra // 4)]
    for i in range(len(pool), len(found), 2):
        words = found[i].text.split()
        for _ in range(2):
            words[draw.randrange(len(words))] = draw.choice(words)
        found[i] = replace(found[i], text=" ".join(words))
    for i in draw.sample(range(len(found)), round(noise * len(found))):
        others = [label for label in SENTIMENTS if label != found[i].label]
        found[i] = replace(found[i], label=draw.choice(others))
    draw.shuffle(found)
    return [replace(row, id=f"m{i}", split="train") for i, row in enumerate(found)]


def chosen(
    arm: str,
    pool: list[Example],
    size: int | None,
    seed: int,
    held_out: Sequence[Example],
    folder: Path,
    embed: Embed,
) -> list[Example]:
    """Return the training rows of a run."""
    if arm == "raw":
        return random.Random(seed).sample(pool, min(size or len(pool), len(pool)))
    source, out = folder / "pool.jsonl", folder / "chosen.jsonl"
    write_examples(source, [*held_out, *pool])
    drop = arm == "errors dropped"
    job = CurateJob(source=str(source), out=out, drop_label_errors=drop, keep=size, seed=seed)
    curate_rows(job, embed if drop else None)
    return [row for row in read_examples(str(out)) if row.split == "train"]


def summary(runs: dict[str, Any]) -> list[dict[str, Any]]:
    """Return mean and spread over seeds, and the gain over raw rows seed by seed."""
    table = []
    for noise in NOISE:
        for size in SIZES:
            of = {
                arm: {
                    run["seed"]: run
                    for run in runs.values()
                    if (run["noise"], run["size"], run["arm"]) == (noise, size, arm)
                }
                for arm in ARMS
            }
            for arm, found in of.items():
                if not found:
                    continue
                line: dict[str, Any] = {"noise": noise, "size": size, "arm": arm}
                line["runs"] = len(found)
                line["rows"] = round(statistics.mean(run["rows"] for run in found.values()))
                line |= spread_of(list(found.values()), ("accuracy", "macro_f1"))
                if arm != "raw":
                    line["gain_by_seed"] = [
                        run["accuracy"] - of["raw"][seed]["accuracy"]
                        for seed, run in sorted(found.items())
                        if seed in of["raw"]
                    ]
                table.append(line)
    return table


def embedder(bundle: Path) -> Embed:
    """Return the embeddings of a bundle, each text computed once."""
    classifier = Classifier.load(bundle)
    known: dict[str, Any] = {}

    def embed(texts: Sequence[str]) -> Any:
        new = [text for text in dict.fromkeys(texts) if text not in known]
        if new:
            found = embeddings(classifier, new)
            assert found is not None
            known.update(zip(new, found, strict=True))
        return np.array([known[text] for text in texts])

    return embed


if __name__ == "__main__":
    main()
