"""What does curating a million rows take? Peak memory and time, with real texts perturbed.

The bound: a row costs about 0.2 ms to read, look at and MinHash in one process, so a million take
at least three minutes; memory is about 60 bytes a row of arrays, the baseline's sample of 12,000
texts, and Python with scikit-learn. Run as
`python -m benchmarks.training.curate_million SET.parquet...`.
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

from benchmarks.proof.host import machine, write_result
from sentimill_train.curation.pipeline import CurateJob, curate_rows

LABELS = ("negative", "neutral", "positive")
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


def curate_alone(source: Path, out: Path, keep: int, holdout: list[str]) -> dict[str, Any]:
    """Curate in this process, and return its figures."""
    steps: dict[str, float] = {}
    started = last = time.monotonic()

    def progress(step: str, done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        steps[step] = steps.get(step, 0.0) + now - last
        last = now

    job = CurateJob(source=str(source), out=out, keep=keep, holdout=tuple(holdout))
    found = curate_rows(job, progress=progress)
    return {
        "rows": found.rows,
        "kept": found.kept,
        "drops": found.drops,
        "seconds": round(time.monotonic() - started, 1),
        "cpu_seconds": round(time.process_time(), 1),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "seconds_by_step": {step: round(value, 1) for step, value in steps.items()},
        "notes": found.notes,
    }


def main() -> None:
    """Make the rows, curate them in a fresh process, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sources", nargs="+")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--holdout", action="append", default=[])
    parser.add_argument("--keep", type=int, default=50_000)
    options = parser.parse_args()
    before = machine()
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "in.jsonl", Path(folder) / "out.jsonl"
        real = synthetic(options.sources, options.rows, source)
        size = source.stat().st_size
        # A fresh process, so that its peak memory is its own.
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            found = pool.submit(curate_alone, source, out, options.keep, options.holdout).result()
    settings = {"real_rows": real, "rows": options.rows, "keep": options.keep, "bytes": size}
    write_result("curate_million", {"machine": before, "settings": settings, "result": found})


if __name__ == "__main__":
    main()
