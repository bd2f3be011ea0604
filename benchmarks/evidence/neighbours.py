"""Does an index of labelled reviews improve the reference student on kinds that it never learnt?

    python -m benchmarks.evidence.neighbours --data DIR [--train FOLDER] [--cache FILE]

Three sets that the student learnt nothing of (airline tweets, DynaSent, rewritten Yelp reviews),
and the hard kinds that its training left out. From each set, n rows are drawn into the index. The
test rows are then answered by the student alone; by the blend with their 32 nearest neighbours,
which is fitted on the indexed rows (no row is its own neighbour); and by two rivals that see the
same n rows: a logistic regression on the student's log-probabilities (`recalibrated`), and one on
these and the states (`new head`). --train FOLDER adds `sentimill train` with its defaults on the
same rows, one seed at 500 rows.

The bound: an index that holds each test text itself would answer every row right. The search is
exact here; `benchmarks.evidence.index_rate` measures the approximate one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.evidence.blend import blended, fit_blend
from benchmarks.record import RESULTS, surroundings, write_result
from benchmarks.reference.mix import HARD_KINDS_HELD_OUT
from benchmarks.runs import spread_of
from sentimill.bundle.reference import reference_bundle
from sentimill.classifier import Classifier, probabilities
from sentimill.types import Prediction
from sentimill_train.data.examples import read_examples
from sentimill_train.metrics.classification import Answers, accuracy, ece, macro_f1, nll

SETS: Final = {"twitter_airline": "train", "dynasent_r1": "validation", "yelp_augpe": "train"}
"""Each set and the split that rows are drawn from; Yelp's is also judged on, in parts by hash."""

SIZES: Final = (100, 500, 2000)
SEEDS: Final = (0, 1, 2)
NEIGHBOURS: Final = 32
TEST_ROWS: Final = 1500
POOL_ROWS: Final = 3000
LABELS: Final = ("negative", "neutral", "positive")
TRAINED_ROWS: Final = 500

Row = tuple[str, int]
Embedded = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]
"""Unit states, probs, and gold labels of some rows."""


def rows_of(data: Path, name: str, split: str) -> tuple[list[Row], list[Row]]:
    """Return the text and the label of the rows to draw from, and of the rows to judge on."""
    table = pq.read_table(data / f"{name}.parquet", columns=["id", "text", "label", "split"])
    rows = sorted(table.to_pylist(), key=lambda row: hashlib.sha256(row["id"].encode()).digest())

    def of(wanted: str) -> list[Row]:
        kept = [row for row in rows if row["split"] == wanted and row["label"] in LABELS]
        return [(row["text"], LABELS.index(row["label"])) for row in kept]

    pool, test = of(split), of("test")
    if not test:
        test, pool = pool[:TEST_ROWS], pool[TEST_ROWS:]
    return pool[:POOL_ROWS], test[:TEST_ROWS]


def hard_rows(split: str, family: str = "") -> list[Row]:
    """Return the rows of the hard kinds that the student's training left out for *split*."""
    lines = HARD_KINDS_HELD_OUT.read_text(encoding="utf-8").splitlines()
    held = dict(line.split("\t")[:2] for line in lines if family in line.split("\t")[3])
    return [
        (row.text, LABELS.index(str(row.label)))
        for row in read_examples("hard-kinds")
        if held.get(hashlib.sha256(row.text.encode()).hexdigest()) == split
    ]


class Cache:
    """Embeds each text once: states and probs are kept in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, NDArray[np.float32]] = {}
        if path.exists():
            stored = np.load(path)
            self._known = dict(zip(stored["keys"].tolist(), stored["values"], strict=True))
        self._model: Classifier | None = None

    def embed(self, rows: Sequence[Row]) -> Embedded:
        """Return *rows* embedded; every text of these sets can be read."""
        keys = [hashlib.sha256(text.encode()).hexdigest() for text, _ in rows]
        new = {k: text for k, (text, _) in zip(keys, rows, strict=True) if k not in self._known}
        if new:
            self._model = self._model or Classifier.load(
                reference_bundle(), engine="onnx", precision="int8", threads=1, states=True
            )
            _, values = self._model.compute(list(new.values()), progress=True)
            temperature = self._model.bundle.manifest.precision("int8").temperature
            probs, states = probabilities(values[:, :3], temperature), values[:, 3:]
            states /= np.linalg.norm(states, axis=1, keepdims=True)
            self._known |= dict(zip(new, np.concatenate([probs, states], axis=1), strict=True))
            values = np.stack(list(self._known.values()))
            np.savez(self._path, keys=np.array(list(self._known)), values=values)
        values = np.stack([self._known[key] for key in keys])
        gold = np.array([label for _, label in rows], dtype=np.int64)
        return values[:, len(LABELS) :], values[:, : len(LABELS)], gold


def nearest(
    queries: NDArray[np.float32], indexed: Embedded, *, itself: bool = False
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the similarity and the labels of the nearest indexed rows, the nearest first.

    itself: the queries are the indexed rows, and none is its own neighbour.
    """
    similar = queries @ indexed[0].T
    if itself:
        np.fill_diagonal(similar, -np.inf)
    count = min(NEIGHBOURS, similar.shape[1] - itself)
    order = np.argsort(-similar, axis=1, kind="stable")[:, :count]
    return np.take_along_axis(similar, order, axis=1), indexed[2][order]


