"""`sentimill train`. It imports its packages when it runs, so that `--help` stays quick."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from sentimill.cli import options as opt
from sentimill.errors import UsageError
from sentimill_train.cli.table_options import columns_of, split_names
from sentimill_train.cli.train_options import FOUND, TrainOptions
from sentimill_train.cli.train_progress import ProgressDisplay, report
from sentimill_train.data.schema import Columns, label_set, number_of
from sentimill_train.optional_packages import needed_for


@opt.with_groups
def train(
    reviews: Annotated[
        list[str],
        opt.Input(
            help="Labelled reviews: CSV, TSV, JSONL or Parquet files, `starter`, or hub:owner/name."
        ),
    ],
    out: Annotated[Path, opt.Output(help="Folder to write the bundle to.")],
    more: Annotated[list[str] | None, typer.Argument(metavar="[FILE]...", hidden=True)] = None,
    *,
    table: opt.TableOptions,
    given: TrainOptions,
) -> None:
    """Train a small model on labelled reviews: fit, calibrate, evaluate, export.

    Rows keep the `split` of their file. Without it a hash of the text puts 70, 10 and 20 % into
    train, validation and test. `probs`, the soft labels of a teacher, are learnt too. For examples
    see docs/training.md.
    """
    weights = ", and for the weights to start from, in a clone, pip install ./bundles"
    with needed_for("training", weights):
        from sentimill_train.evaluation.training_evaluation import EvaluationConfig
        from sentimill_train.model.lora import lora_of
        from sentimill_train.model.student import goes_on
        from sentimill_train.pipeline import Train, starting_point
        from sentimill_train.training.defaults import defaults_for
        from sentimill_train.training.distributed import process_group
        from sentimill_train.training.loop import FitConfig
    rate = given.learning_rate
    if rate is not None and not rate > 0:
        raise UsageError(f"--learning-rate {rate} is not above 0", reason="BAD_LEARNING_RATE")
    labels = None if given.labels == FOUND else split_names(given.labels)
    start = starting_point(given.base, given.preset)
    files, columns = (*reviews, *(more or ())), columns_of(table, given.label_column)
    continues = given.preset != "tiny" and goes_on(start, labels or _labels_in(files, columns))
    teacher_bundle = given.teacher_bundle
    if given.preset == "minilm-l3" and continues:
        teacher_bundle = teacher_bundle or start.folder  # the full student teaches its half
    default = defaults_for(continues=continues, lora=given.lora)
    config = Train(
        reviews=files,
        out=out,
        name=given.name,
        columns=replace(columns, weight=given.weight_column),
        weight_of={f: _number(f, value) for f, value in _pairs("--weight-of", given.weight_of)},
        labels_of={f: split_names(value) for f, value in _pairs("--labels-of", given.labels_of)},
        labels=labels,
        class_weights=given.class_weights,
        base=given.base,
        preset=given.preset,
        train_embeddings=given.train_embeddings,
        max_tokens=given.max_tokens,
        train_tokens=given.train_tokens,
        dropout=given.dropout,
        truncation=given.truncation,
        fit=FitConfig(
            epochs=given.epochs or default.epochs,
            batch_tokens=given.batch_tokens,
            accumulate=given.accumulate,
            learning_rate=rate or default.learning_rate,
            head_factor=default.head_factor,
            soft_weight=given.soft_weight,
            distil_temperatures=tuple(given.distil_temperature or (1.0,)),
            hidden_weight=given.hidden_weight,
            average_last=given.average_last,
            patience=given.patience,
            seed=given.seed,
            bf16=not given.no_bf16,
        ),
        target_error=given.target_error,
        notes=given.notes.read_text(encoding="utf-8") if given.notes is not None else "",
        evaluation=EvaluationConfig(
            on=tuple(given.on or ()),
            gate=given.gate,
            allow_worse=given.allow_worse,
            baselines=not given.no_baselines,
        ),
        overwrite=given.overwrite,
        teacher_bundle=teacher_bundle,
        teacher_logits=given.teacher_logits,
        teacher_share=given.teacher_share,
        checkpoint=given.checkpoint,
        checkpoint_minutes=given.checkpoint_minutes,
        lora=lora_of(given.lora, given.lora_rank, given.lora_alpha),
        interpolate=not given.no_interpolate,
        replay=not given.no_replay,
        anchors=tuple(given.anchors or ()),
    )
    with process_group() as process:
        if process.rank > 0:
            config.assist()
            return
        with ProgressDisplay() as display:
            trained = config.run(display)
    report(trained, out)


def _labels_in(files: Sequence[str], columns: Columns) -> tuple[str, ...]:
    """Return the labels that `--labels found` finds; the defaults depend on them."""
    from sentimill_train.data.examples import stream_examples

    return label_set(
        example for file in files for example in stream_examples(file, columns=columns, labels=None)
    )


def _pairs(option: str, given: Sequence[str] | None) -> list[tuple[str, str]]:
    found = []
    for each in given or ():
        file, equals, value = each.rpartition("=")
        if not equals:
            raise UsageError(f"{option} {each} has no `=`: write FILE=VALUE", reason="BAD_PAIR")
        found.append((file, value))
    return found


def _number(file: str, value: str) -> float:
    number = number_of(value)
    if not 0 <= number < float("inf"):
        why = f"--weight-of {file}={value} is not a number of at least 0"
        raise UsageError(why, reason="BAD_WEIGHT")
    return number
