"""Options of `sentimill train` that say how it learns, each declared once: type, limits, help."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["Accumulate", "DistilTemperature"]

Accumulate = Annotated[
    int, typer.Option(min=1, help="batches in one step, where one so large would not fit")
]
DistilTemperature = Annotated[
    float,
    typer.Option(min=0.1, max=20, help="soften probs, and the student's own, before comparing"),
]
