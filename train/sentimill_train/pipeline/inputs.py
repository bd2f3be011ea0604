"""Reads and checks all that a training needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from tokenizers import Tokenizer

from sentimill.bundle.manifest import Source
from sentimill.bundle.reference import find_reference
from sentimill.errors import UsageError
from sentimill.text.tokenizer import TextEncoder
from sentimill_train.data.schema import Example, label_set
from sentimill_train.data.splits import Parted, part
from sentimill_train.data.tokenized import Refused, Rows
from sentimill_train.evaluation.training_evaluation import EvaluationInputs, read_evaluation
from sentimill_train.model.autocast import fast_dtype
from sentimill_train.model.pretrained import Pretrained, find_pretrained
from sentimill_train.model.student import Preset, goes_on
from sentimill_train.pipeline.config import TrainConfig
from sentimill_train.training.distributed import current_process
from sentimill_train.training.inputs import (
    Replay,
    judged_sample,
    learn_from_teacher,
    read_replay,
    read_reviews,
    tokenise_splits,
    warn_of_unknown_pieces,
)
from sentimill_train.training.targets import read_class_weights, weigh_classes
from sentimill_train.training.teacher_model import Teacher, load_teacher

__all__ = ["Inputs", "check_labels", "continues", "read_inputs", "starting_point"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """All that was read and checked before training.

    teacher: where its token states are learnt; else its answers are in the rows already.
    unknown_pieces: see `warn_of_unknown_pieces`.
    """

    pretrained: Pretrained
    encoder: TextEncoder
    labels: tuple[str, ...]
    sources: tuple[Source, ...]
    parted: Parted
    rows: Mapping[str, Rows]
    refused: tuple[Refused, ...]
    replay: Replay | None
    unknown_pieces: float
    evaluation: EvaluationInputs
    teacher: Teacher | None
    teacher_source: Pretrained | None


def read_inputs(config: TrainConfig, watch: Callable[[str], None]) -> Inputs:
    """Read and check everything, so that what is wrong is said before anything is trained.

    watch: is told what begins.
    """
    pretrained = starting_point(config.base, config.preset)
    sources, examples = read_reviews(
        config.reviews,
        config.columns,
        config.labels,
        weight_of=config.weight_of,
        labels_of=config.labels_of,
    )
    labels = config.labels if config.labels is not None else label_set(examples)
    check_labels(labels)
    taught = config.teacher_bundle is not None or config.teacher_logits is not None
    parted = judged_sample(part(examples, labels, spare=taught))
    encoder = _encoder(config, pretrained, config.max_tokens)
    shorter = _encoder(config, pretrained, config.learnt_tokens)
    rows, learnt, refused = tokenise_splits(
        parted, {"train": shorter, "validation": encoder, "test": encoder}, labels
    )
    unknown = warn_of_unknown_pieces(rows["train"], _unknown_id(pretrained), pretrained.name)
    if config.class_weights is not None:
        weights = read_class_weights(config.class_weights, rows["train"], labels)
        rows["train"] = weigh_classes(rows["train"], weights)
    replay = None
    if continues(config, pretrained, labels) and config.fit.hidden_weight == 0:
        replay = read_replay(
            examples,
            shorter,
            labels,
            packaged=config.replay,
            anchors=config.anchors,
            columns=config.columns,
            seed=config.fit.seed,
        )
    teacher = _teacher(config, labels, learnt)
    if taught:
        watch("reading the answers of the teacher")
        rows["train"] = learn_from_teacher(
            rows["train"],
            learnt,
            labels,
            teacher,
            file=config.teacher_logits,
            teacher_share=config.teacher_share,
            dtype=fast_dtype(teacher.model.device) if teacher and config.fit.bf16 else None,
            first=current_process().rank == 0,
        )
    return Inputs(
        pretrained=pretrained,
        encoder=encoder,
        labels=labels,
        sources=sources,
        parted=parted,
        rows={str(split): found for split, found in rows.items()},
        refused=refused,
        replay=replay,
        unknown_pieces=unknown,
        teacher=teacher if config.fit.hidden_weight > 0 else None,
        teacher_source=None if teacher is None else teacher.source,
        evaluation=read_evaluation(
            config.evaluation,
            parted,
            labels,
            columns=config.columns,
            trained_on=(sources, pretrained.sources),
        ),
    )


def _teacher(
    config: TrainConfig, labels: tuple[str, ...], learnt: Sequence[Example]
) -> Teacher | None:
    if config.teacher_bundle is None:
        if config.fit.hidden_weight > 0:
            raise UsageError(
                f"--hidden-weight {config.fit.hidden_weight} needs a --teacher-bundle",
                reason="NO_TEACHER",
            )
        if config.teacher_logits is not None and not config.teacher_logits.exists():
            raise UsageError(
                f"there is no file {config.teacher_logits} of --teacher-logits: give"
                " --teacher-bundle too, whose answers it will keep",
                reason="NO_TEACHER",
            )
        return None
    return load_teacher(
        config.teacher_bundle,
        labels,
        learnt,
        max_tokens=config.learnt_tokens,
        truncation=config.truncation,
    )


def _encoder(config: TrainConfig, pretrained: Pretrained, max_tokens: int) -> TextEncoder:
    return TextEncoder(
        pretrained.tokenizer_json(), max_tokens=max_tokens, truncation=config.truncation
    )


def continues(config: TrainConfig, pretrained: Pretrained, labels: Sequence[str]) -> bool:
    """Say whether training continues a model that answers: one of which half is kept does not."""
    return config.preset == "minilm-l6" and goes_on(pretrained, labels)


def starting_point(base: str | None, preset: Preset) -> Pretrained:
    """Return the encoder that training starts from: *base*, else the reference student, if any.

    A preset of random weights needs only a tokenizer, and takes that of the pre-trained encoder.
    """
    if preset == "tiny":
        return replace(find_pretrained(base), sources=())
    reference = find_reference()
    return find_pretrained(base or (str(reference) if reference else None))


def _unknown_id(pretrained: Pretrained) -> int | None:
    tokenizer = Tokenizer.from_buffer(pretrained.tokenizer_json())
    unknown = getattr(tokenizer.model, "unk_token", None)
    return None if unknown is None else tokenizer.token_to_id(unknown)


def check_labels(labels: Sequence[str]) -> None:
    """Raise UsageError BAD_LABELS unless there are two or more different *labels*."""
    if len(set(labels)) != len(labels) or len(labels) < 2:
        raise UsageError(
            f"{len(labels)} labels ({', '.join(labels)}): give two or more different ones with"
            " --labels",
            reason="BAD_LABELS",
        )
