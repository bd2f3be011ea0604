"""Decides what each row teaches: its label, its soft labels, and its weight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from sentimill.errors import UsageError
from sentimill_train.data.schema import Example, number_of
from sentimill_train.data.tokenized import NO_LABEL, Rows


def human_labels(examples: Sequence[Example], labels: Sequence[str]) -> list[Example]:
    """Return *examples* with the labels that people gave; a row with probs may have none.

    `sentimill label` writes the label of the largest prob as `label`. Learning it in addition to
    the probs would only sharpen them (accuracy 0.734 with labels, 0.753 with probs, 0.762 with
    probs and the label of the stars: benchmarks/results/teachers.md). So a row with probs keeps a
    label in two cases. Either a person has `given` it, or the row names no `teacher` and the labels
    of its file are its own, because some differ from that of the largest prob.
    """
    index = {label: i for i, label in enumerate(labels)}

    def has_own_label(example: Example) -> bool:
        if example.probs is None or example.label is None or _is_taught(example):
            return False
        return example.probs[index[example.label]] < max(example.probs)

    own = {example.source for example in examples if has_own_label(example)}
    return [
        e
        if e.probs is None or (e.source in own and not _is_taught(e))
        else replace(e, label=e.given)
        for e in examples
    ]


def _is_taught(example: Example) -> bool:
    return example.teacher is not None or example.given is not None


def mix_shares(rows: Rows, logits: NDArray[np.float32], teacher_share: float) -> Rows:
    """Return *rows* with the softmax of a teacher's *logits* (rows, labels) in their soft labels.

    In a row that has soft labels already, these get the weight ``1 - teacher_share``. A row whose
    logits are NaN is not changed.
    """
    known = ~np.isnan(logits).any(axis=1)
    soft = rows.soft.copy()
    answers = softmax(logits[known].astype(np.float64), axis=1)
    has_shares = soft[known].any(axis=1, keepdims=True)
    share = np.where(has_shares, teacher_share, 1.0)
    soft[known] = share * answers + (1 - share) * soft[known]
    return replace(rows, soft=soft)


def weigh_classes(rows: Rows, given: str, labels: Sequence[str]) -> Rows:
    """Return *rows* with weights multiplied by the weight of their label, or of their soft labels.

    given: `--class-weights`. ``balanced`` gives all labels the same total weight (rows / (labels *
    rows of the label), King and Zeng 2001). ``label=weight``, separated by commas, sets weights; a
    label that is not named has 1.

    Raises:
        UsageError: BAD_CLASS_WEIGHTS.
    """
    shares = _label_shares(rows)
    if given == "balanced":
        counts = shares.sum(axis=0)
        weights = counts.sum() / (len(labels) * np.maximum(counts, 1.0))
    else:
        weights = np.array(list(_class_weights(given, labels).values()))
    return replace(rows, weight=rows.weight * (shares @ weights).astype(np.float32))


def check_class_weights(given: str, labels: Sequence[str]) -> None:
    """Check `--class-weights` before there are rows. Raises UsageError BAD_CLASS_WEIGHTS."""
    if given != "balanced":
        _class_weights(given, labels)


def _class_weights(given: str, labels: Sequence[str]) -> dict[str, float]:
    found = dict.fromkeys(labels, 1.0)
    for part in given.split(","):
        name, _, number = part.strip().rpartition("=")
        weight = number_of(number)
        if name not in found or not 0 <= weight < np.inf:
            raise UsageError(
                f"--class-weights {part.strip()!r} is not label=weight: write `balanced`, or for"
                f" example {labels[0]}=2, with one of {', '.join(labels)}",
                reason="BAD_CLASS_WEIGHTS",
            )
        found[name] = weight
    return found


def _label_shares(rows: Rows) -> NDArray[np.float64]:
    """Return (rows, labels): 1 for the label of each row; without a label, its soft labels."""
    found = rows.soft.astype(np.float64)
    labelled = rows.gold != NO_LABEL
    found[labelled] = np.eye(found.shape[1])[rows.gold[labelled]]
    return found
