"""What does an index cost: time to build, bytes, milliseconds a lookup, and the classifier's rate?

    python -m benchmarks.evidence.index_rate --rows 1000 10000 50000 [--data DIR] [--states FILE]

The states are random unit vectors of the student's width. They need as much memory and disk as real
states. Their time and recall are the worst case of an approximate search, because no two vectors
are alike. So --states takes the cache of `benchmarks.evidence.neighbours`, and adds a line for real
states. --grow adds another line for that many states, which are made from the real ones. Times are
CPU seconds of one thread, since other work may run at the same time. With --data, the reference
student answers the same 64 reviews with and without an index of the last size, in turns; the ratio
of the CPU seconds is the cost of the index.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.record import RESULTS, process_status, surroundings, write_result
from benchmarks.reviews import read_reviews
from sentimill.bundle.reference import reference_bundle
from sentimill.classifier import Classifier
from sentimill.evidence.index import Index

Vectors = NDArray[np.float32]

WIDTH: Final = 384
QUERIES: Final = 200
TEXTS: Final = 64
REPEATS: Final = 5


def units(rows: int, seed: int) -> Vectors:
    """Return random unit vectors (rows, WIDTH)."""
    made = np.random.default_rng(seed).standard_normal((rows, WIDTH), dtype=np.float32)
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    return made


def grown(states: Vectors, rows: int) -> Vectors:
    """Return unit vectors (rows, WIDTH) that lie as close together as real states do.

    Each is a point between a real state and one of its 20 nearest, drawn at random. A state is its
    own nearest, so one in twenty is a real one.
    """
    draw = np.random.default_rng(2)
    unit = states / np.linalg.norm(states, axis=1, keepdims=True)
    nearest = np.concatenate(
        [
            np.argpartition(-(unit[at : at + 1000] @ unit.T), 20, axis=1)[:, :20]
            for at in range(0, len(unit), 1000)
        ]
    )
    one = draw.integers(len(unit), size=rows)
    other = nearest[one, draw.integers(20, size=rows)]
    made: Vectors = unit[one]
    made += draw.random((rows, 1), dtype=np.float32) * (unit[other] - made)
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    return made


def cpu_seconds(work: Callable[[], object]) -> float:
    """Return the CPU seconds of *work*."""
    began = time.process_time()
    work()
    return time.process_time() - began


def built(states: Vectors, queries: Vectors, folder: Path, digest: str) -> dict[str, Any]:
    """Build an index of *states*, write it, open it again, and return the figures."""
    rows, index = len(states), Index(digest)
    names, labels, texts = [f"r{k}" for k in range(rows)], ["neutral"] * rows, [""] * rows
    build = cpu_seconds(lambda: index.add(names, labels, texts, states))
    index.save(folder)
    before = process_status("VmRSS")
    opened: list[Index] = []
    load = cpu_seconds(lambda: opened.append(Index.open(folder)))
    memory = (process_status("VmRSS") - before) / 1024
    lookup = cpu_seconds(lambda: [opened[0].nearest(one[None]) for one in queries]) / QUERIES
    exact = np.argsort(-(queries @ states.T), axis=1)[:, :5]
    found = [{int(n.id[1:]) for n in near} for near in opened[0].nearest(queries)]
    recall = sum(len(f & set(e)) for f, e in zip(found, exact.tolist(), strict=True))
    add = cpu_seconds(lambda: opened[0].add(["new"], ["neutral"], [""], queries[:1]))
    return {
        "rows": rows,
        "build_cpu_seconds": build,
        "file_mib": sum(file.stat().st_size for file in folder.iterdir()) / 2**20,
        "load_cpu_seconds": load,
        "memory_mib": memory,
        "lookup_cpu_ms": 1000 * lookup,
        "recall_of_5": recall / (5 * QUERIES),
        "add_one_cpu_seconds": add,
    }


def slowdown(data: Path, folder: Path) -> dict[str, float]:
    """Return how much more CPU a classifier with the index takes, over interleaved repeats."""
    texts = read_reviews(data, TEXTS)
    plain = Classifier.load(reference_bundle(), engine="onnx", threads=1)
    indexed = Classifier.load(reference_bundle(), engine="onnx", threads=1, index=folder)
    ratios = []
    for _ in range(REPEATS):
        without = cpu_seconds(lambda: plain.classify(texts))
        ratios.append(cpu_seconds(lambda: indexed.classify(texts)) / without)
    return {"median": statistics.median(ratios), "least": min(ratios), "most": max(ratios)}


def main() -> None:
    """Measure, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--data", type=Path, help="folder of Parquet files")
    parser.add_argument("--states", type=Path, help="cache of benchmarks.evidence.neighbours")
    parser.add_argument("--grow", type=int, help="make this many states of those in --states")
    parser.add_argument("--out", type=Path, default=RESULTS / "index_rate.json")
    given = parser.parse_args()
    if given.grow and not given.states:
        parser.error("--grow needs --states")
    result: dict[str, Any] = {"machine": surroundings(), "sizes": []}
    digest = Classifier.load(reference_bundle(), threads=1).bundle.digest
    with tempfile.TemporaryDirectory() as work:
        for rows in given.rows:
            made = built(units(rows, 0), units(QUERIES, 1), Path(work, str(rows)), digest)
            result["sizes"].append(made)
            write_result(given.out, result)
        if given.states:
            values = np.load(given.states)["values"][:, -WIDTH:]
            values = values / np.linalg.norm(values, axis=1, keepdims=True)  # `exact` needs it
            drawn = np.random.default_rng(0).permutation(len(values))
            real = values[drawn[QUERIES:]], values[drawn[:QUERIES]]
            result["real_states"] = built(*real, Path(work, "real"), digest)
            if given.grow:
                many = grown(real[0], given.grow)
                result["grown_states"] = built(many, real[1], Path(work, "grown"), digest)
        if given.data:
            folder = Path(work, str(given.rows[-1]))
            result["cpu_ratio_with_index"] = slowdown(given.data, folder)
    print(write_result(given.out, result))  # noqa: T201 - the result of a program


if __name__ == "__main__":
    main()
