"""How good is a student trained on IMDB's own reviews, next to TF-IDF on the same rows?

    python -m benchmarks.training.imdb --bundle bundles/imdb --data DIR

`train` made the bundle from DIR/imdb.parquet and judged it on the whole test split. This program
reads the bundle's metrics, fits the baseline on the same train rows and judges it on the same test
rows. The student's base may be the reference student, which was trained on other reviews, or the
encoder alone; the result file names it. Without a bundle the student's figures stay as the result
file has them, and only the baseline is measured. It takes about ten minutes, mostly for the
baseline's character n-grams.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import RESULTS, surroundings, write_result
from sentimill.bundle.reader import open_bundle
from sentimill_train.data.examples import read_examples
from sentimill_train.data.schema import SENTIMENTS, Example
from sentimill_train.data.splits import part
from sentimill_train.evaluation.baselines import fit_baseline, tfidf_features
from sentimill_train.metrics.intervals import share


def main() -> None:
    """Fit the baseline, and write both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, help="from `train` on IMDB")
    parser.add_argument("--data", type=Path, required=True, help="folder of Parquet files")
    parser.add_argument("--out", type=Path, default=RESULTS / "imdb.json")
    given = parser.parse_args()
    known = json.loads(given.out.read_text(encoding="utf-8")) if given.out.exists() else {}
    student = known if given.bundle is None else of_bundle(given.bundle)
    examples = read_examples(str(given.data / "imdb.parquet"))
    write_result(given.out, {**student, "tfidf": {**beside(examples), **surroundings()}})


def of_bundle(folder: Path) -> dict[str, Any]:
    """Return the figures of the test split that a bundle was judged on, and how it was made."""
    manifest = open_bundle(folder).manifest
    test = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["sets"][0]
    return {
        **surroundings(),
        "question": "trained on IMDB's train split, judged on its test split",
        "base": {"name": manifest.base.name, "sha256": manifest.base.sha256},
        "max_tokens": manifest.max_tokens,
        **{key: test[key] for key in ("rows", "figures", "confusion")},
        "training": manifest.training,
    }


def beside(examples: list[Example]) -> dict[str, Any]:
    """Return the accuracy of TF-IDF with a logistic regression on the same rows."""
    parted = part(examples, SENTIMENTS)
    found = fit_baseline("TF-IDF", tfidf_features(), parted.train, parted.validation, SENTIMENTS)
    said = found.probs([row.text for row in parted.test]).argmax(axis=1)
    gold = np.array([SENTIMENTS.index(row.label or "") for row in parted.test])
    right = share(int((said == gold).sum()), len(gold))
    return {
        "train_rows": len(parted.train),
        "C": found.strength,
        "accuracy": {"value": right.value, "low": right.low, "high": right.high},
    }


if __name__ == "__main__":
    main()
