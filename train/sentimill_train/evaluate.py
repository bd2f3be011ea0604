"""Judges predictions against gold labels: the figures of metrics.json and of the model card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ECE_BINS",
    "LabelFigures",
    "Metrics",
    "confusion_matrix",
    "evaluate",
    "expected_calibration_error",
    "macro_f1",
]

ECE_BINS: Final = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelFigures:
    """How one label was found. A ratio whose denominator is 0 is 0; support counts gold rows."""

    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """Everything measured on one set.

    macro_f1: mean over the labels that occur in gold. two_class_rows: rows whose gold is negative
    or positive; two_class_accuracy: how often the larger of those two probs is the gold one; None
    where the labels are not sentiments or no such row is there. ece: `expected_calibration_error`.
    nll: mean negative log-likelihood of gold, in nats. confusion: [gold][predicted] counts.
    """

    rows: int
    accuracy: float
    macro_f1: float
    ece: float
    nll: float
    two_class_accuracy: float | None
    two_class_rows: int
    labels: dict[str, LabelFigures]
    confusion: list[list[int]]


def evaluate(probs: NDArray[np.float32], gold: NDArray[np.int64], labels: Sequence[str]) -> Metrics:
    """Return the figures of *probs* (rows, labels) against *gold* (rows,); at least one row."""
    predicted = probs.argmax(1)
    confusion = confusion_matrix(predicted, gold, len(labels))
    two_class, two_class_rows = _two_class(probs, gold, labels)
    likelihood = probs[np.arange(len(gold)), gold]
    return Metrics(
        rows=len(gold),
        accuracy=float((predicted == gold).mean()),
        macro_f1=_macro(confusion),
        ece=expected_calibration_error(probs.max(1), predicted == gold),
        nll=float(np.log(1 / np.clip(likelihood, 1e-12, 1.0)).mean(dtype=np.float64)),
        two_class_accuracy=two_class,
        two_class_rows=two_class_rows,
        labels=_by_label(confusion, labels),
        confusion=confusion.tolist(),
    )


def macro_f1(predicted: NDArray[np.int64], gold: NDArray[np.int64]) -> float:
    """Return the mean F1 over the labels that occur in *gold*; both are (rows,)."""
    labels = int(max(predicted.max(), gold.max())) + 1
    return _macro(confusion_matrix(predicted, gold, labels))


def confusion_matrix(
    predicted: NDArray[np.int64], gold: NDArray[np.int64], labels: int
) -> NDArray[np.int64]:
    """Return counts (labels, labels): gold down, predicted across."""
    counts = np.bincount(gold * labels + predicted, minlength=labels * labels)
    return counts.reshape(labels, labels).astype(np.int64)


def expected_calibration_error(
    confidence: NDArray[np.float32], correct: NDArray[np.bool_], *, bins: int = ECE_BINS
) -> float:
    """Return the mean gap of confidence and accuracy over *bins* bins of equal mass.

    Equal mass, because equal-width bins of a good classifier are nearly all empty (Nguyen and
    O'Connor 2015, section 3.1). With fewer rows than bins every row is a bin.
    """
    order = np.argsort(confidence, kind="stable")
    total = 0.0
    for part in np.array_split(order, min(bins, len(order))):
        gap = confidence[part].mean(dtype=np.float64) - correct[part].mean(dtype=np.float64)
        total += len(part) * abs(float(gap))
    return total / len(order)


def _two_class(
    probs: NDArray[np.float32], gold: NDArray[np.int64], labels: Sequence[str]
) -> tuple[float | None, int]:
    if "negative" not in labels or "positive" not in labels:
        return None, 0
    negative, positive = labels.index("negative"), labels.index("positive")
    rows = (gold == negative) | (gold == positive)
    if not rows.any():
        return None, 0
    says_positive = probs[rows, positive] > probs[rows, negative]
    return float((says_positive == (gold[rows] == positive)).mean()), int(rows.sum())


def _by_label(confusion: NDArray[np.int64], labels: Sequence[str]) -> dict[str, LabelFigures]:
    precision, recall, f1, support = _figures(confusion)
    return {
        label: LabelFigures(
            precision=float(precision[i]),
            recall=float(recall[i]),
            f1=float(f1[i]),
            support=int(support[i]),
        )
        for i, label in enumerate(labels)
    }


def _macro(confusion: NDArray[np.int64]) -> float:
    _, _, f1, support = _figures(confusion)
    return float(f1[support > 0].mean())


def _figures(confusion: NDArray[np.int64]) -> tuple[NDArray[np.float64], ...]:
    hits = np.diag(confusion).astype(np.float64)
    support, claimed = confusion.sum(1), confusion.sum(0)
    return (
        hits / np.maximum(claimed, 1),
        hits / np.maximum(support, 1),
        2 * hits / np.maximum(support + claimed, 1),
        support.astype(np.float64),
    )
