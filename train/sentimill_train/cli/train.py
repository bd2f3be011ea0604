"""`sentimill train`. Found by its entry point, so it must be quick to import: no torch up here."""

from __future__ import annotations

import shlex
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Literal, Self

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from sentimill.errors import UsageError
from sentimill_train.cli import train_options as opt
from sentimill_train.data.schema import SENTIMENTS, Columns
from sentimill_train.optional_packages import needed_for

if TYPE_CHECKING:
    from sentimill_train.pipeline import Trained
    from sentimill_train.training import loop as fitting

__all__ = ["train"]

_FOUND = "found"
_SHOWN_REFUSALS = 3

console = Console(stderr=True, highlight=False, soft_wrap=True)


def train(
    reviews: Annotated[
        list[str],
        typer.Option(
            help="labelled reviews: a csv, tsv, jsonl or parquet file, `starter`,"
            " `hard-kinds`, or hub:owner/name[@revision]; one or more",
        ),
    ],
    out: Annotated[Path, typer.Option(help="folder to write the bundle to")],
    more: Annotated[
        list[str] | None,
        typer.Argument(metavar="[FILE]...", help="more reviews: --reviews a.csv b.csv"),
    ] = None,
    *,
    name: Annotated[
        str | None, typer.Option(help="name of the model", show_default="that of the folder")
    ] = None,
    text_column: Annotated[str, typer.Option(help="column that holds the text")] = "text",
    label_column: Annotated[
        str | None,
        typer.Option(
            help="column that holds the label, or stars from 1 to 5",
            show_default="label, or stars where there is no label",
        ),
    ] = None,
    labels: Annotated[
        str, typer.Option(help="the labels in order, with commas; `found` takes those that occur")
    ] = ",".join(SENTIMENTS),
    base: Annotated[
        str | None,
        typer.Option(
            help="start from: a bundle or a folder, hub:owner/name[@revision], or all-MiniLM-L6-v2"
            " from its installed package",
            show_default="the reference student",
        ),
    ] = None,
    preset: Annotated[
        Literal["minilm-l6", "minilm-l3", "tiny"],
        typer.Option(
            help="size: the encoder of --base, three of its layers, or two random ones for tests"
        ),
    ] = "minilm-l6",
    epochs: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="times that every row is seen, at most",
            show_default="5, or 3 where it goes on from a student with these labels",
        ),
    ] = None,
    batch_tokens: Annotated[
        int, typer.Option(min=1, help="padded tokens in one batch; at most one row for each 128")
    ] = 2048,
    accumulate: opt.Accumulate = 1,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            help="the highest, after the warm-up",
            show_default="1e-4, or 1.5e-4 likewise; 5e-4 with --lora",
        ),
    ] = None,
    soft_weight: Annotated[
        float,
        typer.Option(min=0, max=1, help="how much a row's probs count against its label"),
    ] = 0.5,
    distil_temperature: opt.DistilTemperature = 1.0,
    teacher_bundle: opt.TeacherBundle = None,
    hidden_weight: opt.HiddenWeight = 0.0,
    average_last: opt.AverageLast = 0.0,
    interpolate: opt.Interpolate = True,
    patience: Annotated[
        int, typer.Option(min=1, help="epochs without a better validation macro-F1 to stop after")
    ] = 2,
    lora: opt.Lora = False,
    lora_rank: opt.LoraRank = None,
    lora_alpha: opt.LoraAlpha = None,
    train_embeddings: Annotated[
        bool, typer.Option(help="also train the word vectors, for a large set")
    ] = False,
    max_tokens: Annotated[
        int, typer.Option(min=3, help="tokens of a review that are read, here and in service")
    ] = 256,
    train_tokens: Annotated[
        int | None,
        typer.Option(
            min=3, help="cut reviews to this while training, which is faster", show_default="all"
        ),
    ] = None,
    dropout: Annotated[
        float | None,
        typer.Option(
            min=0, max=0.9, help="of the encoder; 0 trains faster", show_default="that of --base"
        ),
    ] = None,
    truncation: Annotated[
        Literal["head", "head-tail"], typer.Option(help="what a longer review keeps")
    ] = "head-tail",
    target_error: Annotated[
        float | None,
        typer.Option(
            min=0.0001,
            max=0.9999,
            help="abstain below the confidence that keeps the error of the answers to this",
            show_default="always answer",
        ),
    ] = None,
    notes: Annotated[
        Path | None,
        typer.Option(help="Markdown for the model card: where the reviews come from, their terms"),
    ] = None,
    on: Annotated[
        list[str] | None,
        typer.Option(help="labelled file to judge on besides the test split; may be repeated"),
    ] = None,
    gate: Annotated[
        Path | None,
        typer.Option(help="previous bundle: write none that is significantly worse on any set"),
    ] = None,
    allow_worse: Annotated[
        bool, typer.Option(help="write it all the same, and say so in its report")
    ] = False,
    baselines: Annotated[
        bool, typer.Option(help="judge plain models, fitted on the same rows, beside it")
    ] = True,
    checkpoint: opt.Checkpoint = None,
    checkpoint_minutes: opt.CheckpointMinutes = 10,
    seed: Annotated[int, typer.Option(min=0, help="of every random choice")] = 0,
    overwrite: Annotated[bool, typer.Option(help="replace a bundle at --out")] = False,
) -> None:
    """Distil labelled reviews into a small model: fit, calibrate, judge, export, bundle.

    Rows keep the `split` of their file; without one, a hash of the text gives 70 % to train, 10 %
    to validation and 20 % to test. A column `probs` with a teacher's share for each label is
    learnt from too. The bundle's report.html and metrics.json say how good it is, with intervals.
    Under `torchrun --no-python` several processes train one model, each with its share of a step.
    """
    with needed_for("training"):
        from sentimill_train.evaluation.training_evaluation import ExamConfig
        from sentimill_train.model.lora import lora_of
        from sentimill_train.model.student import goes_on
        from sentimill_train.pipeline import Train, starting_point
        from sentimill_train.training.distributed import joined
        from sentimill_train.training.loop import FitConfig
    if learning_rate is not None and not learning_rate > 0:
        raise UsageError(
            f"--learning-rate {learning_rate} is not above 0", reason="BAD_LEARNING_RATE"
        )
    names = None if labels == _FOUND else tuple(label.strip() for label in labels.split(","))
    # A student that knows these labels already has little way to go, and much to forget.
    start = starting_point(base, preset)
    near = preset != "tiny" and goes_on(start, names or ())
    if preset == "minilm-l3" and near:
        teacher_bundle = teacher_bundle or start.folder  # what half of it is to answer like
    config = Train(
        reviews=(*reviews, *(more or ())),
        out=out,
        name=name,
        columns=Columns(text=text_column, label=label_column),
        labels=names,
        base=base,
        preset=preset,
        train_embeddings=train_embeddings,
        max_tokens=max_tokens,
        train_tokens=train_tokens,
        dropout=dropout,
        truncation=truncation,
        fit=FitConfig(
            epochs=epochs or (3 if near else 5),
            batch_tokens=batch_tokens,
            accumulate=accumulate,
            learning_rate=learning_rate or (5e-4 if lora else 1.5e-4 if near else 1e-4),
            soft_weight=soft_weight,
            distil_temperature=distil_temperature,
            hidden_weight=hidden_weight,
            average_last=average_last,
            patience=patience,
            seed=seed,
        ),
        target_error=target_error,
        notes=notes.read_text(encoding="utf-8") if notes is not None else "",
        exam=ExamConfig(
            on=tuple(on or ()), gate=gate, allow_worse=allow_worse, baselines=baselines
        ),
        overwrite=overwrite,
        teacher_bundle=teacher_bundle,
        checkpoint=checkpoint,
        checkpoint_minutes=checkpoint_minutes,
        lora=lora_of(lora, lora_rank, lora_alpha),
        interpolate=interpolate,
    )
    with joined() as process:
        if process.rank > 0:
            config.assist()
            return
        with _Bar() as bar:
            trained = config.run(bar)
    _report(trained, out)


