"""Does `sentimill score` keep a GPU busy, over one Parquet file of a million reviews and over 16?

A job cannot be faster than the engine on token ids that are in memory. So the engine, a job over
one file and a job over 16 files run in turn. The result is the rate of each job divided by that of
the engine (aim: 0.8). Loading the model is not counted. To try the program with few rows, run it on
a CPU.

    python -m benchmarks.scoring.gpu_jobs --bundle FOLDER --out benchmarks/results/scoring-gpu.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.record import ROOT, surroundings, write_result
from benchmarks.scoring.stages import reviews
from sentimill.classifier import Classifier, plan_batches
from sentimill.text.tokenizer import Encoded

_ENGINE_TEXTS = 100_000


def main() -> None:
    """Measure, and write JSON to --out and to stdout."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, default=ROOT / "bundles" / "reference")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--files", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--processes", type=int, help="by default those of `score`")
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    options = [] if chosen.processes is None else ["--processes", str(chosen.processes)]
    with tempfile.TemporaryDirectory(prefix="gpu-jobs-") as folder:
        found = measure(
            Path(folder), chosen.bundle, chosen.rows, chosen.files, chosen.repeats, options
        )
    sys.stdout.write(write_result(chosen.out, {**surroundings(), **found}) + "\n")


def measure(
    folder: Path, bundle: Path, rows: int, files: int, repeats: int, options: list[str]
) -> dict[str, object]:
    """Return the rates of engine and jobs, and the jobs' shares of the engine's rate."""
    texts = reviews(rows)
    write(folder / "one", texts, 1)
    write(folder / "many", texts, files)
    classifier = Classifier.load(bundle)
    rows_of = [
        one.ids
        for one in classifier.encoder.encode(texts[:_ENGINE_TEXTS])
        if isinstance(one, Encoded)
    ]
    plans = plan_batches([*map(len, rows_of)], classifier.batch_tokens)
    batches = [[rows_of[k] for k in batch] for batch in plans]
    classifier.at_once(classifier.run, batches[:8])
    rates: dict[str, list[float]] = {"engine": [], "one": [], "many": []}
    for _ in range(repeats):
        began = time.perf_counter()
        classifier.at_once(classifier.run, batches)
        rates["engine"].append(len(rows_of) / (time.perf_counter() - began))
        for name in ("one", "many"):
            rates[name].append(rows / score(folder, name, bundle, options))
    return {
        "rows": rows,
        "files": files,
        "repeats": repeats,
        "engine": str(classifier.engine.info),
        "rows_per_second": {name: statistics.median(found) for name, found in rates.items()},
        "share_of_engine": {
            name: statistics.median(
                job / engine for job, engine in zip(rates[name], rates["engine"], strict=True)
            )
            for name in ("one", "many")
        },
        "all": rates,
    }


def write(folder: Path, texts: list[str], files: int) -> None:
    """Write *texts* with an id to as many Parquet files."""
    folder.mkdir()
    for k in range(files):
        part = texts[k * len(texts) // files : (k + 1) * len(texts) // files]
        table = pa.table({"id": range(len(part)), "text": part})
        pq.write_table(table, folder / f"{k:02}.parquet", row_group_size=100_000)


def score(folder: Path, name: str, bundle: Path, options: list[str]) -> float:
    """Run the command over the files of the folder *name*; return its seconds without loading."""
    summary = folder / "summary.json"
    command = [sys.executable, "-c", "from sentimill.cli.main import main; main()", "score"]
    command += [f"{folder / name}/*.parquet", f"{folder / name}-out/", "--overwrite", "--restart"]
    command += ["--bundle", str(bundle), "--summary", str(summary), *options]
    subprocess.run(command, check=True)
    return float(json.loads(summary.read_text())["seconds"])


if __name__ == "__main__":
    main()
