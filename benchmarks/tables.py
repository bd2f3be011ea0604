"""Tables for the README and the report, as rows of text computed from a run's JSON alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from record import Proof, Quality, Ratio, Speed

__all__ = [
    "Table",
    "cells",
    "markdown",
    "quality_table",
    "ratio_table",
    "readme_part",
    "regenerate",
    "speed_table",
]

Table = tuple[tuple[str, ...], list[tuple[str, ...]]]
"""Heads, and rows of as many cells."""


def ratio_table(proof: Proof) -> Table:
    """The student against the large model. An interval is printed where a ratio does not repeat."""
    heads = ("large model", "how it is known", "student is faster by")
    return heads, [(row.large, row.basis, _times(row)) for row in proof.ratios]


def speed_table(proof: Proof) -> Table:
    """Every contestant."""
    heads = ("contestant", "path", "precision", "reviews/s", "tokens/s", "operations a review")
    return heads, [_speed(row) for row in proof.speeds]


def quality_table(proof: Proof, dataset: str | None = None) -> Table:
    """Accuracy with 95 % intervals."""
    heads = ("model", "reviews", "classes", "rows", "accuracy, %", "against", "source")
    rows = [row for row in proof.qualities if dataset is None or row.dataset == dataset]
    return heads, [_quality(row) for row in rows]


def markdown(table: Table) -> str:
    """Return a table in Markdown."""
    heads, rows = table
    lines = [heads, tuple("---" for _ in heads), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def regenerate(readme: Path, name: str, made: str) -> None:
    """Put *made* between `<!-- name: ... -->` and `<!-- /name -->`; the markers stay."""
    text = readme.read_text(encoding="utf-8")
    pattern = re.compile(rf"(<!-- {name}:[^>]*-->\n).*?(<!-- /{name} -->)", re.DOTALL)
    if not pattern.search(text):
        raise SystemExit(f"{readme} has no markers <!-- {name}: ... --> and <!-- /{name} -->")
    readme.write_text(pattern.sub(lambda m: f"{m[1]}{made}\n{m[2]}", text), encoding="utf-8")


def readme_part(proof: Proof) -> str:
    """Return what the README says of a run: the ratios, and quality beside the teacher."""
    here = proof.machine
    where = here.gpu or f"{here.cores} cores of {here.processor}"
    student = next(row for row in proof.speeds if row.path == "duel" and row.kind == "student")
    parts = [
        f"On {where}, commit `{proof.commit[:9]}`: the student ({student.precision}) answers"
        f" {student.rate:,.0f} reviews a second.",
        markdown(ratio_table(proof)),
        markdown(quality_table(proof, "teacher's rows")),
    ]
    return "\n\n".join(parts)


def _times(row: Ratio) -> str:
    if row.repeats:
        return f"{row.value:,.0f} x"
    return f"{row.low:,.0f} to {row.high:,.0f} x (does not repeat within 10 %)"


def _speed(row: Speed) -> tuple[str, ...]:
    flops = "" if row.flops is None else f"{row.flops:.3g}"
    name = row.name + (" (random weights)" if row.random_weights else "")
    rates = (f"{row.rate:,.4g}", f"{row.token_rate:,.0f}")
    return name, row.path, row.precision, *rates, flops


def _quality(row: Quality) -> tuple[str, ...]:
    share = f"{100 * row.accuracy:.1f} ({100 * row.low:.1f} to {100 * row.high:.1f})"
    counts = (str(row.classes), f"{row.rows:,}")
    return row.name, row.dataset, *counts, share, row.against, row.source


def cells(tables: Sequence[Table]) -> set[str]:
    """Return every cell of some tables, for the test that holds a page to its JSON."""
    return {cell for _, rows in tables for row in rows for cell in row}
