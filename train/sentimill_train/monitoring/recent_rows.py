"""Draws rows of a file at random, for `drift` and `sample`."""

from __future__ import annotations

import random
from dataclasses import dataclass

from sentimill_train.data.examples import stream_texts
from sentimill_train.data.schema import Columns


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """Rows of one file, in order. texts: the text of each row. rows: its raw columns.

    rows_in_file: how many rows the file has.
    """

    texts: list[str]
    rows: list[dict[str, object]]
    rows_in_file: int


def draw_rows(source: str, *, columns: Columns, most: int, seed: int, whole: bool = False) -> Drawn:
    """Return a uniform random sample of up to *most* rows of *source*, fixed by *seed*.

    whole: with all columns, not only the text. Only the sample is in memory (reservoir sampling:
    Vitter 1985, algorithm R).

    Raises:
        TableError: those of `stream_texts`.
    """
    chance = random.Random(seed)
    kept: list[tuple[int, str, dict[str, object]]] = []
    number = 0
    for number, (text, row) in enumerate(stream_texts(source, columns, keep=whole), start=1):
        place = len(kept) if number <= most else chance.randrange(number)
        if place < most:
            kept[place : place + 1] = [(number, text, row)]
    kept.sort(key=lambda each: each[0])
    return Drawn(
        texts=[text for _, text, _ in kept], rows=[row for _, _, row in kept], rows_in_file=number
    )
