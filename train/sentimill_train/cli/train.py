"""`sentimill train`. Found by its entry point, so it must be quick to import: no torch up here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sentimill.errors import UsageError
from sentimill_train.cli import table_options as table
from sentimill_train.cli import train_options as opt
from sentimill_train.cli.train_progress import ProgressDisplay, report
from sentimill_train.data.schema import SENTIMENTS
from sentimill_train.optional_packages import needed_for

__all__ = ["train"]

_FOUND = "found"
_SENTIMENTS = ",".join(SENTIMENTS)


def train(
    reviews: opt.Reviews,
    out: opt.Out,
    more: opt.More = None,
    *,
    text_column: table.TextColumn = None,
    label_column: table.LabelColumn = None,
    labels: opt.Labels = _SENTIMENTS,
    labels_of: opt.LabelsOf = None,
    weight_column: opt.WeightColumn = None,
    weight_of: opt.WeightOf = None,
    class_weights: opt.ClassWeights = None,
    delimiter: table.Delimiter = None,
    quote: table.QuoteChar = '"',
    escape: table.Escape = None,
    encoding: table.Encoding = "utf-8",
    name: opt.Name = None,
    notes: opt.Notes = None,
    overwrite: opt.Overwrite = False,
    base: opt.BaseModel = None,
    preset: opt.PresetName = "minilm-l6",
    max_tokens: opt.MaxTokens = 256,
    truncation: opt.TruncationRule = "head-tail",
    target_error: opt.TargetError = None,
    epochs: opt.Epochs = None,
    learning_rate: opt.LearningRate = None,
    dropout: opt.Dropout = None,
    patience: opt.Patience = 2,
    no_replay: opt.NoReplay = False,
    no_interpolate: opt.NoInterpolate = False,
    anchors: opt.Anchors = None,
    seed: opt.Seed = 0,
    teacher_bundle: opt.TeacherBundle = None,
    teacher_logits: opt.TeacherLogits = None,
    teacher_share: opt.TeacherShare = 0.5,
    soft_weight: opt.SoftWeight = 0.5,
    distil_temperature: opt.DistilTemperature = None,
    hidden_weight: opt.HiddenWeight = 0.0,
    on: opt.On = None,
    gate: opt.Gate = None,
    allow_worse: opt.AllowWorse = False,
    no_baselines: opt.NoBaselines = False,
    batch_tokens: opt.BatchTokens = 2048,
    train_tokens: opt.TrainTokens = None,
    checkpoint: opt.Checkpoint = None,
    checkpoint_minutes: opt.CheckpointMinutes = 10,
    accumulate: opt.Accumulate = 1,
    train_embeddings: opt.TrainEmbeddings = False,
    average_last: opt.AverageLast = 0.0,
    lora: opt.Lora = False,
    lora_rank: opt.LoraRank = None,
    lora_alpha: opt.LoraAlpha = None,
    no_bf16: opt.NoBf16 = False,
) -> None:
    """Train a small model on labelled reviews: fit, calibrate, evaluate, export.

    Rows keep the `split` of their file; else a hash of the text gives 70, 10 and 20 % to train,
    validation and test. `probs`, a teacher's share of each label, are learnt too. Examples:
    docs/training.md.
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
    if learning_rate is not None and not learning_rate > 0:
        raise UsageError(
            f"--learning-rate {learning_rate} is not above 0", reason="BAD_LEARNING_RATE"
        )
    columns = table.columns_of(text_column, label_column, delimiter, quote, escape, encoding)
    names = None if labels == _FOUND else _split(labels)
    start = starting_point(base, preset)
    continues = preset != "tiny" and goes_on(start, names or ())
    if preset == "minilm-l3" and continues:
        teacher_bundle = teacher_bundle or start.folder  # half of a student learns from the whole
    default = defaults_for(continues=continues, lora=lora)
    config = Train(
        reviews=(*reviews, *(more or ())),
        out=out,
        name=name,
        columns=replace(columns, weight=weight_column),
        weight_of={file: _number(file, value) for file, value in _pairs("--weight-of", weight_of)},
        labels_of={file: _split(value) for file, value in _pairs("--labels-of", labels_of)},
        labels=names,
        class_weights=class_weights,
        base=base,
        preset=preset,
        train_embeddings=train_embeddings,
        max_tokens=max_tokens,
        train_tokens=train_tokens,
        dropout=dropout,
        truncation=truncation,
        fit=FitConfig(
            epochs=epochs or default.epochs,
            batch_tokens=batch_tokens,
            accumulate=accumulate,
            learning_rate=learning_rate or default.learning_rate,
            head_factor=default.head_factor,
            soft_weight=soft_weight,
            distil_temperatures=tuple(distil_temperature or (1.0,)),
            hidden_weight=hidden_weight,
            average_last=average_last,
            patience=patience,
            seed=seed,
            bf16=not no_bf16,
        ),
        target_error=target_error,
        notes=notes.read_text(encoding="utf-8") if notes is not None else "",
        evaluation=EvaluationConfig(
            on=tuple(on or ()), gate=gate, allow_worse=allow_worse, baselines=not no_baselines
        ),
        overwrite=overwrite,
        teacher_bundle=teacher_bundle,
        teacher_logits=teacher_logits,
        teacher_share=teacher_share,
        checkpoint=checkpoint,
        checkpoint_minutes=checkpoint_minutes,
        lora=lora_of(lora, lora_rank, lora_alpha),
        interpolate=not no_interpolate,
        replay=not no_replay,
        anchors=tuple(anchors or ()),
    )
    with process_group() as process:
        if process.rank > 0:
            config.assist()
            return
        with ProgressDisplay() as display:
            trained = config.run(display)
    report(trained, out)


def _split(names: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in names.split(","))


def _pairs(option: str, given: Sequence[str] | None) -> list[tuple[str, str]]:
    found = []
    for each in given or ():
        file, equals, value = each.rpartition("=")
        if not equals:
            raise UsageError(f"{option} {each} has no `=`: write FILE=VALUE", reason="BAD_PAIR")
        found.append((file, value))
    return found


def _number(file: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise UsageError(f"--weight-of {file}={value} is no number from 0 up", reason="BAD_WEIGHT")
    return number