def judged(probs: NDArray[np.floating[Any]], gold: NDArray[np.int64]) -> dict[str, float]:
    """Return the figures of some answers."""
    answers = Answers(LABELS, gold, np.asarray(probs, dtype=np.float64))
    ones = np.ones((1, len(gold)))
    measures = {"accuracy": accuracy, "macro_f1": macro_f1, "ece": ece, "nll": nll}
    return {name: float(measure(answers, ones)[0]) for name, measure in measures.items()}


def rivals(indexed: Embedded, test: Embedded) -> dict[str, NDArray[np.float64]]:
    """Return the probs of two classifiers that are fitted on the indexed rows in seconds."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    logs = [np.log(np.clip(part[1], 1e-6, 1)) for part in (indexed, test)]
    scaled = LogisticRegression(max_iter=1000).fit(logs[0], indexed[2])
    scale = StandardScaler().fit(indexed[0])
    wide = [
        np.concatenate([scale.transform(part[0]) / 20, log], axis=1)
        for part, log in zip((indexed, test), logs, strict=True)
    ]
    head = LogisticRegression(max_iter=1000).fit(wide[0], indexed[2])
    return {
        "recalibrated": scaled.predict_proba(logs[1]),
        "new head": head.predict_proba(wide[1]),
    }


def run(indexed: Embedded, test: Embedded) -> dict[str, dict[str, float]]:
    """Return the figures of one draw of rows, by who answers."""
    blend = fit_blend(indexed[1], indexed[2], *nearest(indexed[0], indexed, itself=True))
    probs = blended(test[1], *nearest(test[0], indexed), blend) if blend.weight else test[1]
    fitted = {"weight": blend.weight, "temperature": blend.temperature}
    found = {"blend": judged(probs, test[2]) | fitted}
    return found | {name: judged(made, test[2]) for name, made in rivals(indexed, test).items()}


def trained(rows: Sequence[Row], test: Sequence[Row], folder: Path, name: str) -> dict[str, float]:
    """Return the figures of `sentimill train` with its defaults on *rows*, and its seconds."""
    source, out = folder / f"{name}.jsonl", folder / name
    lines = [json.dumps({"text": text, "label": LABELS[label]}) for text, label in rows]
    source.write_text("\n".join(lines) + "\n")
    began = time.monotonic()
    if not out.exists():
        command = ["-c", "from sentimill.cli.main import main; main()", "train"]
        command += ["--reviews", str(source), "--out", str(out)]
        subprocess.run([sys.executable, *command], check=True, env=os.environ)
    seconds = time.monotonic() - began
    answers = Classifier.load(out, threads=1).classify([text for text, _ in test])
    probs = np.array([answer.probs for answer in answers if isinstance(answer, Prediction)])
    return judged(probs, np.array([label for _, label in test])) | {"seconds": seconds}


def main() -> None:
    """Measure, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of Parquet files")
    parser.add_argument("--cache", type=Path, default=Path("/tmp/neighbours.npz"))
    parser.add_argument("--train", type=Path, help="also train, in this folder")
    parser.add_argument("--out", type=Path, default=RESULTS / "neighbours.json")
    given = parser.parse_args()
    cache = Cache(given.cache)
    result: dict[str, Any] = {"machine": surroundings(), "neighbours": NEIGHBOURS, "sets": {}}
    sets = {name: rows_of(given.data, name, split) for name, split in SETS.items()}
    sets["hard kinds"] = (hard_rows("validation"), hard_rows("test"))
    sets["irony alone"] = (hard_rows("validation"), hard_rows("test", "irony"))
    for name, (pool, test_rows) in sets.items():
        whole, test = cache.embed(pool), cache.embed(test_rows)
        found: dict[str, Any] = {
            "test_rows": len(test_rows),
            "pool_rows": len(pool),
            "student": judged(test[1], test[2]),
        }
        # From a small pool, as many hundred rows as leave the seeds a choice.
        most = (len(pool) - 1) // 100 * 100
        for size in sorted({min(size, most) for size in SIZES}):
            runs = []
            for seed in SEEDS:
                drawn = np.random.default_rng(seed).permutation(len(pool))[:size]
                indexed = (whole[0][drawn], whole[1][drawn], whole[2][drawn])
                runs.append(run(indexed, test))
                if given.train and name in SETS and (size, seed) == (TRAINED_ROWS, 0):
                    chosen = [pool[k] for k in drawn.tolist()]
                    figures = trained(chosen, test_rows, given.train, name)
                    found["trained"] = {"rows": size, "seed": seed, **figures}
            found[str(size)] = {
                who: spread_of([one[who] for one in runs], list(runs[0][who])) for who in runs[0]
            }
        result["sets"][name] = found
        sys.stderr.write(f"{name} {json.dumps(found, indent=1)}\n")
    sys.stdout.write(write_result(given.out, result) + "\n")


if __name__ == "__main__":
    main()
