"""Which defaults learn a user's own reviews best and forget the least of others?

    python -m benchmarks.training.own_reviews --data DIR [--own SET ...] [--rows N ...] [--seeds N]

DIR has one Parquet file a set, with the columns text, label and split. N rows of one set stand for
the user's own reviews; `train` splits them into train, validation and test. Each arm continues the
reference student on these rows. It is judged on test rows of the own set, on test rows of five
other sets, and on the behaviour suite of the package. A set without a test split gives a fifth of
its rows, by the hash of their text. All reviews are cut to 48 tokens, so that a run takes a minute
or two. This keeps arms comparable; with whole reviews every arm would gain a little more.

The arm `before` has the defaults of the first release (learning rate 1.5e-4, ten times that for the
head, dropout of the base, no replay), `after` those of `train` today;
`after:learning_rate=1e-4,dropout=0.1` changes some of them. A run that the result file has already
is not repeated, so a stopped benchmark continues.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import numpy as np
from scipy.special import softmax

from benchmarks.record import RESULTS, cpu_name, surroundings, write_result
from sentimill.bundle.reference import reference_bundle
from sentimill.text.tokenizer import TextEncoder
from sentimill_train.calibration.temperature import calibrated_nll
from sentimill_train.data.examples import read_examples, write_examples
from sentimill_train.data.schema import SENTIMENTS, Example
from sentimill_train.data.splits import sample_rows, text_key
from sentimill_train.data.tokenized import Rows, tokenise
from sentimill_train.evaluation.behaviour import OWN_SUITE, judge_case, read_cases
from sentimill_train.evaluation.result import measured
from sentimill_train.metrics.classification import Answers
from sentimill_train.model.student import Student, load_student, predict
from sentimill_train.pipeline import Quiet, Train
from sentimill_train.pipeline import replay as replaying
from sentimill_train.pipeline import train as pipeline
from sentimill_train.pipeline.inputs import read_inputs
from sentimill_train.reporting.markdown import markdown_table
from sentimill_train.training import weight_interpolation
from sentimill_train.training.defaults import Defaults, defaults_for, replayed_rows
from sentimill_train.training.loop import Fit, FitConfig, fit
from sentimill_train.training.state import weights_of

OWN: Final = ("twitter_airline", "dynasent_r1", "yelp_augpe", "druglib", "womens_clothing")
"""The reference student never learnt the first three; it learnt train rows of the others."""
OTHERS: Final = (
    *("yelp_kaggle10k", "sst5", "womens_clothing", "hotels_datafiniti", "twitter_airline"),
    *("dynasent_r1", "mcdonalds"),
)
TEST_ROWS: Final = {"own": 500, "other": 100}
MAX_TOKENS: Final = 48
ARMS: Final = ("before", "after")
FIGURES: Final = ("own", "own_macro_f1", "own_nll", "others", "others_nll", "behaviour")


def main() -> None:
    """Run every arm that the result file lacks, and write it after each."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of Parquet files")
    parser.add_argument("--own", nargs="+", default=OWN, help="sets that play the own reviews")
    parser.add_argument("--rows", nargs="+", type=int, default=[300, 1000, 5000])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="the seeds of the runs")
    parser.add_argument("--arms", nargs="+", default=ARMS)
    parser.add_argument("--base", help="bundle to continue; by default the reference student")
    parser.add_argument("--out", type=Path, default=RESULTS / "own_reviews.json")
    given = parser.parse_args()
    base = Path(given.base or reference_bundle())
    state: dict[str, Any] = {"base": base_name(base), "bases": {}, "runs": []}
    if given.out.exists():
        state = json.loads(given.out.read_text(encoding="utf-8"))
        if state["base"] != base_name(base):
            raise SystemExit(f"{given.out} is of {state['base']}: remove it, or name another --out")
    known = {(run["set"], run["rows"], run["seed"], run["arm"]) for run in state["runs"]}
    judge = Judge(base, given.data)
    for rows in given.rows:
        arms = [Arm.read(name, rows) for name in given.arms]
        for seed in given.seeds:
            for own in given.own:
                if own not in state["bases"]:
                    state["bases"][own] = judge.figures(load_student(base), own)
                for arm in arms:
                    if (own, rows, seed, str(arm)) in known:
                        continue
                    key = {"set": own, "rows": rows, "seed": seed, "arm": str(arm)}
                    state["runs"].append(key | run(judge, base, own, rows, seed, arm))
                    print(json.dumps(state["runs"][-1]), flush=True)  # noqa: T201
                    write(given.out, state)
    write(given.out, state)


