"""What each row is to learn: whose label, which shares, and how much the row counts."""

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
    """Return *examples* with the labels that people gave; a row with shares may have none.

    `sentimill label` writes the teacher's largest share as `label`. To learn it besides the shares
    would only sharpen them (accuracy 0.734 with labels, 0.753 with shares, 0.762 with shares and
    the label of the stars: benchmarks/results/teachers.md). So a row with shares learns a label
    where it says that a person has `given` one, or where it names no `teacher` and its file has
    labels of its own: some of them differ from the largest share.
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
    """Return *rows* with the softmax of a teacher's *logits* (rows, labels) among their shares.

    A row that has shares already keeps ``1 - teacher_share`` of them; a row whose logits are NaN
    keeps them as they are.
    """
    known = ~np.isnan(logits).any(axis=1)
    soft = rows.soft.copy()
    answers = softmax(logits[known].astype(np.float64), axis=1)
    has_shares = soft[known].any(axis=1, keepdims=True)
    share = np.where(has_shares, teacher_share, 1.0)
    soft[known] = share * answers + (1 - share) * soft[known]
    return replace(rows, soft=soft)


def weigh_classes(rows: Rows, given: str, labels: Sequence[str]) -> Rows:
    """Return *rows* whose weights are multiplied by that of their label, or of their shares.

    given: `--class-weights`, which is ``balanced``, to weigh all labels alike (rows / (labels *
    rows of the label), King and Zeng 2001), or ``label=weight`` with commas between; a label that
    is not named has 1.

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


def _class_weights(given: str, labels: Sequence[str]) -> dict[str, float]:
    found = dict.fromkeys(labels, 1.0)
    for part in given.split(","):
        name, _, number = part.strip().rpartition("=")
        weight = number_of(number)
        if name not in found or not 0 <= weight < np.inf:
            raise UsageError(
                f"--class-weights {part.strip()!r} is no label=weight: write `balanced`, or such as"
                f" {labels[0]}=2, with one of {', '.join(labels)}",
                reason="BAD_CLASS_WEIGHTS",
            )
        found[name] = weight
    return found


def _label_shares(rows: Rows) -> NDArray[np.float64]:
    """Return one for the label of each row, or its shares where it has no label."""
    found = rows.soft.astype(np.float64)
    labelled = rows.gold != NO_LABEL
    found[labelled] = np.eye(found.shape[1])[rows.gold[labelled]]
    return found
