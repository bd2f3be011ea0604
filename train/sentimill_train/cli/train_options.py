"""The options of `sentimill train` that no other command has."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Final, Literal

import typer

from sentimill.cli.options import Advanced, Input, Model, Output, OverwriteOption, Performance
from sentimill_train.cli.table_options import DEFAULT_LABELS, LabelColumn

FOUND: Final = "found"
"""What --labels says to take the labels that occur."""

_Training: Final = partial(typer.Option, rich_help_panel="Training")
_Teacher: Final = partial(typer.Option, rich_help_panel="Teacher")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """What a training learns from, what it writes, and how it learns."""

    label_column: LabelColumn = None
    labels: Annotated[
        str, Input(help="The labels in order, with commas; `found` takes those that occur.")
    ] = DEFAULT_LABELS
    labels_of: Annotated[
        list[str] | None, Input(metavar="FILE=A,B", help="FILE was labelled with A and B alone.")
    ] = None
    weight_column: Annotated[
        str | None, Input(help="Column that says how much a row counts.", show_default="1")
    ] = None
    weight_of: Annotated[
        list[str] | None, Input(metavar="FILE=X", help="Weight of every row of FILE.")
    ] = None
    class_weights: Annotated[
        str | None, Input(help="`balanced`, or LABEL=X with commas between.")
    ] = None

    name: Annotated[
        str | None, Output(help="Name of the model.", show_default="that of the folder")
    ] = None
    notes: Annotated[Path | None, Output(help="Markdown for the model card, such as terms.")] = None
    overwrite: OverwriteOption = False
    on: Annotated[
        list[str] | None, Output(metavar="FILE", help="Labelled file to judge on besides test.")
    ] = None
    gate: Annotated[
        Path | None, Output(help="Previous bundle: write none that is significantly worse.")
    ] = None
    allow_worse: Annotated[bool, Output(help="Write it all the same, and say so.")] = False
    no_baselines: Annotated[bool, Output(help="Do not fit plain models to compare.")] = False

    base: Annotated[
        str | None,
        Model(
            help="Bundle (continued if its labels are these), folder, hub:owner/name,"
            " all-MiniLM-L6-v2 or all-mpnet-base-v2.",
            show_default="the reference student",
        ),
    ] = None
    preset: Annotated[
        Literal["minilm-l6", "minilm-l3", "tiny"],
        Model(help="The whole encoder of --base, three of its layers, or random layers for tests."),
    ] = "minilm-l6"
    max_tokens: Annotated[int, Model(min=3, help="Tokens of a review that are read.")] = 256
    truncation: Annotated[
        Literal["head", "head-tail"], Model(help="What a longer review keeps.")
    ] = "head-tail"
    target_error: Annotated[
        float | None,
        Model(
            min=0.0001,
            max=0.9999,
            help="Abstain to keep the error of the answers below this.",
            show_default="always answer",
        ),
    ] = None

    epochs: Annotated[
        int | None,
        _Training(
            min=1,
            help="Times that every row is learnt, at most.",
            show_default="5, or 3 to continue a model",
        ),
    ] = None
    learning_rate: Annotated[
        float | None,
        _Training(
            help="The highest, after the warm-up.",
            show_default="1e-4, or 1.5e-4 to continue; --lora 5e-4",
        ),
    ] = None
    dropout: Annotated[
        float | None,
        _Training(min=0, max=0.9, help="Dropout of the encoder.", show_default="that of --base"),
    ] = None
    patience: Annotated[int, _Training(min=1, help="Stop after N epochs without progress.")] = 2
    no_replay: Annotated[
        bool, _Training(help="When continuing: learn none of the package's reviews.")
    ] = False
    no_interpolate: Annotated[
        bool, _Training(help="When continuing: do not blend in the old weights.")
    ] = False
    anchors: Annotated[
        list[str] | None,
        _Training(metavar="FILE", help="When continuing: keep the old answers to these texts."),
    ] = None
    seed: Annotated[int, _Training(min=0, help="Seed of every random choice.")] = 0

    teacher_bundle: Annotated[
        Path | None, _Teacher(help="Learn the answers of this classifier.")
    ] = None
    teacher_logits: Annotated[
        Path | None, _Teacher(metavar="FILE", help="Keep its answers in this file.")
    ] = None
    teacher_share: Annotated[
        float, _Teacher(min=0, max=1, help="Weight of its answers, against probs.")
    ] = 0.5
    soft_weight: Annotated[
        float, _Teacher(min=0, max=1, help="Weight of probs, against the label.")
    ] = 0.5
    distil_temperature: Annotated[
        list[float] | None,
        _Teacher(min=0.1, max=20, help="Softens probs; may repeat.", show_default="1"),
    ] = None
    hidden_weight: Annotated[float, _Teacher(min=0, help="Weight of its token states.")] = 0.0

    batch_tokens: Annotated[int, Performance(min=1, help="Padded tokens in a batch.")] = 2048
    train_tokens: Annotated[
        int | None,
        Performance(min=3, help="Cut reviews to this, to train faster.", show_default="all"),
    ] = None
    checkpoint: Annotated[Path | None, Performance(help="Folder to resume from after a kill.")] = (
        None
    )
    checkpoint_minutes: Annotated[float, Performance(min=0, help="Minutes between them.")] = 10

    accumulate: Annotated[int, Advanced(min=1, help="Batches in one step.")] = 1
    train_embeddings: Annotated[
        bool, Advanced(help="Also train the word vectors, for a large set.")
    ] = False
    average_last: Annotated[float, Advanced(min=0, max=1, help="Average the last weights.")] = 0.0
    lora: Annotated[bool, Advanced(help="Learn adapters of a large --base, not all weights.")] = (
        False
    )
    lora_rank: Annotated[
        int | None, Advanced(min=1, help="Rank of the adapters.", show_default="8")
    ] = None
    lora_alpha: Annotated[
        int | None, Advanced(min=1, help="The adapters count alpha / rank.", show_default="16")
    ] = None
    no_bf16: Annotated[bool, Advanced(help="Multiply in float32 where bfloat16 is faster too.")] = (
        False
    )