def write(out: Path, state: dict[str, Any]) -> None:
    """Write the runs with their table as JSON, and the table as Markdown."""
    table = summary(state)
    write_result(
        out,
        {"question": __doc__.partition("\n")[0], "base": state["base"], "bases": state["bases"]}
        | {"runs": state["runs"], "table": table, **surroundings()},
    )
    out.with_suffix(".md").write_text(markdown(state, table), encoding="utf-8")


def base_name(base: Path) -> str:
    """Return name and version of the bundle, without the folder."""
    manifest = json.loads((base / "manifest.json").read_text(encoding="utf-8"))
    return f"{manifest['name']} {manifest['version']}"


@dataclass(frozen=True, kw_only=True)
class Arm(Defaults):
    """Settings that are compared.

    replay: rows of the package that are learnt again. others: how much rows of the package count
    where the blend is chosen; the first release chose by the own rows alone.
    """

    dropout: float
    replay: int
    others: float

    @staticmethod
    def read(name: str, rows: int) -> Arm:
        """Return the settings of *name*, such as `after:learning_rate=1e-4,dropout=0.1`."""
        name, _, changes = name.partition(":")
        default = defaults_for(continues=True, lora=False)
        found: dict[str, Any] = asdict(default) | {"dropout": 0.0, "replay": replayed_rows(rows)}
        found["others"] = weight_interpolation.OTHERS
        if name == "before":
            found |= {"epochs": 3, "learning_rate": 1.5e-4, "head_factor": 10.0}
            found |= {"replay": 0, "others": 0.0}
        for change in filter(None, changes.split(",")):
            option, _, value = change.partition("=")
            found[option] = int(value) if option in ("epochs", "replay") else float(value)
        return Arm(**found)

    def __str__(self) -> str:
        """Return all of it, so that runs of the same settings have the same name."""
        return (
            f"rate {self.learning_rate:g}, head x{self.head_factor:g}, {self.epochs} epochs,"
            f" dropout {self.dropout:g}, replay {self.replay}, others {self.others:g}"
        )


def run(judge: Judge, base: Path, own: str, rows: int, seed: int, arm: Arm) -> dict[str, Any]:
    """Train one student; return what its training did, and its figures.

    The rows of a seed are the same in every arm. Arms that differ in blending alone share a
    training, whose time counts in each.
    """
    key = (own, rows, seed, replace(arm, others=0.0))

    def fit_once(student: Student, *given: Any, **more: Any) -> Fit:
        if key not in judge.fitted:
            began = time.process_time()
            fitted = fit(student, *given, **more)
            judge.fitted = {key: (fitted, weights_of(student), time.process_time() - began)}
        fitted, weights, _ = judge.fitted[key]
        student.load_state_dict(weights)
        student.train(False)
        return fitted

    learnable, _ = parted(judge.data, own)
    chosen = np.random.default_rng(seed).permutation(len(learnable))[:rows]
    with (
        tempfile.TemporaryDirectory(prefix="own-reviews-") as folder,
        patch.object(pipeline, "fit", fit_once),
        patch.object(weight_interpolation, "OTHERS", arm.others),
        patch.object(replaying, "replayed_rows", lambda own: arm.replay),
    ):
        reviews = Path(folder) / "own.jsonl"
        write_examples(reviews, [replace(learnable[i], split=None) for i in chosen])
        config = Train(
            reviews=(str(reviews),),
            out=Path(folder) / "out",
            base=str(base),
            max_tokens=MAX_TOKENS,
            dropout=arm.dropout,
            replay=arm.others > 0,
            fit=FitConfig(
                epochs=arm.epochs,
                learning_rate=arm.learning_rate,
                head_factor=arm.head_factor,
                seed=seed,
            ),
        )
        started, shared = time.process_time(), judge.fitted.get(key)
        student, fitted = config.fit_student(read_inputs(config, lambda stage: None), Quiet())
    return {
        "best_epoch": fitted.best_epoch,
        "share": fitted.interpolated_share,
        "cpu_seconds": round(time.process_time() - started + (shared[2] if shared else 0.0), 1),
        **judge.figures(student, own),
    }


