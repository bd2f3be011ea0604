"""What do a million rows take, in `curate` and in the parts of `train` that are not the model?

    python -m benchmarks.training.million_rows SET.parquet... [--rows 100000 --rows 1000000]

Real texts are perturbed into so many rows. Each step runs in a fresh process, so that its peak
memory is its own: `curate` (leaks, repeats, near-repeats), `read` (a list of examples), `split`
(train, validation, test, repeats and conflicts), `tokenize` (flat arrays of ids). Two numbers of
rows show whether a step is linear.

The bound: a row costs about 0.2 ms to read, clean and MinHash in one process, so a million take at
least three minutes in `curate`; examples take about 1 KiB of memory each beside their text.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import resource
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.record import RESULTS, surroundings, write_result
from sentimill.text.tokenizer import TextEncoder
from sentimill_train.curation.pipeline import CurateJob, curate_rows
from sentimill_train.data.examples import read_examples
from sentimill_train.data.schema import SENTIMENTS
from sentimill_train.data.splits import part
from sentimill_train.data.tokenized import tokenise
from sentimill_train.model.pretrained import find_pretrained

LABELS = ("negative", "neutral", "positive")
STEPS = ("curate", "read", "split", "tokenize")
MAX_TOKENS = 128
VARIANTS_OF_A_ROW = (0.10, 0.35, 0.55)
"""Shares of exact repeats, of repeats with a word or two changed, and of shuffled sentences."""


def synthetic(sources: list[str], rows: int, path: Path) -> int:
    """Write *rows* rows made from real ones; returns how many real ones there were."""
    import pyarrow.parquet as pq

    rng = random.Random(0)
    real = [
        (row["text"], row["label"], name)
        for name in sources
        for row in pq.read_table(name, columns=["text", "label"]).to_pylist()
        if row["label"] in LABELS
    ]
    words = [word for text, _, _ in rng.sample(real, 2000) for word in text.split()[:40]]
    with path.open("w", encoding="utf-8") as file:
        for n in range(rows):
            text, label, name = real[n] if n < len(real) else rng.choice(real)
            if n >= len(real):
                text = _variant(text, words, rng)
            sure = rng.uniform(0.4, 1.0)
            rest = (1 - sure) / 2
            probs = [sure if label == other else rest for other in LABELS]
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


def measured(step: str, source: str) -> dict[str, Any]:
    """Run a step in this process, and return its figures."""
    started, cpu = time.monotonic(), time.process_time()
    before: dict[str, float] = {}
    found: dict[str, Any] = {}
    if step == "curate":
        out = Path(source).with_suffix(".out.jsonl")
        curated = curate_rows(CurateJob(source=source, out=out))
        found = {"kept": curated.kept, "drops": curated.drops}
    else:
        examples = read_examples(source)
        if step != "read":
            before = {"seconds": time.monotonic() - started, "cpu": time.process_time() - cpu}
            parted = part(examples, SENTIMENTS)
            found = {"repeated": parted.repeated, "conflicting": parted.conflicting}
        if step == "tokenize":
            before = {"seconds": time.monotonic() - started, "cpu": time.process_time() - cpu}
            encoder = TextEncoder(
                find_pretrained().tokenizer_json(), max_tokens=MAX_TOKENS, truncation="head-tail"
            )
            rows, _ = tokenise(parted.train, encoder, SENTIMENTS)
            found = {"tokens": len(rows.ids)}
    return {
        **found,
        "seconds": round(time.monotonic() - started - before.get("seconds", 0.0), 1),
        "cpu_seconds": round(time.process_time() - cpu - before.get("cpu", 0.0), 1),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def main() -> None:
    """Make the rows, run each step in a fresh process, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sources", nargs="+")
    parser.add_argument("--rows", type=int, action="append", help="may be repeated")
    parser.add_argument("--out", default="million_rows", help="name of the result file")
    options = parser.parse_args()
    before, results = surroundings(), []
    for count in options.rows or (100_000, 1_000_000):
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "in.jsonl"
            real = synthetic(options.sources, count, source)
            size = source.stat().st_size
            for step in STEPS:
                with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as one:
                    found = one.submit(measured, step, str(source)).result()
                results.append({"rows": count, "bytes": size, "step": step, **found})
                print(results[-1], flush=True)  # noqa: T201 # progress of a program
    settings = {"real_rows": real, "max_tokens": MAX_TOKENS}
    result = {"machine": before, "settings": settings, "results": results}
    line = write_result(RESULTS / f"{options.out}.json", result)
    print(line)  # noqa: T201 # the result of a program


if __name__ == "__main__":
    main()
