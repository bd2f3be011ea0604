"""Reads real reviews for the benchmarks; they are never copied into the repository."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow.parquet as pq

__all__ = ["SETS", "read_reviews"]

SETS = ("yelp_kaggle10k.parquet", "imdb.parquet")
"""Every figure is for their mix of lengths: mean 170 tokens, three in ten cut at 256."""


def read_reviews(folder: Path, count: int, *, seed: int = 7) -> list[str]:
    """Return *count* texts, half from each of `SETS`, in a fixed random order.

    If the folder lacks them, the texts are made up, of similar lengths, so that the program can be
    tried anywhere; figures from such texts are not published.
    """
    random_order = random.Random(seed)
    if not all((folder / name).is_file() for name in SETS):
        words = ("good", "bad", "battery", "the", "fine")
        lengths = [random_order.choice((8, 30, 80, 150, 250)) for _ in range(count)]
        return [" ".join(random_order.choices(words, k=length)) for length in lengths]
    texts: list[str] = []
    for i, name in enumerate(SETS):
        column = pq.read_table(folder / name, columns=["text"])["text"].to_pylist()
        texts += random_order.sample(column, count // 2 if i == 0 else count - len(texts))
    random_order.shuffle(texts)
    return texts