@cache
def parted(data: Path, name: str) -> tuple[list[Example], list[Example]]:
    """Return the labelled rows of a set to learn from, and those for its test."""
    rows = [e for e in read_examples(str(data / f"{name}.parquet")) if e.label is not None]
    tested = [e.split == "test" for e in rows]
    if not any(tested):  # other digits of the hash than those by which `train` splits
        tested = [text_key(e.text) // 100 % 5 == 0 for e in rows]
    return (
        [e for e, test in zip(rows, tested, strict=True) if not test],
        [e for e, test in zip(rows, tested, strict=True) if test],
    )


class Judge:
    """Judges students on the same rows."""

    def __init__(self, base: Path, data: Path) -> None:
        self.data = data
        self.encoder = TextEncoder(
            (base / "tokenizer.json").read_bytes(), max_tokens=MAX_TOKENS, truncation="head-tail"
        )
        self.cases = read_cases(OWN_SUITE)
        texts = [text for case in self.cases for text in case.texts]
        self.behaviour = self.tokenised([Example(id="x", text=t, source="x") for t in texts])
        self.sample = cache(self._sample)
        self.fitted: dict[Any, tuple[Fit, Any, float]] = {}

    def _sample(self, name: str, kind: str) -> Rows:
        return self.tokenised(sample_rows(parted(self.data, name)[1], TEST_ROWS[kind]))

    def tokenised(self, examples: Sequence[Example]) -> Rows:
        """Return all of the examples as rows."""
        rows, refused = tokenise(examples, self.encoder, SENTIMENTS)
        assert not refused
        return rows

    def figures(self, student: Student, own: str) -> dict[str, Any]:
        """Return the figures on the own test rows, on others, and on behaviour, in percent."""
        others = [name for name in OTHERS if name != own][:5]
        ours = self._measured(student, self.sample(own, "own"))
        found = {name: self._measured(student, self.sample(name, "other")) for name in others}
        return {
            "own": ours["accuracy"],
            "own_macro_f1": ours["macro_f1"],
            "own_nll": ours["nll"],
            "others": {name: each["accuracy"] for name, each in found.items()},
            "others_nll": {name: each["nll"] for name, each in found.items()},
            "behaviour": self._behaviour(student),
        }

    def _measured(self, student: Student, rows: Rows) -> dict[str, float]:
        logits = predict(student, rows).astype(np.float64)
        found = measured(Answers(SENTIMENTS, rows.gold, softmax(logits, axis=1)))
        return {
            "accuracy": round(100 * found["accuracy"], 2),
            "macro_f1": round(100 * found["macro_f1"], 2),
            "nll": round(calibrated_nll(logits.astype(np.float32), rows.gold), 4),
        }

    def _behaviour(self, student: Student) -> float:
        """Return the share of cases that pass."""
        probs = softmax(predict(student, self.behaviour).astype(np.float64), axis=1)
        passed = start = 0
        for case in self.cases:
            end = start + len(case.texts)
            passed += not judge_case(case, probs[start:end], SENTIMENTS)
            start = end
        return round(100 * passed / len(self.cases), 2)


def summary(state: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the changes against the base: a line for each size and arm.

    Of each the mean over own sets and seeds, and half of its 95 % interval (1.96 standard errors,
    every run taken for independent), None of fewer than three runs.
    """
    lines = []
    for rows, arm in dict.fromkeys((run["rows"], run["arm"]) for run in state["runs"]):
        runs = [run for run in state["runs"] if (run["rows"], run["arm"]) == (rows, arm)]
        changes = [changed(run, state["bases"][run["set"]]) for run in runs]
        line: dict[str, Any] = {"rows": rows, "arm": arm, "runs": len(runs)}
        line["sets"] = sorted({run["set"] for run in runs})
        for name in FIGURES:
            values = [change[name] for change in changes]
            half = 1.96 * np.std(values, ddof=1) / len(values) ** 0.5 if len(runs) > 2 else None
            line[name] = round(float(np.mean(values)), 3)
            line[f"{name}_half"] = None if half is None else round(float(half), 3)
        line["cpu_seconds"] = round(float(np.mean([run["cpu_seconds"] for run in runs])), 1)
        lines.append(line)
    return lines


def changed(found: dict[str, Any], base: dict[str, Any]) -> dict[str, float]:
    """Return the change of each figure against the base; of others the mean."""
    return {
        name: float(np.mean([found[name][other] - base[name][other] for other in base[name]]))
        if isinstance(base[name], dict)
        else found[name] - base[name]
        for name in FIGURES
    }


def markdown(state: dict[str, Any], table: Sequence[dict[str, Any]]) -> str:
    """Return the tables: the mean of each arm, then every run."""
    means = [
        [
            f"{line['rows']:,}",
            line["arm"],
            f"{len(line['sets'])}",
            f"{line['runs']}",
            *(with_half(line, name) for name in FIGURES),
            f"{line['cpu_seconds']:.0f}",
        ]
        for line in table
    ]
    runs = [
        [
            run["set"],
            f"{run['rows']:,}",
            run["arm"],
            f"{run['seed']}",
            f"{run['share']}",
            *(f"{found[name]:+.{places(name)}f}" for name in FIGURES),
        ]
        for run in state["runs"]
        for found in [changed(run, state["bases"][run["set"]])]
    ]
    bases = [
        [own, f"{base['own']:.1f}", f"{base['own_macro_f1']:.1f}", f"{base['behaviour']:.1f}"]
        for own, base in state["bases"].items()
    ]
    heads = ("own accuracy", "macro-F1", "NLL", "others: accuracy", "NLL", "behaviour")
    return f"""# What training on one's own reviews gains, and what it costs elsewhere

Made by `python -m benchmarks.training.own_reviews`, whose first lines say how. The base is
{state["base"]}. Every figure is the change against it, in points; for NLL, the loss of calibrated
answers, in nats. On {TEST_ROWS["own"]} test rows of the own set, on {TEST_ROWS["other"]} test rows
of each of five other sets, and on the behaviour cases. ± is a 95 % interval over own sets and
seeds. Arms that ran on different sets or seeds do not compare. Losing arms stay. `replay` is how
many rows of the package are learnt again; `others` is how much the loss on other rows of the
package counts where the blend is chosen, at 0 the own rows alone decide. CPU s is what training and
blending took on one core of {cpu_name()}. The defaults for 300 rows are "{Arm.read("after", 300)}",
those of the first release "{Arm.read("before", 300)}".

{markdown_table(("rows", "arm", "sets", "runs", *heads, "CPU s"), means)}

## Every run

`share` is the share of the new weights after blending.

{markdown_table(("own set", "rows", "arm", "seed", "share", *heads), runs)}

## The base, in percent

{markdown_table(("own set", "accuracy", "macro-F1", "behaviour"), bases)}
"""


def with_half(line: dict[str, Any], name: str) -> str:
    """Return a mean with half of its interval, where it has one."""
    half = line[f"{name}_half"]
    shown = f"{line[name]:+.{places(name)}f}"
    return shown if half is None else f"{shown} ± {half:.{places(name)}f}"


def places(name: str) -> int:
    """Return the decimals that a figure is worth."""
    return 3 if name.endswith("nll") else 1


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
