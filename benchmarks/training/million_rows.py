"""How long do a million rows take in `curate`, and in the parts of `train` without the model?

    python -m benchmarks.training.million_rows SET.parquet... [--rows 100000 --rows 300000 ...]
    python -m benchmarks.training.million_rows SET.parquet... --command curate

The rows are made by perturbing real texts. Each command runs in a fresh process. `curate` is one
step (leaks, repeats, near-repeats). The steps of `train` run in the order of `train`:

- `import`: memory before anything is read
- `read`: a list of examples, and the sketch of their texts
- `split`: train, validation, test, repeats and conflicts
- `tokenize`: flat arrays of ids for all three
- `judge`: figures, intervals, slices and a rival on at most 50,000 test rows; answers are drawn
- `baselines`, where asked for: fitted on at most 50,000 rows, which takes minutes

Several numbers of rows show whether a step is linear.

CPU seconds count all threads. Peak memory is that of the process until the end of the step.

The bound: a row costs about 0.12 ms to read, clean and MinHash in one process, so a million take at
least two minutes in `curate`. An example takes about 1 KiB of memory besides its text.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import resource
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import RESULTS, surroundings, write_result
from sentimill.text.tokenizer import TextEncoder
from sentimill.types import Prediction, Probs
from sentimill_train.curation.pipeline import CurateJob, curate_rows
from sentimill_train.data.schema import SENTIMENTS, Example
from sentimill_train.data.splits import part
from sentimill_train.evaluation.baselines import baseline_contenders
from sentimill_train.evaluation.labelled_set import Answered, Sample, gold_of
from sentimill_train.evaluation.result import Contender, judge_rival, judge_set
from sentimill_train.model.pretrained import find_pretrained
from sentimill_train.pipeline.config import TrainConfig
from sentimill_train.pipeline.inputs import judged_sample, read_reviews, tokenise_splits

MAX_TOKENS = 128
VARIANTS_OF_A_ROW = (0.10, 0.35, 0.55)
"""Shares of exact repeats, of repeats with a word or two changed, and of shuffled sentences."""

ANSWERED = Prediction(
    label="negative",
    probs=Probs((1.0, 0.0, 0.0), SENTIMENTS),
    score=-1.0,
    confidence=1.0,
    abstained=False,
    truncated=False,
    tokens=1,
)
"""The evaluation reads only its `abstained`; all else comes from `Answers`."""


def synthetic(sources: list[str], rows: int, path: Path) -> int:
    """Write *rows* rows made from real ones; returns how many real ones there were."""
    import pyarrow.parquet as pq

    rng = random.Random(0)
    real = [
        (row["text"], row["label"], name)
        for name in sources
        for row in pq.read_table(name, columns=["text", "label"]).to_pylist()
        if row["label"] in SENTIMENTS
    ]
    words = [word for text, _, _ in rng.sample(real, 2000) for word in text.split()[:40]]
    with path.open("w", encoding="utf-8") as file:
        for n in range(rows):
            text, label, name = real[n] if n < len(real) else rng.choice(real)
            if n >= len(real):
                text = _variant(text, words, rng)
            sure = rng.uniform(0.4, 1.0)
            rest = (1 - sure) / 2
            probs = [sure if label == other else rest for other in SENTIMENTS]
            row = {"id": f"s{n}", "text": text, "label": label, "probs": probs}
            file.write(json.dumps(row | {"domain": Path(name).stem}) + "\n")
    return len(real)


def _variant(text: str, words: list[str], rng: random.Random) -> str:
    parts = text.split()
    kind = rng.random()
    if kind < VARIANTS_OF_A_ROW[0]:
        return text
    if kind < VARIANTS_OF_A_ROW[0] + VARIANTS_OF_A_ROW[1]:
        for _ in range(rng.randint(1, 2)):
            parts[rng.randrange(len(parts))] = rng.choice(words)
        return " ".join(parts)
    for _ in range(max(3, len(parts) // 3)):
        parts[rng.randrange(len(parts))] = rng.choice(words)
    rng.shuffle(parts)
    return " ".join(parts)


class Steps:
    """The figures of the steps that ran so far."""

    def __init__(self) -> None:
        self.found: list[dict[str, Any]] = []

    @contextmanager
    def step(self, name: str) -> Iterator[dict[str, Any]]:
        """Measure what runs inside, and keep what it adds to the dict that it gets."""
        more: dict[str, Any] = {}
        started, cpu = time.monotonic(), time.process_time()
        yield more
        self.found.append(
            {
                "step": name,
                "seconds": round(time.monotonic() - started, 1),
                "cpu_seconds": round(time.process_time() - cpu, 1),
                "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
                **more,
            }
        )


def curate(source: str) -> list[dict[str, Any]]:
    """Run `curate` in this process, and return its figures."""
    steps = Steps()
    with steps.step("curate") as more:
        out = Path(source).with_suffix(".out.jsonl")
        curated = curate_rows(CurateJob(source=source, out=out))
        more |= {"kept": curated.kept, "drops": curated.drops}
    return steps.found


def train(source: str, *, baselines: bool) -> list[dict[str, Any]]:
    """Run the parts of `train` that are not the model, and return the figures of each."""
    steps = Steps()
    with steps.step("import"):
        pass
    encoder = TextEncoder(
        find_pretrained().tokenizer_json(), max_tokens=MAX_TOKENS, truncation="head-tail"
    )
    with steps.step("read"):
        _, examples = read_reviews(TrainConfig(reviews=(source,), out=Path("none")))
    with steps.step("split") as more:
        parted = judged_sample(part(examples, SENTIMENTS))
        more |= {"repeated": parted.repeated, "conflicting": parted.conflicting}
    with steps.step("tokenize") as more:
        rows, _, _ = tokenise_splits(parted, SENTIMENTS, encoder, encoder)
        more |= {"tokens": sum(len(each.ids) for each in rows.values())}
    with steps.step("judge") as more:
        answered, rival = (drawn_answers(parted.test, seed) for seed in (0, 1))
        judge_set(answered)
        drawn = Contender(name="r", kind="bundle", note="", probs=lambda texts: rival.answers.probs)
        judge_rival(drawn, [answered])
        more |= {"judged": len(parted.test)}
    if not baselines:
        return steps.found
    with steps.step("baselines"):
        for fitted in baseline_contenders(
            parted.train,
            parted.validation,
            SENTIMENTS,
            encoder=encoder,
            weights=find_pretrained().folder / "model.safetensors",
        ):
            fitted.probs([example.text for example in parted.test])
    return steps.found


def drawn_answers(examples: tuple[Example, ...], seed: int) -> Answered:
    """Return answers that no model gave: four of five are right."""
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.ones(len(SENTIMENTS)), len(examples))
    gold = gold_of(examples, SENTIMENTS, probs).gold
    right = rng.random(len(examples)) < 0.8
    probs[right, gold[right]] += 1
    probs /= probs.sum(axis=1, keepdims=True)
    return Answered(
        sample=Sample(name="test", sha256="", part="test", examples=examples),
        answers=gold_of(examples, SENTIMENTS, probs),
        examples=examples,
        predictions=(ANSWERED,) * len(examples),
        failed=0,
    )


def main() -> None:
    """Make the rows, run the command on them in a fresh process, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sources", nargs="+")
    parser.add_argument("--rows", type=int, action="append", help="may be repeated")
    parser.add_argument("--command", choices=["train", "curate"], default="train")
    parser.add_argument("--baselines", action="store_true", help="fit and judge the baselines too")
    parser.add_argument("--out", help="name of the result file (default: million_rows_COMMAND)")
    options = parser.parse_args()
    command = partial(train, baselines=options.baselines) if options.command == "train" else curate
    before, results = surroundings(), []
    for count in options.rows or (100_000, 300_000, 1_000_000):
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "in.jsonl"
            real = synthetic(options.sources, count, source)
            size = source.stat().st_size
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as one:
                for found in one.submit(command, str(source)).result():
                    results.append({"rows": count, "bytes": size, **found})
                    print(results[-1], flush=True)  # noqa: T201 # progress of a program
    settings = {
        "real_rows": real,
        "max_tokens": MAX_TOKENS,
        "sources": [Path(name).stem for name in options.sources],
    }
    name = options.out or f"million_rows_{options.command}"
    result = {"machine": before, "settings": settings, "results": results}
    print(write_result(RESULTS / f"{name}.json", result))  # noqa: T201 # the result of a program


if __name__ == "__main__":
    main()
