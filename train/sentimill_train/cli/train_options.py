"""The options of `sentimill train`, each declared once: type, limits, help and heading."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

import typer

INPUT: Final = "Input"
OUTPUT: Final = "Output"
MODEL: Final = "Model"
TRAINING: Final = "Training"
TEACHER: Final = "Teacher"
PERFORMANCE: Final = "Performance"
ADVANCED: Final = "Advanced"

Reviews = Annotated[
    list[str],
    typer.Option(
        help="Labelled reviews: CSV, TSV, JSONL or Parquet files, `starter`, or hub:owner/name.",
        rich_help_panel=INPUT,
    ),
]
More = Annotated[list[str] | None, typer.Argument(metavar="[FILE]...", hidden=True)]
Labels = Annotated[
    str,
    typer.Option(
        help="The labels in order, with commas; `found` takes those that occur.",
        rich_help_panel=INPUT,
    ),
]
WeightColumn = Annotated[
    str | None,
    typer.Option(
        help="Column that says how much a row counts.", show_default="1", rich_help_panel=INPUT
    ),
]
WeightOf = Annotated[
    list[str] | None,
    typer.Option(metavar="FILE=X", help="Weight of every row of FILE.", rich_help_panel=INPUT),
]
LabelsOf = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FILE=A,B",
        help="FILE was labelled with A and B alone.",
        rich_help_panel=INPUT,
    ),
]
ClassWeights = Annotated[
    str | None,
    typer.Option(help="`balanced`, or LABEL=X with commas between.", rich_help_panel=INPUT),
]
Out = Annotated[Path, typer.Option(help="Folder to write the bundle to.", rich_help_panel=OUTPUT)]
Name = Annotated[
    str | None,
    typer.Option(
        help="Name of the model.", show_default="that of the folder", rich_help_panel=OUTPUT
    ),
]
Notes = Annotated[
    Path | None,
    typer.Option(help="Markdown for the model card, such as terms.", rich_help_panel=OUTPUT),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace a bundle at --out.", rich_help_panel=OUTPUT)
]
BaseModel = Annotated[
    str | None,
    typer.Option(
        help="Bundle (continued if its labels are these), folder, hub:owner/name,"
        " all-MiniLM-L6-v2 or all-mpnet-base-v2.",
        show_default="the reference student",
        rich_help_panel=MODEL,
    ),
]
PresetName = Annotated[
    Literal["minilm-l6", "minilm-l3", "tiny"],
    typer.Option(
        help="The whole encoder of --base, three of its layers, or random layers for tests.",
        rich_help_panel=MODEL,
    ),
]
MaxTokens = Annotated[
    int,
    typer.Option(min=3, help="Tokens of a review that are read.", rich_help_panel=MODEL),
]
TruncationRule = Annotated[
    Literal["head", "head-tail"],
    typer.Option(help="What a longer review keeps.", rich_help_panel=MODEL),
]
TargetError = Annotated[
    float | None,
    typer.Option(
        min=0.0001,
        max=0.9999,
        help="Abstain to keep the error of the answers below this.",
        show_default="always answer",
        rich_help_panel=MODEL,
    ),
]
Epochs = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Times that every row is learnt, at most.",
        show_default="5, or 3 to continue a model",
        rich_help_panel=TRAINING,
    ),
]
LearningRate = Annotated[
    float | None,
    typer.Option(
        help="The highest, after the warm-up.",
        show_default="1e-4, or 1.5e-4 to continue; --lora 5e-4",
        rich_help_panel=TRAINING,
    ),
]
Dropout = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=0.9,
        help="Of the encoder.",
        show_default="that of --base",
        rich_help_panel=TRAINING,
    ),
]
Patience = Annotated[
    int,
    typer.Option(
        min=1,
        help="Stop after N epochs without progress.",
        rich_help_panel=TRAINING,
    ),
]
NoReplay = Annotated[
    bool,
    typer.Option(
        "--no-replay",
        help="When continuing: learn none of the package's reviews.",
        rich_help_panel=TRAINING,
    ),
]
NoInterpolate = Annotated[
    bool,
    typer.Option(
        "--no-interpolate",
        help="When continuing: do not blend in the old weights.",
        rich_help_panel=TRAINING,
    ),
]
Anchors = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FILE",
        help="When continuing: keep the old answers to these texts.",
        rich_help_panel=TRAINING,
    ),
]
SoftWeight = Annotated[
    float,
    typer.Option(
        min=0,
        max=1,
        help="Of probs, against the label.",
        rich_help_panel=TEACHER,
    ),
]
TeacherBundle = Annotated[
    Path | None,
    typer.Option(
        help="Learn the answers of this classifier.",
        rich_help_panel=TEACHER,
    ),
]
TeacherLogits = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Keep its answers in this file.",
        rich_help_panel=TEACHER,
    ),
]
TeacherShare = Annotated[
    float,
    typer.Option(
        min=0,
        max=1,
        help="Of its answers, against probs.",
        rich_help_panel=TEACHER,
    ),
]
DistilTemperature = Annotated[
    list[float] | None,
    typer.Option(
        min=0.1,
        max=20,
        help="Softens probs; may repeat.",
        show_default="1",
        rich_help_panel=TEACHER,
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="Of every random choice.", rich_help_panel=TRAINING)]
On = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FILE", help="Labelled file to judge on besides test.", rich_help_panel=OUTPUT
    ),
]
Gate = Annotated[
    Path | None,
    typer.Option(
        help="Previous bundle: write none that is significantly worse.",
        rich_help_panel=OUTPUT,
    ),
]
AllowWorse = Annotated[
    bool,
    typer.Option(
        "--allow-worse", help="Write it all the same, and say so.", rich_help_panel=OUTPUT
    ),
]
NoBaselines = Annotated[
    bool,
    typer.Option(
        "--no-baselines", help="Do not fit plain models to compare.", rich_help_panel=OUTPUT
    ),
]
BatchTokens = Annotated[
    int,
    typer.Option(
        min=1,
        help="Padded tokens in a batch.",
        rich_help_panel=PERFORMANCE,
    ),
]
TrainTokens = Annotated[
    int | None,
    typer.Option(
        min=3,
        help="Cut reviews to this, to train faster.",
        show_default="all",
        rich_help_panel=PERFORMANCE,
    ),
]
Checkpoint = Annotated[
    Path | None,
    typer.Option(
        help="Folder to resume from after a kill.",
        rich_help_panel=PERFORMANCE,
    ),
]
CheckpointMinutes = Annotated[
    float,
    typer.Option(min=0, help="Between two of these.", rich_help_panel=PERFORMANCE),
]
Accumulate = Annotated[
    int,
    typer.Option(min=1, help="Batches in one step.", rich_help_panel=ADVANCED),
]
TrainEmbeddings = Annotated[
    bool,
    typer.Option(
        "--train-embeddings",
        help="Also train the word vectors, for a large set.",
        rich_help_panel=ADVANCED,
    ),
]
HiddenWeight = Annotated[
    float,
    typer.Option(
        min=0,
        help="Of its token states.",
        rich_help_panel=TEACHER,
    ),
]
AverageLast = Annotated[
    float,
    typer.Option(
        min=0,
        max=1,
        help="Average the last weights.",
        rich_help_panel=ADVANCED,
    ),
]
Lora = Annotated[
    bool,
    typer.Option(
        "--lora",
        help="Learn adapters of a large --base, not all weights.",
        rich_help_panel=ADVANCED,
    ),
]
LoraRank = Annotated[
    int | None,
    typer.Option(min=1, help="Of the adapters.", show_default="8", rich_help_panel=ADVANCED),
]
LoraAlpha = Annotated[
    int | None,
    typer.Option(
        min=1, help="The adapters count alpha / rank.", show_default="16", rich_help_panel=ADVANCED
    ),
]
NoBf16 = Annotated[
    bool,
    typer.Option(
        "--no-bf16",
        help="Multiply in float32 where bfloat16 is faster too.",
        rich_help_panel=ADVANCED,
    ),
]
