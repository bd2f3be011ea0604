"""Rows of a file as they came in, drawn by chance: what `drift` and `sample` look at."""

from __future__ import annotations

import random
from dataclasses import dataclass

from sentimill.errors import TableError
from sentimill_train.data.readers import open_table

__all__ = ["Drawn", "draw_rows"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """Rows of one file in its order, with their columns. rows_in_file: how many there were."""

    source: str
    text_column: str
    rows: tuple[dict[str, object], ...]
    rows_in_file: int

    @property
    def texts(self) -> list[str]:
        """The text of each row; one that is missing is empty, which no model reads."""
        return [str(row[self.text_column] or "") for row in self.rows]


def draw_rows(
    source: str, *, text_column: str = "text", most: int, seed: int, whole: bool = False
) -> Drawn:
    """Return up to *most* rows of *source*, each with the same chance, the same for one *seed*.

    whole: with all of their columns, not the text alone. Only the drawn rows are in memory
    (reservoir sampling: Vitter 1985, algorithm R).

    Raises:
        TableError: those of `open_table`, MISSING_COLUMN, BAD_TEXT, EMPTY_FILE.
    """
    chance = random.Random(seed)
    kept: list[tuple[int, dict[str, object]]] = []
    number = 0
    with open_table(source) as table:
        if text_column not in table.columns:
            raise TableError(
                f"{source} has no column {text_column!r}, it has {', '.join(table.columns)}: name"
                " one with --text-column",
                reason="MISSING_COLUMN",
            )
        columns = [c for c in table.columns if whole or c == text_column]
        for number, row in enumerate(table.rows(columns), start=1):
            if not isinstance(row[text_column], str | None):
                kind = type(row[text_column]).__name__
                raise TableError(
                    f"{source}, row {number}: column {text_column!r} holds {kind}, not text; use"
                    " another",
                    reason="BAD_TEXT",
                )
            place = len(kept) if number <= most else chance.randrange(number)
            if place == len(kept) < most:
                kept.append((number, row))
            elif place < most:
                kept[place] = (number, row)
    if not kept:
        raise TableError(f"{source} has no rows: give at least one text", reason="EMPTY_FILE")
    return Drawn(
        source=source,
        text_column=text_column,
        rows=tuple(row for _, row in sorted(kept, key=lambda each: each[0])),
        rows_in_file=number,
    )
