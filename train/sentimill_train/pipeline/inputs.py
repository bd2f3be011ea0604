"""Reads and checks all that a training needs."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from tokenizers import Tokenizer

from sentimill.bundle.manifest import Source
from sentimill.bundle.reference import find_reference
from sentimill.errors import UsageError
from sentimill.text.tokenizer import TextEncoder
from sentimill_train.data.examples import read_examples
from sentimill_train.data.learnt_texts import text_sketch
from sentimill_train.data.readers import digest_of, is_hub
from sentimill_train.data.schema import Example, Split, label_set
from sentimill_train.data.splits import Parted, part, sample_rows, split_of_key, text_key
from sentimill_train.data.tokenized import Refused, Rows, tokenise
from sentimill_train.evaluation.training_evaluation import EvaluationInputs, read_evaluation
from sentimill_train.model.autocast import fast_dtype
from sentimill_train.model.pretrained import Pretrained, find_pretrained
from sentimill_train.model.student import Preset, goes_on
from sentimill_train.pipeline.config import TrainConfig
from sentimill_train.pipeline.replay import Replay, read_replay
from sentimill_train.training.distributed import current_process
from sentimill_train.training.targets import (
    check_class_weights,
    human_labels,
    mix_shares,
    weigh_classes,
)
from sentimill_train.training.teacher_logits import find_logits, text_keys, write_logits
from sentimill_train.training.teacher_model import Teacher, load_teacher

JUDGED_ROWS: Final[Mapping[Split, int]] = {"validation": 20_000, "test": 50_000}
"""Larger splits are sampled down to this many rows. The interval of an accuracy of 90 % on 20,000
rows is only 0.8 points wide, and the time of an epoch should go into training."""

_UNKNOWN: Final = 0.02  # of the word pieces; English reviews have 0.0005 or less
_LOG: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """All that was read and checked before training.

    teacher: None unless its token states are learnt; its answers are in the rows already.
    unknown_pieces: see `warn_of_unknown_pieces`.
    """

    pretrained: Pretrained
    encoder: TextEncoder
    labels: tuple[str, ...]
    sources: tuple[Source, ...]
    parted: Parted
    rows: Mapping[Split, Rows]
    refused: tuple[Refused, ...]
    replay: Replay | None
    unknown_pieces: float
    evaluation: EvaluationInputs
    teacher: Teacher | None
    teacher_source: Pretrained | None


def read_inputs(config: TrainConfig, watch: Callable[[str], None]) -> Inputs:
    """Read and check everything, so that every fault is reported before training begins.

    watch: called with the name of a step as it begins.
    """
    pretrained = starting_point(config.base, config.preset)
    sources, examples = read_reviews(config)
    labels = config.labels if config.labels is not None else label_set(examples)
    if labels or config.labels is not None:  # if no row has a label, `part` raises
        check_labels(labels)
        check_allowed(config.labels_of, examples, labels)
        if config.class_weights is not None:
            check_class_weights(config.class_weights, labels)
    taught = config.teacher_bundle is not None or config.teacher_logits is not None
    parted = judged_sample(part(examples, labels, spare=taught, columns=config.columns))
    if not taught:
        warn_of_absent_labels(parted.train, labels)
    encoder, shorter = (
        TextEncoder(pretrained.tokenizer_json(), max_tokens=tokens, truncation=config.truncation)
        for tokens in (config.max_tokens, config.learnt_tokens)
    )
    rows, learnt, refused = tokenise_splits(parted, labels, encoder, shorter)
    unknown = warn_of_unknown_pieces(rows["train"], pretrained)
    replay = None
    if continues(config, pretrained, labels) and config.fit.hidden_weight == 0:
        replay = read_replay(config, examples, shorter, labels)
    teacher = _teacher(config, labels, learnt)
    if taught:
        watch("reading the answers of the teacher")
        rows["train"] = learn_from_teacher(config, rows["train"], learnt, labels, teacher)
    if config.class_weights is not None:  # after the teacher, whose answers weigh unlabelled rows
        rows["train"] = weigh_classes(rows["train"], config.class_weights, labels)
    return Inputs(
        pretrained=pretrained,
        encoder=encoder,
        labels=labels,
        sources=sources,
        parted=parted,
        rows=rows,
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


def read_reviews(config: TrainConfig) -> tuple[tuple[Source, ...], list[Example]]:
    """Return the sources of the reviews and their rows, with the weights and labels of each source.

    Raises:
        UsageError: UNKNOWN_SOURCE where `weight_of` or `labels_of` names no source; and the errors
            of `read_examples`.
    """
    unknown = [n for n in (*config.weight_of, *config.labels_of) if n not in config.reviews]
    if unknown:
        raise UsageError(
            f"{unknown[0]} is not among the reviews: write it exactly as in --reviews",
            reason="UNKNOWN_SOURCE",
        )
    sources: list[Source] = []
    examples: list[Example] = []
    for review in config.reviews:
        found = read_examples(review, columns=config.columns, labels=config.labels)
        # Only the file name is kept, because the folders of a path may be private.
        name = review if is_hub(review) else Path(review).name
        keys = ((text_key(e.text), e.split) for e in found)
        texts = text_sketch(k for k, split in keys if (split or split_of_key(k)) == "train")
        sources.append(Source(name=name, sha256=digest_of(review), rows=len(found), texts=texts))
        weight, allowed = config.weight_of.get(review), config.labels_of.get(review)
        if weight is not None:
            found = [replace(e, weight=e.weight * weight) for e in found]
        if allowed is not None:
            found = [replace(e, labels_allowed=allowed) for e in found]
        examples += found
    return tuple(sources), examples


def check_allowed(
    labels_of: Mapping[str, Sequence[str]], examples: Sequence[Example], labels: Sequence[str]
) -> None:
    """Check that *labels_of* names labels of *labels*, and every label that people gave the rows.

    A row whose label is not allowed would have an infinite loss.

    Raises:
        UsageError: BAD_LABELS_OF.
    """
    for file, allowed in labels_of.items():
        option = f"--labels-of {file}={','.join(allowed)}"
        unknown = [name for name in allowed if name not in labels]
        if unknown or not allowed:
            raise UsageError(
                f"{option} names {', '.join(map(repr, unknown)) or 'no label'}, but the labels of"
                f" this training are {', '.join(labels)}: write some of them, as they are here",
                reason="BAD_LABELS_OF",
            )
        rows = human_labels([e for e in examples if e.source == file], labels)
        learnt = Counter(row.label for row in rows)
        others = [name for name in labels if learnt[name] and name not in allowed]
        if others:
            counts = ", ".join(f"{name} (rows: {learnt[name]:,})" for name in others)
            raise UsageError(
                f"{option} lacks labels that rows of this file have: {counts}; add them, or"
                " correct or remove these rows",
                reason="BAD_LABELS_OF",
            )


def judged_sample(parted: Parted) -> Parted:
    """Return *parted* with at most `JUDGED_ROWS` rows for validation and test.

    See `sample_rows`.
    """
    return replace(
        parted,
        validation=tuple(sample_rows(parted.validation, JUDGED_ROWS["validation"])),
        test=tuple(sample_rows(parted.test, JUDGED_ROWS["test"])),
    )


def tokenise_splits(
    parted: Parted, labels: Sequence[str], encoder: TextEncoder, train_encoder: TextEncoder
) -> tuple[dict[Split, Rows], tuple[Example, ...], tuple[Refused, ...]]:
    """Return the rows of each split, the examples behind those of train, and those refused.

    The rows of train are the labelled and the unlabelled ones, with their `human_labels`.
    """
    learnt = human_labels((*parted.train, *parted.spare), labels)
    train, refused = tokenise(learnt, train_encoder, labels)
    unread = {id(each.example) for each in refused}
    validation, more = tokenise(parted.validation, encoder, labels)
    test, yet_more = tokenise(parted.test, encoder, labels)
    return (
        {"train": train, "validation": validation, "test": test},
        tuple(e for e in learnt if id(e) not in unread),
        (*refused, *more, *yet_more),
    )


def learn_from_teacher(
    config: TrainConfig,
    rows: Rows,
    examples: Sequence[Example],
    labels: Sequence[str],
    teacher: Teacher | None,
) -> Rows:
    """Return *rows* with the teacher's answers mixed into their soft labels.

    The answers come from `teacher_logits` where that file has the text, else from *teacher*. The
    first process adds new answers to the file.
    """
    file = config.teacher_logits
    keys = text_keys([example.text for example in examples])
    logits = np.full((len(rows), len(labels)), np.nan, dtype=np.float32)
    if file is not None and file.exists():
        logits = find_logits(file, keys, labels)
    missing = np.flatnonzero(np.isnan(logits).any(axis=1)).tolist()
    if teacher is not None and missing:
        dtype = fast_dtype(teacher.model.device) if config.fit.bf16 else None
        # The file holds float16; rounding here too gives a second run exactly the same answers.
        logits[missing] = teacher.logits(missing, dtype).astype(np.float16)
        if file is not None and current_process().rank == 0:
            write_logits(file, [keys[i] for i in missing], logits[missing], labels)
    return mix_shares(rows, logits, config.teacher_share)


def warn_of_unknown_pieces(rows: Rows, pretrained: Pretrained) -> float:
    """Return the share of word pieces that the vocabulary lacks, and warn if it is large."""
    tokenizer = Tokenizer.from_buffer(pretrained.tokenizer_json())
    piece = getattr(tokenizer.model, "unk_token", None)
    unknown = None if piece is None else tokenizer.token_to_id(piece)
    share = float((rows.ids == unknown).mean()) if unknown is not None and len(rows.ids) else 0.0
    if share > _UNKNOWN:
        _LOG.warning(
            "%.1f %% of the word pieces of these reviews are unknown to the vocabulary of %s, so"
            " the model cannot read them: give --base an encoder of their language and script, such"
            " as hub:distilbert/distilbert-base-multilingual-cased",
            share * 100,
            pretrained.name,
        )
    return share


def warn_of_absent_labels(train: Sequence[Example], labels: Sequence[str]) -> None:
    """Warn of *labels* that no row of *train* has: the model learns never to give them.

    There is no warning if any row has probs or `labels_allowed`: such a row also teaches something
    about the labels that it does not have.
    """
    found = {example.label for example in train}
    if found >= set(labels) or any(e.probs or e.labels_allowed for e in train):
        return
    present = ",".join(label for label in labels if label in found)
    _LOG.warning(
        "no row for train is labelled %s, so the model learns that no review is: if whoever"
        " labelled a file could not choose that, give --labels-of FILE=%s; to train without it,"
        " give --labels %s",
        " or ".join(label for label in labels if label not in found),
        present,
        present,
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
                f"there is no file {config.teacher_logits} of --teacher-logits: also give"
                " --teacher-bundle, and its answers are written to that file",
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


def continues(config: TrainConfig, pretrained: Pretrained, labels: Sequence[str]) -> bool:
    """Say whether training continues a whole classifier; minilm-l3 keeps only some layers of it."""
    return config.preset == "minilm-l6" and goes_on(pretrained, labels)


def starting_point(base: str | None, preset: Preset) -> Pretrained:
    """Return the encoder that training starts from: *base*, else the reference student, if any.

    A preset of random weights needs only a tokenizer, and takes that of the pre-trained encoder.
    """
    if preset == "tiny":
        return replace(find_pretrained(base), sources=())
    reference = find_reference()
    return find_pretrained(base or (str(reference) if reference else None))


def check_labels(labels: Sequence[str]) -> None:
    """Raise UsageError BAD_LABELS unless there are two or more different *labels*."""
    if len(set(labels)) != len(labels) or len(labels) < 2:
        raise UsageError(
            f"{len(labels)} labels ({', '.join(labels)}): give two or more different ones with"
            " --labels",
            reason="BAD_LABELS",
        )
