"""Scoring jobs made small: a scorer over the tiny bundle, and one call from bytes to bytes."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

from sentimill.cli.main import main
from sentimill.scoring import part_writer
from sentimill.scoring.formats.table import Layout
from sentimill.scoring.job import Score, Summary
from sentimill.scoring.scorers import Scorer

LAYOUT = Layout()
SMALL_WINDOW_BYTES = 1000
"""Two or three rows: a job of a hundred rows has many parts."""


def job(
    source: Path | str, target: Path | str, layout: Layout = LAYOUT, **options: object
) -> Score:
    """Return a job from one input to one output; a blank text is an error."""
    made = Score(sources=(str(source),), target=str(target), layout=layout, strict=True)
    return replace(made, **options)  # type: ignore[arg-type]  # names are checked by replace


def score(
    folder: Path,
    scorer: Scorer,
    data: bytes,
    *,
    source: str = "in.csv",
    target: str = "out.csv",
    layout: Layout = LAYOUT,
    **options: object,
) -> tuple[Summary, bytes]:
    """Score *data* and return the summary and the output."""
    (folder / source).write_bytes(data)
    made = job(folder / source, folder / target, layout, overwrite=True, **options)
    summary = made.run(scorer)
    return summary, (folder / target).read_bytes()


def score_by_command(arguments: list[str]) -> None:
    """Run `sentimill` in small windows that are committed one by one, for a process of its own."""
    with (
        patch.object(os, "fsync", lambda _: None),
        patch.object(part_writer, "_COMMIT_S", 0.0),
        patch.dict(Layout.__init__.__kwdefaults__ or {}, window_bytes=SMALL_WINDOW_BYTES),
    ):
        main(arguments)
