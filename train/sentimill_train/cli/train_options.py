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
"""The value of --labels that takes the labels that occur."""

_Training: Final = partial(typer.Option, rich_help_panel="Training")
_Teacher: Final = partial(typer.Option, rich_help_panel="Teacher")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """The options for what a training reads and writes, and how it learns."""

    label_column: LabelColumn = None
    labels: Annotated[
        str, Input(help="The labels in order, as A,B,C; `found` takes those that occur.")
    ] = DEFAULT_LABELS
    labels_of: Annotated[
        list[str] | None, Input(metavar="FILE=A,B", help="FILE was labelled only with A and B.")
    ] = None
    weight_column: Annotated[
        str | None, Input(help="Column with the weight of each row.", show_default="1")
    ] = None
    weight_of: Annotated[
        list[str] | None, Input(metavar="FILE=X", help="Weight of every row of FILE.")
    ] = None
    class_weights: Annotated[
        str | None, Input(help="`balanced`, or weights of labels as A=X,B=Y.")
    ] = None

    name: Annotated[
        str | None, Output(help="Name of the model.", show_default="that of the folder")
    ] = None
    notes: Annotated[Path | None, Output(help="Markdown for the model card, such as terms.")] = None
    overwrite: OverwriteOption = False
    on: Annotated[
        list[str] | None, Output(metavar="FILE", help="Labelled file to evaluate on too.")
    ] = None
    gate: Annotated[
        Path | None, Output(help="Previous bundle: fail if the new one is significantly worse.")
    ] = None
    allow_worse: Annotated[bool, Output(help="Write a worse bundle too, and report it.")] = False
    no_baselines: Annotated[bool, Output(help="Do not fit simple models to compare.")] = False

    base: Annotated[
        str | None,
        Model(
            help="Bundle (continued if it has the same labels), folder, hub:owner/name,"
            " all-MiniLM-L6-v2 or all-mpnet-base-v2.",
            show_default="the reference student",
        ),
    ] = None
    preset: Annotated[
        Literal["minilm-l6", "minilm-l3", "tiny"],
        Model(help="The whole encoder of --base, three of its layers, or random layers for tests."),
    ] = "minilm-l6"
    max_tokens: Annotated[int, Model(min=3, help="Most tokens of a review to read.")] = 256
    truncation: Annotated[
        Literal["head", "head-tail"], Model(help="The part of a longer review to read.")
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
            help="Most passes over the rows.",
            show_default="5, or 3 to continue a model",
        ),
    ] = None
    learning_rate: Annotated[
        float | None,
        _Training(
            help="The highest rate, after the warm-up.",
            show_default="1e-4, or 1.5e-4 to continue; --lora 5e-4",
        ),
    ] = None
    dropout: Annotated[
        float | None,
        _Training(min=0, max=0.9, help="Dropout of the encoder.", show_default="that of --base"),
    ] = None
    patience: Annotated[int, _Training(min=1, help="Stop after N epochs without progress.")] = 2
    no_replay: Annotated[
        bool, _Training(help="When continuing: do not also learn the package's reviews.")
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
        Path | None, _Teacher(metavar="FILE", help="File that keeps its answers.")
    ] = None
    teacher_share: Annotated[
        float, _Teacher(min=0, max=1, help="Weight of its answers, relative to probs.")
    ] = 0.5
    soft_weight: Annotated[
        float, _Teacher(min=0, max=1, help="Weight of probs, relative to the label.")
    ] = 0.5
    distil_temperature: Annotated[
        list[float] | None,
        _Teacher(min=0.1, max=20, help="Softens probs; may repeat.", show_default="1"),
    ] = None
    hidden_weight: Annotated[float, _Teacher(min=0, help="Weight of teacher token states.")] = 0.0

    batch_tokens: Annotated[int, Performance(min=1, help="Padded tokens in a batch.")] = 2048
    train_tokens: Annotated[
        int | None,
        Performance(min=3, help="Truncate to N, to train faster.", show_default="--max-tokens"),
    ] = None
    checkpoint: Annotated[Path | None, Performance(help="Folder to resume from after a kill.")] = (
        None
    )
    checkpoint_minutes: Annotated[float, Performance(min=0, help="Minutes between saves.")] = 10

    accumulate: Annotated[int, Advanced(min=1, help="Batches in one step.")] = 1
    train_embeddings: Annotated[
        bool, Advanced(help="Also train the word vectors, for a large set.")
    ] = False
    average_last: Annotated[
        float, Advanced(min=0, max=1, help="Average the weights of this last share.")
    ] = 0.0
    lora: Annotated[bool, Advanced(help="Train adapters of a large --base, not all weights.")] = (
        False
    )
    lora_rank: Annotated[
        int | None, Advanced(min=1, help="Rank of the adapters.", show_default="8")
    ] = None
    lora_alpha: Annotated[
        int | None, Advanced(min=1, help="Scales adapters by alpha / rank.", show_default="16")
    ] = None
    no_bf16: Annotated[bool, Advanced(help="Use float32 even where bfloat16 is faster.")] = False
