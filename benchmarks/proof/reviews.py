"""Reads real reviews with labels from a folder of Parquet files. No text is kept anywhere.

Test splits are timed and judged. The teacher labelled rows of other splits. So its rows count as
held out only if the student learnt nothing from their set.
"""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Final

import pyarrow.parquet as pq

from sentimill_train.data.schema import Example

SPEED_SETS: Final = ("yelp_kaggle10k", "amazon_blitzer30k", "womens_clothing", "mcdonalds")
"""Sets of the reviews that are timed: long and short, four kinds of business."""

QUALITY_SETS: Final = ("yelp_kaggle10k", "amazon_blitzer30k", "sst5", "womens_clothing")
"""Sets whose test splits are judged."""


def load(data: Path, dataset: str, *splits: str) -> list[Example]:
    """Return a set's labelled rows of *splits*."""
    path = data / f"{dataset}.parquet"
    if not path.is_file():
        raise SystemExit(f"{path} is not there: give the folder of review sets with --data")
    table = pq.read_table(path, columns=["id", "text", "label", "split"])
    return [
        Example(id=row["id"], text=row["text"], label=row["label"], domain=dataset, source=dataset)
        for row in table.to_pylist()
        if row["split"] in splits and row["label"] is not None
    ]


def sample(data: Path, count: int, *, seed: int = 0) -> list[str]:
    """Draw *count* texts to time, in equal parts from the test splits of `SPEED_SETS`."""
    draw = random.Random(seed)
    found: list[str] = []
    for dataset in SPEED_SETS:
        rows = load(data, dataset, "test")
        some = draw.sample(rows, min(len(rows), -(-count // len(SPEED_SETS))))
        found += [row.text for row in some]
    draw.shuffle(found)
    return found[:count]


def taught(data: Path, labels: Path, dataset: str) -> list[Example]:
    """Return the reviews of one set with the teacher's shares as `probs`, by id."""
    rows = map(json.loads, labels.read_text(encoding="utf-8").splitlines())
    shares = {row["id"]: tuple(row["probs"]) for row in rows if row["set"] == dataset}
    found = [
        replace(example, probs=shares[example.id])
        for example in load(data, dataset, "train", "validation", "test")
        if example.id in shares
    ]
    if not found:
        raise SystemExit(f"{labels} has no shares for {dataset}: name another --teacher-set")
    return sorted(found, key=lambda one: one.id)
