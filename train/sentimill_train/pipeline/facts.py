"""Records the settings and results of a training for its checkpoint, manifest and model card."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from sentimill_train.pipeline.config import TrainConfig
from sentimill_train.pipeline.inputs import Inputs
from sentimill_train.training.checkpoint import Checkpoint
from sentimill_train.training.distributed import current_process
from sentimill_train.training.loop import Fit


def checkpoint_of(config: TrainConfig, folder: Path, inputs: Inputs) -> Checkpoint:
    """Return the checkpoint in *folder*, which records all that the weights depend on."""
    run = {f"--{name.replace('_', '-')}": value for name, value in asdict(config.fit).items()}
    teacher, replay = inputs.teacher_source, inputs.replay
    run |= {
        "the weights of --base": inputs.pretrained.sha256,
        "the weights of --teacher-bundle": teacher.sha256 if teacher else None,
        "--labels": ",".join(inputs.labels),
        "--preset": config.preset,
        "--train-embeddings": config.train_embeddings,
        "--max-tokens": config.max_tokens,
        "--train-tokens": config.train_tokens,
        "--truncation": config.truncation,
        "--dropout": config.dropout,
        "--lora-rank": None if config.lora is None else config.lora.rank,
        "--lora-alpha": None if config.lora is None else config.lora.alpha,
        "the tokens of the reviews": inputs.rows["train"].sha256()
        + inputs.rows["validation"].sha256(),
        "the replayed reviews": None if replay is None else replay.train.sha256(),
        "processes": current_process().count,
    }
    return Checkpoint(folder, run, minutes=config.checkpoint_minutes)


def training_facts(
    config: TrainConfig, inputs: Inputs, fitted: Fit
) -> dict[str, str | int | float | bool | None]:
    """Return how the student was trained, for the manifest and the card."""
    parted, replay = inputs.parted, inputs.replay
    # The temperatures are a tuple, joined below, and `autocast` records whether bf16 was used.
    several = ("distil_temperatures", "bf16")
    settings = {n: value for n, value in asdict(config.fit).items() if n not in several}
    teacher = inputs.teacher_source
    return {
        "preset": config.preset,
        "train_embeddings": config.train_embeddings or config.preset == "tiny",
        "train_tokens": config.train_tokens,
        "dropout": config.dropout,
        "lora_rank": None if config.lora is None else config.lora.rank,
        "lora_alpha": None if config.lora is None else config.lora.alpha,
        **settings,
        "epochs": fitted.epochs,
        "best_epoch": fitted.best_epoch,
        "best_validation_nll": round(fitted.nll, 4),
        "best_validation_macro_f1": round(fitted.macro_f1, 4),
        "steps": fitted.steps,
        "distil_temperature": ",".join(f"{t:g}" for t in config.fit.distil_temperatures),
        "class_weights": config.class_weights,
        "teacher_bundle": None if teacher is None else teacher.name,
        "teacher_bundle_sha256": None if teacher is None else teacher.sha256,
        "teacher_logits": None if config.teacher_logits is None else config.teacher_logits.name,
        "teacher_share": config.teacher_share,
        "interpolated_share": fitted.interpolated_share,
        "text_column": ", ".join(config.columns.texts),
        "label_column": config.columns.label,
        "weight_column": config.columns.weight,
        "rows_train": len(parted.train),
        "rows_validation": len(parted.validation),
        "rows_test": len(parted.test),
        "rows_spare": len(parted.spare),
        "rows_unlabelled": parted.unlabelled,
        "rows_repeated": parted.repeated,
        "rows_refused": len(inputs.refused),
        "rows_replayed": 0 if replay is None else len(replay.train),
        "unknown_pieces": round(inputs.unknown_pieces, 5),
        "target_error": config.target_error,
        "seconds": round(fitted.seconds, 1),
        "device": fitted.device,
        "autocast": fitted.autocast,
        "threads": fitted.threads,
        "processes": fitted.processes,
    }
