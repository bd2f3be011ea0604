"""Should a student learn from frontier shares, frontier labels or stars, on the same texts?

    python -m benchmarks.training.teachers --labelled frontier.jsonl --data DIR

Four arms on the rows of `frontier.py --write`, which have both a frontier model's shares and the
label that their stars give: `shares` alone (soft_weight 1), `labels` (the largest share, hard),
`stars` (hard), and `mixed` (shares and stars, half each, as `train` does by default). Encoder,
settings and order of rows are the same. Validation, which picks epoch and temperature, has the
arm's own kind of label. Each arm is judged on rows of test splits, once by stars and once by labels
of people who judged the words (dynasent_r1, sst5). A student that learns from stars should win the
first, one that learns from words the second. The difference is hidden in a figure "against stars"
alone.

The bound: 12 runs of 3,400 rows of at most 64 tokens, once, are 2 million tokens. At the 1,400
tokens a second of two slow cores they take half an hour. Runs that the result file already has are
not repeated.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.parquet as pq

from benchmarks.record import RESULTS
from benchmarks.runs import cell, resumed, spread_of
from sentimill.text.tokenizer import TextEncoder
from sentimill_train.calibration.temperature import find_temperature
from sentimill_train.data.examples import read_examples
from sentimill_train.data.schema import SENTIMENTS, Example
from sentimill_train.data.tokenized import Rows, tokenise
from sentimill_train.evaluation.result import measured
from sentimill_train.metrics.classification import Answers
from sentimill_train.model.pretrained import Pretrained, find_pretrained
from sentimill_train.model.student import Preset, Student, new_student, predict
from sentimill_train.reporting.markdown import markdown_table
from sentimill_train.training.loop import FitConfig, fit, seed_everything

SEEDS: Final = (0, 1, 2)
MAX_TOKENS: Final = 64
VALIDATION_SHARE: Final = 0.1
ARMS: Final = ("shares", "labels", "stars", "mixed")
TESTS: Final = {
    "stars": ("yelp_kaggle10k", "amazon_finefood5k", "hotels_tripadvisor5k", "womens_clothing"),
    "people": ("dynasent_r1", "sst5"),
}
ROWS_A_SET: Final = {"stars": 200, "people": 400}
FIGURES: Final = ("accuracy", "macro_f1", "two_class", "ece")


def test_rows(data: Path, names: Sequence[str], a_set: int) -> list[Example]:
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


class Bench:
    """What the runs share."""

    def __init__(self, test: Sequence[Example], validation: Sequence[Example], tiny: bool) -> None:
        self.tiny = tiny
        self.pretrained: Pretrained = find_pretrained()
        self.encoder = TextEncoder(
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


def taught(arm: str, rows: Sequence[Example], given: dict[str, str]) -> list[Example]:
    """Return *rows* as *arm* sees them. given: the label that the stars give, by id."""
    if arm in ("stars", "mixed"):
        rows = [dataclasses.replace(row, label=given[row.id]) for row in rows]
    if arm in ("stars", "labels"):
        rows = [dataclasses.replace(row, probs=None) for row in rows]
    return list(rows)


def summary(runs: dict[str, Any]) -> list[dict[str, Any]]:
    """Return mean and standard deviation over seeds, a row for each test and arm."""
    table = []
    for test in TESTS:
        for arm in ARMS:
            found = [run[test] for run in runs.values() if run["arm"] == arm]
            if not found:
                continue
            line: dict[str, Any] = {"judged_by": test, "arm": arm, "runs": len(found)}
            line |= spread_of(found, FIGURES)
            table.append(line)
    return table


def write_table(markdown: Path, state: dict[str, Any]) -> None:
    """Write the table, with the machine and the settings under it."""
    settings, found = state["settings"], state["machine"]
    lines = [
        "# Frontier shares, frontier labels, or stars?",
        "",
        f"Students on {settings['pool_rows']:,} texts, judged by stars"
        f" ({', '.join(TESTS['stars'])}) and by what people said of the words"
        f" ({', '.join(TESTS['people'])}). Mean and standard deviation over seeds.",
        "",
        markdown_table(
            ("judged by", "learns from", "runs", "accuracy", "macro-F1", "two-class", "ECE"),
            [
                [
                    line["judged_by"],
                    line["arm"],
                    str(line["runs"]),
                    *(cell(line, name) for name in FIGURES),
                ]
                for line in state["table"]
            ],
        ),
    ]
    trial = ", **a trial with random layers: no result**" if settings["tiny"] else ""
    lines += [
        "",
        f"{found['cpu']}, {found['cores']} cores, commit {found['commit']}, {found['utc']}{trial}."
        f" About {settings['budget_rows']:,} rows shown a run, at most {settings['max_tokens']}"
        " tokens each. Made by `python -m benchmarks.training.teachers`.",
        "",
    ]
    markdown.write_text("\n".join(lines), encoding="utf-8")


def main() -> None:
    """Fill the table, run by run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--labelled", type=Path, required=True, help="from frontier.py --write")
    parser.add_argument("--data", type=Path, required=True, help="folder of Parquet files")
    parser.add_argument("--budget-rows", type=int, default=3400, help="rows shown in a run")
    parser.add_argument("--tiny", action="store_true", help="random two layers: a trial only")
    parser.add_argument("--out", type=Path, default=RESULTS / "teachers.json")
    options = parser.parse_args()
    with options.labelled.open(encoding="utf-8") as lines:
        given = {row["id"]: row["given"] for row in map(json.loads, lines)}
    pool, validation = parted(str(options.labelled))
    test = [
        row
        for name, sets in TESTS.items()
        for row in test_rows(options.data, sets, ROWS_A_SET[name])
    ]
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
    benches = {arm: Bench(test, taught(arm, validation, given), tiny=options.tiny) for arm in ARMS}
    for seed in SEEDS:  # seeds outermost: a stopped run still has every arm
        for arm in ARMS:
            name = f"{arm} seed {seed}"
            if name in state["runs"]:
                continue
            began, bench = time.monotonic(), benches[arm]
            weight = 1.0 if arm == "shares" else 0.5
            student, run = bench.run(taught(arm, pool, given), seed, options.budget_rows, weight)
            run |= {"arm": arm, "seed": seed}
            probs = bench.probs(student, run["temperature"])
            run |= {of: bench.judged(probs, TESTS[of]) for of in TESTS}
            run["seconds"] = round(time.monotonic() - began, 1)
            state["runs"][name] = run
            state["table"] = summary(state["runs"])
            options.out.write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")
            print(name, {of: run[of]["accuracy"] for of in TESTS}, flush=True)  # noqa: T201 # progress of a program
    write_table(options.out.with_suffix(".md"), state)


if __name__ == "__main__":
    main()