class _Bar:
    """Shows the run on stderr: a bar on a terminal, a line for each stage and epoch elsewhere."""

    def __init__(self) -> None:
        self._terminal = console.is_terminal
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[facts]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not self._terminal,
        )
        self._task = self._bar.add_task("starting", total=None, facts="")
        self._epoch = 0

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def stage(self, name: str) -> None:
        """See `Watcher.stage`."""
        self._bar.update(self._task, description=name, total=None, completed=0, facts="")
        if not self._terminal:
            console.print(name)

    def progress(self, progress: fitting.Progress) -> None:
        """See `Watcher.progress`."""
        score = "" if progress.macro_f1 is None else f", macro-F1 {progress.macro_f1:.3f}"
        facts = f"rows, loss {progress.loss:.3f}{score}"
        self._bar.update(
            self._task,
            description=f"epoch {progress.epoch}",
            total=progress.rows_total,
            completed=progress.rows,
            facts=facts,
        )
        if progress.epoch_ended and not self._terminal:
            console.print(f"epoch {progress.epoch}: loss {progress.loss:.3f}{score}")


def _report(trained: Trained, out: Path) -> None:
    """Say on stderr what came out of it, what was left out, and what to do next."""
    parted = trained.parted
    for left_out, why in (
        (parted.unlabelled, "without a label"),
        (parted.repeated, "whose text is also in validation or test"),
    ):
        if left_out:
            console.print(f"left out {left_out} rows {why}")
    for refused in trained.refused[:_SHOWN_REFUSALS]:
        example = refused.example
        console.print(f"left out {example.id} of {example.source}: {refused.error}", markup=False)
    if len(trained.refused) > _SHOWN_REFUSALS:
        console.print(f"and {len(trained.refused) - _SHOWN_REFUSALS} more that cannot be read")
    size = sum(file.size_bytes for file in trained.bundle.manifest.files.values())
    for found in trained.judgement.sets:
        accuracy, macro_f1 = found.figures["accuracy"], found.figures["macro_f1"]
        console.print(
            f"{found.name}, {found.rows} rows: accuracy {accuracy.value:.3f} ({accuracy.low:.3f} to"
            f" {accuracy.high:.3f}), macro-F1 {macro_f1.value:.3f},"
            f" ECE {found.figures['ece'].value:.3f}",
            markup=False,
        )
    for rival in trained.judgement.rivals:
        console.print(rival.sentence(), markup=False)
    if trained.abstention is not None:
        console.print(trained.abstention.sentence())
    if trained.verdict is not None:
        console.print(f"the bundle is {trained.verdict.sentence()}", markup=False)
    console.print(
        f"{out}: {size / 1e6:.0f} MB, trained on {len(parted.train) + len(parted.spare)} rows in"
        f" {trained.fit.seconds:.0f} s, {trained.seconds:.0f} s in all"
    )
    bundle = shlex.quote(str(out))
    console.print(f'try: sentimill classify "Works as promised." --bundle {bundle}', markup=False)
    console.print(f"     sentimill serve --bundle {bundle}", markup=False)
