"""Options of `sentimill train` that say how it learns, each declared once: type, limits, help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "Accumulate",
    "AverageLast",
    "Checkpoint",
    "CheckpointMinutes",
    "DistilTemperature",
    "HiddenWeight",
    "Interpolate",
    "Lora",
    "LoraAlpha",
    "LoraRank",
    "TeacherBundle",
]

Accumulate = Annotated[
    int, typer.Option(min=1, help="batches in one step, where one so large would not fit")
]
AverageLast = Annotated[
    float,
    typer.Option(min=0, max=1, help="share of the rows, at the end, to average the weights over"),
]
Checkpoint = Annotated[
    Path | None,
    typer.Option(help="folder from which the same command goes on after a kill"),
]
CheckpointMinutes = Annotated[
    float, typer.Option(min=0, help="between two checkpoints; there is one after each epoch too")
]
DistilTemperature = Annotated[
    float,
    typer.Option(min=0.1, max=20, help="soften probs, and the student's own, before comparing"),
]
HiddenWeight = Annotated[
    float, typer.Option(min=0, help="of the difference from the token states of --teacher-bundle")
]
Interpolate = Annotated[
    bool,
    typer.Option(
        help="where a --base knows these labels, move back towards it to where validation is best,"
        " to forget less"
    ),
]
Lora = Annotated[
    bool, typer.Option("--lora", help="learn small adapters of a large --base, not all its weights")
]
LoraAlpha = Annotated[
    int | None,
    typer.Option(min=1, help="times alpha / rank counts what they learn", show_default="16"),
]
LoraRank = Annotated[
    int | None,
    typer.Option(min=1, help="of the adapters: larger learns more", show_default="8"),
]
TeacherBundle = Annotated[
    Path | None,
    typer.Option(
        help="fine-tuned larger classifier, a bundle or a checkpoint of transformers, to learn from"
        " in place of probs; rows without a label count too",
        show_default="none; with --preset minilm-l3 a --base that knows these labels",
    ),
]
