"""Real reviews for the benchmarks, read from a folder of Parquet files; no text is kept anywhere.

Test splits only, except where the teacher's labels are: those are rows of train splits, and count
as held out only for a student that was trained without them.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow.parquet as pq

__all__ = ["QUALITY_SETS", "SPEED_SETS", "Review", "load", "sample", "teacher_rows"]

SPEED_SETS: Final = ("yelp_kaggle10k", "amazon_blitzer30k", "womens_clothing", "mcdonalds")
"""Where the reviews that are timed come from: long and short, four kinds of business."""

QUALITY_SETS: Final = ("yelp_kaggle10k", "amazon_blitzer30k", "sst5", "womens_clothing")
"""Whose test splits are judged, whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """One review. label: from its stars or its source. teacher: shares in label order, or None."""

    id: str
    text: str
    label: str
    dataset: str
    teacher: tuple[float, ...] | None = None


def load(data: Path, dataset: str, split: str) -> list[Review]:
    """Return a set's labelled rows of one split."""
    path = data / f"{dataset}.parquet"
    if not path.is_file():
        raise SystemExit(f"{path} is not there: give the folder of review sets with --data")
    table = pq.read_table(path, columns=["id", "text", "label", "split"])
    return [
        Review(id=row["id"], text=row["text"], label=row["label"], dataset=dataset)
        for row in table.to_pylist()
        if row["split"] == split and row["label"] is not None
    ]


def sample(data: Path, count: int, *, seed: int = 0) -> list[Review]:
    """Draw *count* reviews to time, in equal parts from the test splits of `SPEED_SETS`."""
    draw = random.Random(seed)
    found: list[Review] = []
    for dataset in SPEED_SETS:
        rows = load(data, dataset, "test")
        found += draw.sample(rows, min(len(rows), -(-count // len(SPEED_SETS))))
    draw.shuffle(found)
    return found[:count]


def teacher_rows(data: Path, labels: Path, parts: frozenset[int]) -> list[Review]:
    """Return the reviews of the named reading parts with the teacher's shares."""
    wanted: dict[str, dict[str, tuple[float, ...]]] = {}
    for line in labels.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row["part"] in parts:
            wanted.setdefault(row["set"], {})[row["id"]] = tuple(row["probs"])
    found: list[Review] = []
    for dataset, shares in sorted(wanted.items()):
        for review in load(data, dataset, "train"):
            if review.id in shares:
                found.append(
                    Review(
                        id=review.id,
                        text=review.text,
                        label=review.label,
                        dataset=dataset,
                        teacher=shares[review.id],
                    )
                )
    return found
