"""What does curation buy? Students on 250 to all frontier labels, raw against curated.

    python -m benchmarks.training.curation --labelled frontier.jsonl --data DIR \
        [--budget-rows N] [--tiny]

Everything but the rows is the same: encoder, settings, validation rows, test sets, and the rows
shown in training (about `--budget-rows` a run, at least one epoch). Raw draws n rows at random;
curated lets `curate` choose n, with the test sets held out. Test rows are of test splits, by stars.

The bound: 30 runs, each of 1,000 to 3,400 rows of at most 64 tokens forwards and backwards, and of
1,100 rows an epoch forwards: 2.2 million tokens of training. At the 1,300 a second of two slow
cores that is half an hour, and curating 15 times takes minutes more. Runs that a result file
already has are not repeated, so an interrupted table goes on where it was.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow.parquet as pq

from benchmarks.proof.host import RESULTS
from benchmarks.runs import resumed, spread_of
from benchmarks.training.curation_table import write_table
from sentimill.text.tokenizer import TextEncoder
from sentimill_train.calibration.temperature import find_temperature
from sentimill_train.curation.pipeline import CurateJob, curate_rows
from sentimill_train.data.examples import read_examples, write_examples
from sentimill_train.data.schema import SENTIMENTS, Example
from sentimill_train.data.tokenized import Rows, tokenise
from sentimill_train.evaluation.result import measured
from sentimill_train.metrics.classification import Answers
from sentimill_train.model.pretrained import Pretrained, find_pretrained
from sentimill_train.model.student import Preset, Student, new_student, predict
from sentimill_train.training.loop import FitConfig, fit, seed_everything

SIZES: Final = (250, 500, 1000, 2000, None)
SEEDS: Final = (0, 1, 2)
ARMS: Final = ("raw", "curated")
TEST_SETS: Final = (
    "amazon_finefood5k",
    "hotels_tripadvisor5k",
    "mcdonalds",
    "womens_clothing",
    "yelp_kaggle10k",
    "sst5",
    "imdb",
    "flipkart",
)
TEST_ROWS_A_SET: Final = 100
VALIDATION_SHARE: Final = 0.1
MAX_TOKENS: Final = 64


def test_rows(
    data: Path, names: Sequence[str] = TEST_SETS, a_set: int = TEST_ROWS_A_SET
) -> list[Example]:
    """Return the same rows in every run: of each set those with the smallest hashes."""
    found: list[Example] = []
    for name in names:
        columns = ["id", "text", "label", "split"]
        table = pq.read_table(data / f"{name}.parquet", columns=columns).to_pylist()
        rows = [row for row in table if row["split"] == "test" and row["label"] in SENTIMENTS]
        rows.sort(key=lambda row: hashlib.sha256(row["id"].encode()).digest())
        found += [
            Example(id=row["id"], text=row["text"], label=row["label"], domain=name, source=name)
            for row in rows[:a_set]
        ]
    return found


def parted(labelled: str) -> tuple[list[Example], list[Example]]:
    """Return the pool and a validation part that no arm trains on, chosen by hash."""
    pool: list[Example] = []
    validation: list[Example] = []
    for example in read_examples(labelled):
        digest = hashlib.sha256(b"validation " + example.id.encode()).digest()
        inside = int.from_bytes(digest[:4]) < VALIDATION_SHARE * 2**32
        (validation if inside else pool).append(example)
    return pool, validation


def chosen(
    arm: str, pool: list[Example], size: int | None, seed: int, holdout: Path, folder: Path
) -> list[Example]:
    """Return the training rows of a run."""
    if arm == "raw":
        return pool if size is None else random.Random(seed).sample(pool, size)
    source, out = folder / "pool.jsonl", folder / "chosen.jsonl"
    write_examples(source, pool)
    job = CurateJob(source=str(source), out=out, holdout=(str(holdout),), keep=size, seed=seed)
    curate_rows(job)
    return read_examples(str(out))


class Bench:
    """What the runs share."""

    def __init__(self, test: Sequence[Example], validation: Sequence[Example], tiny: bool) -> None:
        self.tiny = tiny
        self.pretrained: Pretrained = find_pretrained()
        self.encoder = TextEncoder.from_bytes(
            self.pretrained.tokenizer_json(), max_tokens=MAX_TOKENS, truncation="head-tail"
        )
        self.test = self.rows(test)
        self.domains = [example.domain or "" for example in test]
        self.validation = self.rows(validation)

    def rows(self, examples: Sequence[Example]) -> Rows:
        """Tokenise, and insist that every row can be read."""
        rows, refused = tokenise(examples, self.encoder, SENTIMENTS)
        assert not refused, f"{len(refused)} rows cannot be read"
        return rows

    def run(
        self, train: Sequence[Example], seed: int, budget_rows: int, soft_weight: float = 0.5
    ) -> tuple[Student, dict[str, Any]]:
        """Train a student, and return it with how it went."""
        from tokenizers import Tokenizer

        rows = self.rows(train)
        seed_everything(seed)
        vocabulary = Tokenizer.from_buffer(self.pretrained.tokenizer_json()).get_vocab_size()
        preset: Preset = "tiny" if self.tiny else "minilm-l6"
        student = new_student(preset, self.pretrained, SENTIMENTS, vocabulary=vocabulary)
        epochs = max(1, round(budget_rows / len(rows)))
        # No early stop before the learning rate has come down: patience is the number of epochs.
        config = FitConfig(epochs=epochs, seed=seed, patience=epochs, soft_weight=soft_weight)
        fitted = fit(student, rows, self.validation, config)
        return student, {
            "rows": len(rows),
            "epochs": epochs,
            "best_epoch": fitted.best_epoch,
            "train_seconds": round(fitted.seconds, 1),
            "temperature": find_temperature(
                predict(student, self.validation), self.validation.gold
            ),
            "validation_macro_f1": fitted.macro_f1,
        }

    def probs(self, student: Student, temperature: float) -> Any:
        """Return the calibrated probs of every test row (rows, labels)."""
        return _softmax(predict(student, self.test) / temperature)

    def judged(self, probs: Any, names: Sequence[str]) -> dict[str, Any]:
        """Return the figures on the test rows of *names*, together and of each set."""
        of = {name: [i for i, d in enumerate(self.domains) if d == name] for name in names}
        whole = self._measured(probs, [i for which in of.values() for i in which])
        by_set = {
            name: {key: part.get(key) for key in ("accuracy", "two_class")}
            for name, which in of.items()
            if which and (part := self._measured(probs, which))
        }
        return {**whole, "by_set": by_set}

    def _measured(self, probs: Any, which: Sequence[int]) -> dict[str, Any]:
        found = measured(Answers(SENTIMENTS, self.test.gold[which], probs[which]))
        return {
            "accuracy": found["accuracy"],
            "macro_f1": found["macro_f1"],
            "two_class": found.get("two_class_accuracy"),
            "ece": found["ece"],
        }


def _softmax(logits: Any) -> Any:
    import numpy as np

    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def summary(runs: dict[str, Any]) -> list[dict[str, Any]]:
    """Return mean and spread over seeds, a row for each size and arm."""
    table = []
    for size in SIZES:
        for arm in ARMS:
            found = [run for run in runs.values() if (run["size"], run["arm"]) == (size, arm)]
            if not found:
                continue
            line: dict[str, Any] = {"size": size, "arm": arm, "runs": len(found)}
            line["rows"] = round(statistics.mean(run["rows"] for run in found))
            line |= spread_of(found, ("accuracy", "macro_f1", "two_class", "ece"))
            table.append(line)
    return table


def main() -> None:
    """Fill the table, run by run, and draw it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--labelled", required=True, help="from frontier.py --write")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--budget-rows", type=int, default=1000, help="rows shown in a run")
    parser.add_argument("--tiny", action="store_true", help="random two layers: a trial only")
    parser.add_argument("--only", type=int, help="stop after so many runs")
    parser.add_argument("--out", type=Path, default=RESULTS / "curation.json")
    options = parser.parse_args()
    pool, validation = parted(options.labelled)
    test = test_rows(options.data)
    bench = Bench(test, validation, options.tiny)
    settings = {
        "budget_rows": options.budget_rows,
        "max_tokens": MAX_TOKENS,
        "pool_rows": len(pool),
        "validation_rows": len(validation),
        "test_rows": len(test),
        "tiny": options.tiny,
        "config": dataclasses.asdict(FitConfig()),
    }
    state = resumed(options.out, settings)
    done = 0
    with tempfile.TemporaryDirectory() as work:
        holdout = Path(work) / "holdout.jsonl"
        write_examples(holdout, test)
        for seed in SEEDS:  # seeds outside: a table that is cut short is still a whole table
            for size in SIZES:
                for arm in ARMS:
                    name = f"{arm} {size or 'all'} seed {seed}"
                    if name in state["runs"] or (options.only is not None and done >= options.only):
                        continue
                    started = time.monotonic()
                    train = chosen(arm, pool, size, seed, holdout, Path(work))
                    student, run = bench.run(train, seed, options.budget_rows)
                    run |= bench.judged(bench.probs(student, run["temperature"]), TEST_SETS)
                    run |= {"arm": arm, "size": size, "seed": seed}
                    run["seconds"] = round(time.monotonic() - started, 1)
                    state["runs"][name] = run
                    state["table"] = summary(state["runs"])
                    options.out.write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")
                    done += 1
                    print(name, {k: v for k, v in run.items() if k != "by_set"}, flush=True)  # noqa: T201 # progress of a program
    write_table(options.out.with_suffix(".md"), options.out.with_suffix(".svg"), state)


if __name__ == "__main__":
    main()
