"""How close is `sentimill score` to the rate of the engine, and which faults does it survive?

An offline job cannot be faster than the engine on texts that are in memory already. So the first
figure is the ratio of the job's rate to the rate of that loop, measured in turns in one run. With a
tiny model the engine takes almost no time, so the rate and memory of the pipeline itself are
measured. The faults check that an output is complete or absent whatever happens, and that a resumed
job ends with the same bytes.

    python -m benchmarks.scoring.score_job ratio    --bundle bundles/demo --data shared/data
    python -m benchmarks.scoring.score_job pipeline --rows 5000000
    python -m benchmarks.scoring.score_job faults   --kills 100
    python -m benchmarks.scoring.score_job records
    python -m benchmarks.scoring.score_job equal    --bundle bundles/demo --data shared/data
    python -m benchmarks.scoring.score_job peers    --bundle bundles/demo --data shared/data
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.record import RESULTS, peak_mib, surroundings
from benchmarks.scoring.faults import faults
from benchmarks.scoring.other_scorers import peers
from benchmarks.scoring.records import records
from benchmarks.scoring.tables import fill
from sentimill.classifier import Classifier, plan_batches
from sentimill.scoring.job import Score
from sentimill.scoring.scorers import LocalScorer
from sentimill.scoring.summary import useful_share
from sentimill.text.tokenizer import Encoded

TEXT_SETS: Final = ("yelp_kaggle10k.parquet", "imdb.parquet")
FORMATS: Final = ("parquet", "csv", "jsonl")


def main() -> None:
    """Run one question and write its answer to results/, and as the last line to stdout."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "question",
        choices=["ratio", "pipeline", "memory", "faults", "records", "equal", "peers"],
    )
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--data", type=Path, help="folder of labelled reviews")
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--format", default="csv")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--readme", type=Path, help="README whose figures to write anew")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="scoring-") as folder:
        found = answer(chosen, Path(folder))
    if chosen.question == "memory":
        sys.stdout.write(json.dumps(found) + "\n")
        return
    result = {"question": chosen.question, **surroundings() | {"pyarrow": pa.__version__}, **found}
    chosen.results.mkdir(parents=True, exist_ok=True)
    (chosen.results / f"scoring-{chosen.question}.json").write_text(
        json.dumps(result, indent=2) + "\n"
    )
    sys.stdout.write(json.dumps(result) + "\n")
    if chosen.readme:
        chosen.readme.write_text(fill(chosen.readme.read_text(encoding="utf-8"), chosen.results))


def answer(chosen: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Measure what was asked for."""
    if chosen.question == "faults":
        return faults(folder, chosen.kills)
    if chosen.question == "records":
        return records(folder)
    if chosen.question == "pipeline":
        return pipeline(chosen.rows, chosen.repeats)
    if chosen.question == "memory":
        return one_pipeline(folder, chosen.rows, chosen.format)
    texts = read_texts(chosen.data, chosen.rows)
    if chosen.question == "ratio":
        classifier = Classifier.load(chosen.bundle, threads=chosen.threads)
        return ratio(folder, classifier, texts, chosen.repeats)
    if chosen.question == "equal":
        return equal(folder, chosen.bundle, texts)
    return peers(folder, chosen.bundle, texts, chosen.repeats)


def read_texts(data: Path, rows: int) -> list[str]:
    """Return *rows* reviews, taken evenly from Yelp and IMDB."""
    texts: list[str] = []
    for name in TEXT_SETS:
        column = pq.read_table(data / name, columns=["text"])["text"]
        step = max(1, len(column) // (rows // len(TEXT_SETS)))
        texts += column.take(pa.array(range(0, len(column), step))).to_pylist()
    return texts[:rows]


def write_table(path: Path, texts: Sequence[str]) -> None:
    """Write *texts* with an id in the format that the suffix of *path* names."""
    table = pa.table({"id": range(len(texts)), "text": texts})
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=100_000)
    elif path.suffix == ".csv":
        import csv

        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("id", "text"), *enumerate(texts)])
    else:
        with path.open("w", encoding="utf-8") as file:
            for i, text in enumerate(texts):
                file.write(json.dumps({"id": i, "text": text}, ensure_ascii=False) + "\n")


def bare_loop(classifier: Classifier, texts: Sequence[str]) -> None:
    """Classify texts that are in memory: tokenise all, sort by length, run. Nothing is written."""
    encoded = [one for one in classifier.encoder.encode(texts) if isinstance(one, Encoded)]
    for batch in plan_batches([len(one.ids) for one in encoded], classifier.batch_tokens):
        classifier.run([encoded[k].ids for k in batch])


def ratio(
    folder: Path, classifier: Classifier, texts: Sequence[str], repeats: int
) -> dict[str, object]:
    """Compare the job in each format with the bare loop, in turns."""
    sources = {kind: folder / f"in.{kind}" for kind in FORMATS}
    for path in sources.values():
        write_table(path, texts)
    scorer = LocalScorer(classifier)
    bare_loop(classifier, texts[:200])
    seconds: dict[str, list[float]] = {name: [] for name in ("bare", *FORMATS)}
    share = 0.0
    for _ in range(repeats):
        seconds["bare"].append(timed(lambda: bare_loop(classifier, texts)))
        for kind, path in sources.items():
            job = Score(sources=(str(path),), target=str(folder / f"out.{kind}"), overwrite=True)
            began = time.perf_counter()
            done = job.run(scorer)
            seconds[kind].append(time.perf_counter() - began)
            share = useful_share(done.counts)
    return {
        "rows": len(texts),
        "repeats": repeats,
        "rows_per_second": {k: len(texts) / statistics.median(v) for k, v in seconds.items()},
        # Ratios within one turn: a slow minute of the machine then slows both.
        "share_of_bare_loop": {
            k: statistics.median(
                bare / ours for bare, ours in zip(seconds["bare"], seconds[k], strict=True)
            )
            for k in FORMATS
        },
        "useful_share": share,
        "seconds": seconds,
    }


def timed(call: Callable[[], None]) -> float:
    """Return how many seconds *call* takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def pipeline(rows: int, repeats: int) -> dict[str, object]:
    """Measure rate and peak memory with a tiny model, each size in a process of its own."""
    found: dict[str, object] = {}
    for kind in FORMATS:
        for size in sorted({min(10_000, rows), min(1_000_000, rows), rows}):
            command = [
                sys.executable,
                "-m",
                "benchmarks.scoring.score_job",
                "memory",
                "--rows",
                str(size),
                "--format",
                kind,
            ]
            runs = [
                json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
                for _ in range(repeats if size == rows else 1)
            ]
            found[f"{kind} {size}"] = {
                "rows_per_second": statistics.median(run["rows_per_second"] for run in runs),
                "peak_mib": max(run["peak_mib"] for run in runs),
                "useful_share": runs[0]["useful_share"],
            }
    return {"rows": rows, "repeats": repeats, "runs": found}


def one_pipeline(folder: Path, rows: int, kind: str) -> dict[str, object]:
    """Score *rows* short rows with the tiny model; the input is written by another process."""
    from tiny_bundle import write_tiny_bundle

    source = folder / f"in.{kind}"
    code = (
        f"from benchmarks.scoring import score_job; score_job.write_short({str(source)!r}, {rows})"
    )
    paths = [str(Path(__file__).parents[2]), str(Path(__file__).parents[2] / "tests" / "support")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*paths, *sys.path])}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    bundle = write_tiny_bundle(folder / "tiny").path
    scorer = LocalScorer(Classifier.load(bundle, threads=1))
    job = Score(sources=(str(source),), target=str(folder / f"out.{kind}"))
    done = job.run(scorer)
    return {
        "rows_per_second": done.rows / done.seconds,
        "peak_mib": peak_mib(),
        "useful_share": useful_share(done.counts),
    }


