"""What does curation buy? Students on 250 to all rows of a messy pool, raw against curated.

    python -m benchmarks.training.curation --data DIR [--rows N] [--budget-rows N] [--tiny]

The pool is star-rated train rows of eight sets, made messy: a tenth of it are repeats (half of them
with two words changed) and copies of test rows, and 0, 10 or 30 % of its labels are replaced by
another. Three arms: `raw` draws n rows at random; `curated` draws n of what `curate` leaves;
`errors dropped` also drops the labels that `curate` takes for wrong (`--drop-label-errors`).
Everything else is the same: encoder, settings, clean validation rows, clean test rows, and the rows
shown in training (about `--budget-rows` a run, at least one epoch).

The bound: 4 sizes x 3 shares of noise x 3 arms x 3 seeds are 108 runs of 1,000 to 4,000 rows of at
most 64 tokens, 8 million tokens: two hours at the 1,300 a second of two slow cores, and 18 times
the embeddings of the pool. Runs that a result file already has are not repeated, so an interrupted
table continues where it was.
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
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.parquet as pq

from benchmarks.proof.host import RESULTS
from benchmarks.runs import resumed, spread_of
from benchmarks.training.curation_table import write_table
from sentimill.bundle.reference import reference_bundle
from sentimill.classifier import Classifier
from sentimill.text.tokenizer import TextEncoder
from sentimill_train.calibration.temperature import find_temperature
from sentimill_train.curation.label_errors import Embed
from sentimill_train.curation.pipeline import CurateJob, curate_rows
from sentimill_train.data.examples import read_examples, write_examples
from sentimill_train.data.schema import SENTIMENTS, Example
from sentimill_train.data.tokenized import Rows, tokenise
from sentimill_train.evaluation.result import measured
from sentimill_train.metrics.classification import Answers
from sentimill_train.model.pretrained import Pretrained, find_pretrained
from sentimill_train.model.student import Preset, Student, new_student, predict
from sentimill_train.monitoring.observations import embeddings
from sentimill_train.training.loop import FitConfig, fit, seed_everything

SIZES: Final = (250, 500, 1000, None)
NOISE: Final = (0.0, 0.1, 0.3)
SEEDS: Final = (0, 1, 2)
ARMS: Final = ("raw", "curated", "errors dropped")
REPEATS: Final = 0.1
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


def pool_of(data: Path, rows: int) -> list[Example]:
    """Return *rows* train rows of the test sets, evenly and always the same ones."""
    found: list[Example] = []
    for name in TEST_SETS:
        columns = ["id", "text", "label", "split"]
        table = pq.read_table(data / f"{name}.parquet", columns=columns).to_pylist()
        of = [row for row in table if row["split"] == "train" and row["label"] in SENTIMENTS]
        of.sort(key=lambda row: hashlib.sha256(row["id"].encode()).digest())
        found += [
            Example(id=row["id"], text=row["text"], label=row["label"], domain=name, source=name)
            for row in of[: rows // len(TEST_SETS)]
        ]
    return found


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
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


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
                line |= spread_of(list(found.values()), ("accuracy", "macro_f1", "two_class"))
                if arm != "raw":
                    line["gain_by_seed"] = [
                        run["accuracy"] - of["raw"][seed]["accuracy"]
                        for seed, run in sorted(found.items())
                        if seed in of["raw"]
                    ]
                table.append(line)
    return table


def main() -> None:
    """Fill the table, run by run, and draw it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=4000, help="rows of the clean pool")
    parser.add_argument("--budget-rows", type=int, default=2000, help="rows shown in a run")
    parser.add_argument("--bundle", type=Path, help="whose embeddings tell wrong labels")
    parser.add_argument("--tiny", action="store_true", help="random two layers: a trial only")
    parser.add_argument("--only", type=int, help="stop after so many runs")
    parser.add_argument("--out", type=Path, default=RESULTS / "curation.json")
    options = parser.parse_args()
    clean = pool_of(options.data, options.rows)
    random.Random(0).shuffle(clean)
    cut = round(VALIDATION_SHARE * len(clean))
    validation = [replace(row, split="validation") for row in clean[:cut]]
    pool, test = clean[cut:], test_rows(options.data)
    held_out = [*validation, *(replace(row, split="test") for row in test)]
    bench = Bench(test, validation, options.tiny)
    settings = {
        "budget_rows": options.budget_rows,
        "max_tokens": MAX_TOKENS,
        "pool_rows": len(pool),
        "repeats": REPEATS,
        "noise": list(NOISE),
        "validation_rows": len(validation),
        "test_rows": len(test),
        "tiny": options.tiny,
        "config": dataclasses.asdict(FitConfig()),
    }
    state = resumed(options.out, settings)
    embed = embedder(options.bundle or reference_bundle())
    todo = [
        (seed, noise, size, arm)  # seeds outside: a table that is cut short is still a whole table
        for seed in SEEDS
        for noise in NOISE
        for size in SIZES
        for arm in ARMS
        if f"{arm} {size or 'all'} noise {noise} seed {seed}" not in state["runs"]
    ]
    with tempfile.TemporaryDirectory() as work:
        for seed, noise, size, arm in todo[: options.only]:
            started = time.monotonic()
            rows = messy(pool, test, noise, seed)
            train = chosen(arm, rows, size, seed, held_out, Path(work), embed)
            student, run = bench.run(train, seed, options.budget_rows)
            run |= bench.judged(bench.probs(student, run["temperature"]), TEST_SETS)
            run |= {"arm": arm, "size": size, "noise": noise, "seed": seed}
            run["seconds"] = round(time.monotonic() - started, 1)
            name = f"{arm} {size or 'all'} noise {noise} seed {seed}"
            state["runs"][name] = run
            state["table"] = summary(state["runs"])
            options.out.write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")
            print(name, {k: v for k, v in run.items() if k != "by_set"}, flush=True)  # noqa: T201 # progress of a program
    write_table(options.out.with_suffix(".md"), state)


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
