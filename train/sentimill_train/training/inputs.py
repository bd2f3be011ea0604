"""The rows that a training reads: its reviews, its replay, and what a teacher says of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import torch

from sentimill.bundle.manifest import Source
from sentimill.errors import UsageError
from sentimill.text.tokenizer import TextEncoder
from sentimill_train.data.examples import read_examples, stream_texts
from sentimill_train.data.learnt_texts import text_sketch
from sentimill_train.data.readers import digest_of
from sentimill_train.data.schema import SENTIMENTS, Columns, Example, Split
from sentimill_train.data.splits import Parted, sample_rows, split_of, text_key
from sentimill_train.data.tokenized import Refused, Rows, tokenise
from sentimill_train.training.defaults import replayed_rows
from sentimill_train.training.targets import human_labels, mix_shares
from sentimill_train.training.teacher_logits import find_logits, text_keys, write_logits
from sentimill_train.training.teacher_model import Teacher

__all__ = [
    "JUDGED_ROWS",
    "Replay",
    "judged_sample",
    "learn_from_teacher",
    "read_replay",
    "read_reviews",
    "tokenise_splits",
    "warn_of_unknown_pieces",
]

JUDGED_ROWS: Final[Mapping[Split, int]] = {"validation": 20_000, "test": 50_000}
"""Of more rows than these a sample is judged: the interval of an accuracy of 90 % on 20,000 rows is
0.8 points wide, and the time of an epoch should go into training."""

_PACKAGED: Final = ("starter", "hard-kinds")
_REPLAY_VALIDATION: Final = 200
"""Rows that help to choose the share of the new weights: all of them took as long as a training."""
_UNKNOWN: Final = 0.02  # of the word pieces; English reviews have 0.0005 or less
_LOG: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """Rows of other reviews, on which a continued student should still answer well.

    train: learnt among the own rows. validation: rows that help to choose the weights.
    """

    train: Rows
    validation: Rows


def read_reviews(
    reviews: Sequence[str],
    columns: Columns,
    labels: tuple[str, ...] | None,
    *,
    weight_of: Mapping[str, float],
    labels_of: Mapping[str, tuple[str, ...]],
) -> tuple[tuple[Source, ...], list[Example]]:
    """Return the sources of *reviews* and their rows.

    weight_of, labels_of: by source, what every row of it has as `weight` and `labels_allowed`.

    Raises:
        UsageError: UNKNOWN_SOURCE where one of the two names no source. Those of `read_examples`.
    """
    unknown = [name for name in (*weight_of, *labels_of) if name not in reviews]
    if unknown:
        raise UsageError(
            f"{unknown[0]} is not among the reviews: write it as --reviews has it",
            reason="UNKNOWN_SOURCE",
        )
    sources: list[Source] = []
    examples: list[Example] = []
    for review in reviews:
        found = read_examples(review, columns=columns, labels=labels)
        # The name alone: the folder of a file is nobody's business.
        name = Path(review).name if "/" in review and ":" not in review else review
        texts = text_sketch(e.text for e in found if (e.split or split_of(e.text)) == "train")
        sources.append(Source(name=name, sha256=digest_of(review), rows=len(found), texts=texts))
        weight, allowed = weight_of.get(review), labels_of.get(review)
        if weight is not None:
            found = [replace(e, weight=e.weight * weight) for e in found]
        if allowed is not None:
            found = [replace(e, labels_allowed=allowed) for e in found]
        examples += found
    return tuple(sources), examples


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
    parted: Parted, encoders: Mapping[Split, TextEncoder], labels: Sequence[str]
) -> tuple[dict[Split, Rows], tuple[Example, ...], tuple[Refused, ...]]:
    """Return the rows of each split, the examples behind those of train, and those refused.

    The rows of train are the labelled and the unlabelled ones, with the labels of people.
    """
    rows: dict[Split, Rows] = {}
    refused: list[Refused] = []
    learnt = human_labels((*parted.train, *parted.spare), labels)
    for split, encoder in encoders.items():
        chosen = learnt if split == "train" else parted[split]
        rows[split], left_out = tokenise(chosen, encoder, labels)
        refused += left_out
    unread = {id(each.example) for each in refused}
    return rows, tuple(e for e in learnt if id(e) not in unread), tuple(refused)


def read_replay(
    own: Sequence[Example],
    encoder: TextEncoder,
    labels: Sequence[str],
    *,
    packaged: bool,
    anchors: Sequence[str],
    columns: Columns,
    seed: int,
) -> Replay | None:
    """Return the rows to replay with the *own* reviews: all rows of *anchors*, and *packaged*.

    The packaged reviews are those that come with the package (labels: `SENTIMENTS`), at most as
    many as `replayed_rows` of the own ones. Of *anchors* the texts count, not their labels. A text
    that is among the own reviews is not replayed.
    """
    train: list[Example] = []
    validation: list[Example] = []
    if packaged and tuple(labels) == SENTIMENTS:
        for example in (e for source in _PACKAGED for e in read_examples(source)):
            split = example.split or split_of(example.text)
            if split != "test":
                (train if split == "train" else validation).append(example)
        train = human_labels(train, labels)  # validation keeps its labels, to be judged by
        chosen = np.random.default_rng(seed).permutation(len(train))[: replayed_rows(len(own))]
        train = [train[i] for i in np.sort(chosen)]
        validation = sample_rows(validation, _REPLAY_VALIDATION)
    for source in anchors:
        texts = enumerate(stream_texts(source, columns))
        train += [Example(id=f"{source}-{i}", text=text, source=source) for i, (text, _) in texts]
    keys = {text_key(example.text) for example in (*train, *validation)}
    taken = {key for example in own if (key := text_key(example.text)) in keys}
    splits = [[e for e in each if text_key(e.text) not in taken] for each in (train, validation)]
    if not any(splits):
        return None
    first, second = (tokenise(each, encoder, labels)[0] for each in splits)
    return Replay(train=first, validation=second)


def learn_from_teacher(
    rows: Rows,
    examples: Sequence[Example],
    labels: Sequence[str],
    teacher: Teacher | None,
    *,
    file: Path | None,
    teacher_share: float,
    dtype: torch.dtype | None,
    first: bool,
    watch: Callable[[int, int], None] = lambda done, total: None,
) -> Rows:
    """Return *rows* with the teacher's answers among their shares.

    The answers come from *file* where it has the text, else from *teacher*, which answers each text
    once; new answers are added to *file*, by the *first* process alone.
    """
    keys = text_keys([example.text for example in examples])
    logits = np.full((len(rows), len(labels)), np.nan, dtype=np.float32)
    if file is not None and file.exists():
        logits = find_logits(file, keys, labels)
    missing = np.flatnonzero(np.isnan(logits).any(axis=1)).tolist()
    if teacher is not None and missing:
        # In half precision, as the file has them: a second run then learns the very same answers.
        logits[missing] = teacher.logits(missing, dtype, watch).astype(np.float16)
        if file is not None and first:
            write_logits(file, [keys[i] for i in missing], logits[missing], labels)
    return mix_shares(rows, logits, teacher_share)


def warn_of_unknown_pieces(rows: Rows, unknown: int | None, name: str) -> float:
    """Return the share of word pieces that the vocabulary of *name* lacks, and warn if it is large.

    unknown: the id of the piece that stands for what cannot be spelt; None where there is none.
    """
    share = float((rows.ids == unknown).mean()) if unknown is not None and len(rows.ids) else 0.0
    if share > _UNKNOWN:
        _LOG.warning(
            "%.1f %% of the word pieces of these reviews are unknown to the vocabulary of %s, so"
            " the model cannot read them: give --base an encoder of their language and script, such"
            " as hub:distilbert/distilbert-base-multilingual-cased",
            share * 100,
            name,
        )
    return share