def write_short(path: str, rows: int) -> None:
    """Write *rows* short rows of two to nine words, a hundred thousand at a time."""
    words = ("good", "bad", "battery", "the", "fine", "lasts", "ok")
    block = [" ".join(words[(i * k) % 7] for k in range(1, 2 + i % 8)) for i in range(100_000)]
    target = Path(path)
    if target.suffix == ".parquet":
        table = pa.table({"text": block})
        with pq.ParquetWriter(
            target, pa.schema([("id", pa.int64()), ("text", pa.string())])
        ) as out:
            for at in range(0, rows, len(block)):
                ids = pa.array(range(at, min(rows, at + len(block))))
                out.write_table(pa.table({"id": ids, "text": table["text"][: len(ids)]}))
        return
    with target.open("w", encoding="utf-8") as file:
        if target.suffix == ".csv":
            file.write("id,text\n")
        for i in range(rows):
            text = block[i % len(block)]
            csv = target.suffix == ".csv"
            file.write(f"{i},{text}\n" if csv else f'{{"id":{i},"text":"{text}"}}\n')


def equal(folder: Path, bundle: Path, texts: Sequence[str]) -> dict[str, object]:
    """Compare probs of the job, `classify`, gRPC and Ray, bit for bit."""
    from live_server import live_server
    from sentimill.scoring.ray_runner import Cluster, run_on_ray
    from sentimill.scoring.server_scorer import ServerScorer
    from sentimill.server.settings import Serve

    source = folder / "in.parquet"
    write_table(source, texts)
    classifier = Classifier.load(bundle)
    names = [f"sentiment_prob_{label}" for label in classifier.labels]

    def job(name: str) -> Score:
        return Score(sources=(str(source),), target=str(folder / name), probs=True)

    def probs(name: str) -> pa.Table:
        return pq.read_table(folder / name, columns=names)

    job("local.parquet").run(LocalScorer(classifier))
    with live_server(Serve(bundle=bundle, port=0, metrics_port=0)) as serving:
        scorer = ServerScorer(serving.address)
        job("server.parquet").run(scorer)
        scorer.close()
    run_on_ray(job("ray.parquet"), Cluster(bundle=bundle))
    answers = [
        getattr(one, "probs", (float("nan"),) * len(names)) for one in classifier.classify(texts)
    ]
    direct = pa.table(
        {
            n: pa.array([a[k] for a in answers], pa.float32(), from_pandas=True)  # NaN is null
            for k, n in enumerate(names)
        }
    )
    ours = probs("local.parquet")
    return {
        "rows": len(texts),
        "null_rows": pc.sum(pc.is_null(ours[names[0]])).as_py(),
        "equal_to_classify": ours.equals(direct),
        "equal_to_server": ours.equals(probs("server.parquet")),
        "equal_to_ray": ours.equals(probs("ray.parquet")),
    }


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "support"))
    main()
