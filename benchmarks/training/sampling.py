"""Does `sentimill sample` beat chance? From Amazon reviews to tweets about airlines, 500 labels.

    python -m benchmarks.training.sampling --data DIR --work FOLDER --out results/sampling.json

A student is trained on Amazon reviews and then has to answer tweets about airlines. `--pool` rows
of the tweets' train split serve as recent texts without a label. Either `sample` or chance picks
from them. The picked rows get their labels, the student continues on them alone, and its accuracy
on the tweets' test split is measured. 250 rows are the first half of the same 500. Seeds decide
what chance picks and the order of training; bundle, pool, settings and test rows are the same in
every run. Only the labels of picked rows are used: the best epoch is chosen on the rows that the
student trains on.

The figures in results/ are from an earlier rule, which weighed diversity as well as uncertainty.

The bound: 12 runs of 250 or 500 tweets of 30 tokens, 6 times forward and backward, are 0.8 million
tokens; the first bundle, 2,700 reviews of up to 64 tokens twice, 0.3 million. At the 1,300 tokens a
second of two slow cores these take 14 minutes, and the answers about four. Runs that the result
file already has are not repeated.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.parquet as pq
from tokenizers import Tokenizer

from benchmarks.runs import resumed, spread_of
from benchmarks.training.sampling_table import write_table
from sentimill.classifier import Classifier
from sentimill_train.data.examples import write_examples
from sentimill_train.data.schema import SENTIMENTS, Example
from sentimill_train.data.tokenized import Rows, tokenise
from sentimill_train.evaluation.training_evaluation import EvaluationConfig
from sentimill_train.metrics.classification import macro_f1_of
from sentimill_train.model.pretrained import find_pretrained
from sentimill_train.model.student import Student, freeze_embeddings, new_student, predict
from sentimill_train.monitoring.sampling import choose, uncertainty
from sentimill_train.pipeline import Train
from sentimill_train.training.loop import FitConfig, fit, seed_everything

AMAZON: Final = (
    "amazon_blitzer30k",
    "amazon_devices",
    "amazon_finefood5k",
    "amazon_memcard",
    "amazon_musical",
)
AIRLINE: Final = "twitter_airline"
ARMS: Final = ("sample", "random")
SIZES: Final = (250, 500)
SEEDS: Final = (0, 1, 2)
MAX_TOKENS: Final = 64
BASE_EPOCHS: Final = 2
EPOCHS: Final = 6


def read(data: Path, name: str, split: str) -> list[Example]:
    """Return the labelled rows of one split of a set."""
    columns = ["id", "text", "label", "split"]
    return [
        Example(id=r["id"], text=r["text"], label=r["label"], split=r["split"], source=name)
        for r in pq.read_table(data / f"{name}.parquet", columns=columns).to_pylist()
        if r["split"] == split and r["label"] in SENTIMENTS
    ]


def even(rows: Sequence[Example], a_label: int, draw: random.Random) -> list[Example]:
    """Return up to *a_label* rows of each label, drawn at random."""
    found = []
    for label in SENTIMENTS:
        of = [row for row in rows if row.label == label]
        found += draw.sample(of, min(a_label, len(of)))
    return found


def first_bundle(data: Path, work: Path, a_label: int, tiny: bool) -> Path:
    """Train the bundle that knows Amazon alone, unless it is there."""
    out = work / f"amazon-{'tiny-' if tiny else ''}{a_label}"
    if out.exists():
        return out
    draw = random.Random(0)
    rows = []
    for split, each in (("train", a_label), ("validation", 100), ("test", 100)):
        rows += even([e for name in AMAZON for e in read(data, name, split)], each, draw)
    work.mkdir(parents=True, exist_ok=True)
    write_examples(work / "amazon.jsonl", rows)
    Train(
        reviews=(str(work / "amazon.jsonl"),),
        out=out,
        # Not the reference student, which has seen more than Amazon.
        base=None if tiny else "all-MiniLM-L6-v2",
        preset="tiny" if tiny else "minilm-l6",
        max_tokens=MAX_TOKENS,
        dropout=0.0,
        fit=FitConfig(epochs=BASE_EPOCHS),
        evaluation=EvaluationConfig(baselines=False),
    ).run()
    return out


class Bench:
    """What the runs share: the first bundle, the pool with its answers, and the test rows."""

    def __init__(self, bundle: Path, pool: list[Example], test: list[Example]) -> None:
        self._base = find_pretrained(str(bundle))
        self._classifier = Classifier.load(bundle, engine="onnx", precision="fp32")
        texts = [row.text for row in pool]
        unsure = uncertainty([self._classifier], texts)
        self.pool = [row for row, found in zip(pool, unsure, strict=True) if not np.isnan(found)]
        self._unsure = unsure[~np.isnan(unsure)]
        self._test = self.rows(test)

    def rows(self, examples: Sequence[Example]) -> Rows:
        """Tokenise, and insist that every row can be read."""
        rows, refused = tokenise(examples, self._classifier.encoder, SENTIMENTS)
        assert not refused, f"{len(refused)} rows cannot be read"
        return rows

    def picked(self, arm: str, budget: int, seed: int) -> list[Example]:
        """Return the rows to label, in their order."""
        if arm == "random":
            return random.Random(seed).sample(self.pool, budget)
        found = choose([row.text for row in self.pool], self._unsure, budget)
        return [self.pool[place] for place in found]

    def student(self) -> Student:
        """Return the student of the first bundle, with its head, ready to train further."""
        vocabulary = Tokenizer.from_buffer(self._base.tokenizer_json()).get_vocab_size()
        student = new_student(
            "minilm-l6", self._base, SENTIMENTS, vocabulary=vocabulary, dropout=0.0
        )
        freeze_embeddings(student)
        return student

    def judged(self, student: Student) -> dict[str, float]:
        """Return accuracy and macro-F1 on the test rows."""
        said = predict(student, self._test).argmax(1)
        gold = self._test.gold
        return {"accuracy": float(np.mean(said == gold)), "macro_f1": macro_f1_of(said, gold)}

    def run(self, labelled: Sequence[Example], seed: int) -> dict[str, Any]:
        """Go on from the first bundle with *labelled*, and judge."""
        rows = self.rows(labelled)
        seed_everything(seed)
        student = self.student()
        fitted = fit(student, rows, rows, FitConfig(epochs=EPOCHS, patience=EPOCHS, seed=seed))
        return {
            "rows": len(rows),
            "labels": dict(Counter(row.label for row in labelled)),
            "best_epoch": fitted.best_epoch,
            "train_seconds": round(fitted.seconds, 1),
            **self.judged(student),
        }


def summary(runs: dict[str, Any], sizes: Sequence[int]) -> list[dict[str, Any]]:
    """Return, for each size and arm, mean and spread over seeds; and what sample gains, by seed."""
    table = []
    for size in sizes:
        of = {arm: {r["seed"]: r for r in runs.values() if (r["size"], r["arm"]) == (size, arm)}
              for arm in ARMS}  # fmt: skip
        for arm in ARMS:
            line: dict[str, Any] = {"size": size, "arm": arm, "runs": len(of[arm])}
            line |= spread_of(list(of[arm].values()), ("accuracy", "macro_f1"))
            table.append(line)
        both = sorted(of["sample"].keys() & of["random"].keys())
        table[-2]["gain_by_seed"] = [
            of["sample"][seed]["accuracy"] - of["random"][seed]["accuracy"] for seed in both
        ]
    return table


def main() -> None:
    """Fill the table, run by run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of Parquet files")
    parser.add_argument("--work", type=Path, required=True, help="where the first bundle is kept")
    parser.add_argument("--out", type=Path, required=True, help="JSON; a table comes beside it")
    parser.add_argument("--pool", type=int, default=4000, help="tweets to pick from")
    parser.add_argument("--base-rows", type=int, default=900, help="reviews a label at first")
    parser.add_argument("--test-rows", type=int, help="tweets to judge on, by default all")
    parser.add_argument("--tiny", type=int, help="a trial: random layers, this many rows at most")
    options = parser.parse_args()
    sizes = SIZES if options.tiny is None else (options.tiny // 2, options.tiny)
    bundle = first_bundle(options.data, options.work, options.base_rows, options.tiny is not None)
    draw = random.Random(0)
    pool = draw.sample(read(options.data, AIRLINE, "train"), options.pool)
    test = read(options.data, AIRLINE, "test")[: options.test_rows]
    bench = Bench(bundle, pool, test)
    settings = {
        "base_rows_a_label": options.base_rows,
        "base_epochs": BASE_EPOCHS,
        "epochs": EPOCHS,
        "max_tokens": MAX_TOKENS,
        "pool": len(bench.pool),
        "test_rows": len(test),
        "tiny": options.tiny,
        "config": dataclasses.asdict(FitConfig()),
    }
    state = resumed(options.out, settings)
    state["before"] = bench.judged(bench.student())
    for seed in SEEDS:  # seeds outermost: a stopped run still has every arm
        for arm in ARMS:
            labelled = bench.picked(arm, sizes[-1], seed)
            for size in sizes:
                name = f"{arm} {size} seed {seed}"
                if name in state["runs"]:
                    continue
                began = time.monotonic()
                run = bench.run(labelled[:size], seed) | {"arm": arm, "size": size, "seed": seed}
                run["seconds"] = round(time.monotonic() - began, 1)
                state["runs"][name] = run
                state["table"] = summary(state["runs"], sizes)
                options.out.parent.mkdir(parents=True, exist_ok=True)
                options.out.write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")
                print(name, run, flush=True)  # noqa: T201 # progress of a program
    write_table(options.out.with_suffix(".md"), state)


if __name__ == "__main__":
    main()
