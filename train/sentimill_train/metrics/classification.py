"""Figures of a classifier on labelled rows, each a function of the weights of the rows.

Every measure takes weights (draws, rows) and returns (draws,). Weights of one give the figure;
the counts of a bootstrap draw give the figure on that draw. So one formula gives both the figure
and its interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from sentimill_train.metrics.label_numbers import number_in

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

ECE_BINS: Final = 15
"""Bins of the calibration error: Guo et al. 2017, section 5, use 15."""


@dataclass(frozen=True)
class Answers:
    """The answers of a model to labelled rows.

    gold: (rows,) int64 into `labels`. probs: (rows, labels) float64, rows summing to 1. stars:
    (rows,) int64 from 1 to 5, or None when any row has none. Derived values are cached, because a
    loop over rows may read them each time.
    """

    labels: tuple[str, ...]
    gold: Ints
    probs: Floats
    stars: Ints | None = None

    @cached_property
    def predicted(self) -> Ints:
        """The most probable label of each row: (rows,) int64."""
        return np.asarray(self.probs.argmax(axis=1), dtype=np.int64)

    @cached_property
    def confidence(self) -> Floats:
        """The largest prob of each row: (rows,) float64."""
        return np.asarray(self.probs.max(axis=1))

    @cached_property
    def correct(self) -> NDArray[np.bool_]:
        """Whether the most probable label is the gold one: (rows,) bool."""
        return np.asarray(self.predicted == self.gold)

    def take(self, rows: NDArray[np.bool_]) -> Answers:
        """Return the rows where *rows* (rows,) is true."""
        stars = None if self.stars is None else self.stars[rows]
        return Answers(self.labels, self.gold[rows], self.probs[rows], stars)


def accuracy(answers: Answers, weights: Floats) -> Floats:
    """Return the share of rows whose most probable label is the gold one."""
    return _mean(weights, answers.correct.astype(np.float64))


def cells(first: Ints, second: Ints, size: int, weights: Floats) -> Floats:
    """Return confusion matrices (draws, size, size): *first* down, *second* across."""
    return _totals(first * size + second, size * size, weights).reshape(-1, size, size)


def f1_scores(gold: Ints, said: Ints, size: int, weights: Floats) -> Floats:
    """Return the F1 of each label (draws, size) for the answers *said*; 0 where undefined.

    No confusion matrices are built: for hundreds of labels and a thousand draws they take
    gigabytes.
    """
    hits = _totals(gold, size, weights * (gold == said))
    total = _totals(gold, size, weights) + _totals(said, size, weights)
    return np.asarray(np.divide(2 * hits, total, out=np.zeros_like(total), where=total > 0))


def _totals(place: Ints, size: int, weights: Floats) -> Floats:
    """Return the weight of the rows at each *place* below *size*: (draws, size)."""
    flat = place + np.arange(len(weights))[:, None] * size
    summed = np.bincount(flat.ravel(), weights.ravel(), minlength=len(weights) * size)
    return np.asarray(summed, dtype=np.float64).reshape(len(weights), size)


def macro_f1(answers: Answers, weights: Floats) -> Floats:
    """Return the mean F1 over the labels that occur in gold.

    A set without neutral rows is not penalised for a label that cannot be right; a row called
    neutral there still lowers recall.
    """
    size = len(answers.labels)
    scores = f1_scores(answers.gold, answers.predicted, size, weights)
    return np.asarray(scores[:, np.unique(answers.gold)].mean(axis=1))


def macro_f1_of(predicted: Ints, gold: Ints) -> float:
    """Return `macro_f1` of plain predictions; both are (rows,)."""
    size = int(max(predicted.max(), gold.max())) + 1
    scores = f1_scores(gold, predicted, size, np.ones((1, len(gold))))[0]
    return float(scores[np.unique(gold)].mean())


def two_class_accuracy(answers: Answers, weights: Floats) -> Floats:
    """Return how often the larger of P(positive) and P(negative) is right, without neutral rows.

    The neutral prob is ignored, as usual when a three-class model is compared with two-class ones
    (SST-2; Socher et al. 2013, section 5.1, drop the neutral rows).
    """
    negative, positive = answers.labels.index("negative"), answers.labels.index("positive")
    polar = (answers.gold == negative) | (answers.gold == positive)
    says_positive = answers.probs[:, positive] > answers.probs[:, negative]
    right = says_positive == (answers.gold == positive)
    return _mean(weights[:, polar], right[polar].astype(np.float64))


def neutral_share(answers: Answers, weights: Floats) -> Floats:
    """Return the share of rows called neutral, which two-class accuracy does not show."""
    neutral = answers.labels.index("neutral")
    return _mean(weights, (answers.predicted == neutral).astype(np.float64))


def nll(answers: Answers, weights: Floats) -> Floats:
    """Return the mean negative log-likelihood of gold, in nats.

    A prob of 0 counts as 1e-12, so that one certain mistake does not make the result infinite.
    """
    likelihood = answers.probs[np.arange(len(answers.gold)), answers.gold]
    return _mean(weights, np.log(1 / np.clip(likelihood, 1e-12, 1.0)))


def nll_of(probs: Floats, gold: Ints) -> float:
    """Return `nll` of plain probs (rows, labels) and labels (rows,)."""
    return float(nll(Answers((), gold, probs), np.ones((1, len(gold))))[0])


def brier(answers: Answers, weights: Floats) -> Floats:
    """Return the mean over rows of sum((probs - gold)^2) over labels: 0 to 2, low is good.

    Brier 1950, equation 2, for any number of classes.
    """
    target = np.eye(len(answers.labels))[answers.gold]
    return _mean(weights, ((answers.probs - target) ** 2).sum(axis=1))


def ece(answers: Answers, weights: Floats) -> Floats:
    """Return the expected calibration error of the confidence, in bins of equal mass.

    It is the sum over bins of mass * |accuracy - confidence| (Guo et al. 2017, equation 5). Bins
    have equal mass instead of equal width (Nguyen and O'Connor 2015; Nixon et al. 2019, section 3),
    since a good model puts most rows in one bin of equal width. It is biased upwards by noise, most
    on few rows and on bootstrap draws.
    """
    mass, confidence, hits = _bins(answers, weights)
    return np.asarray(np.abs(confidence - hits).sum(axis=1) / mass.sum(axis=1))


class Bin(msgspec.Struct, frozen=True, kw_only=True):
    """One bin of the reliability diagram: mean confidence and accuracy of its rows."""

    confidence: float
    accuracy: float
    rows: int


def reliability(answers: Answers) -> list[Bin]:
    """Return the bins that `ece` sums over, by rising confidence, without empty ones."""
    mass, confidence, hits = _bins(answers, np.ones((1, len(answers.gold))))
    return [
        Bin(confidence=float(c / m), accuracy=float(h / m), rows=int(m))
        for m, c, h in zip(mass[0], confidence[0], hits[0], strict=True)
        if m > 0
    ]


def _bins(answers: Answers, weights: Floats) -> tuple[Floats, Floats, Floats]:
    """Return mass, sum of confidence and sum of hits: (draws, bins) each."""
    order = np.argsort(answers.confidence, kind="stable")
    mass = weights[:, order]
    # The middle of a row's mass decides its bin, so that a row that was drawn often is not split.
    middle = (mass.cumsum(axis=1) - mass / 2) / mass.sum(axis=1, keepdims=True)
    which = np.minimum((middle * ECE_BINS).astype(np.int64), ECE_BINS - 1)
    values = (mass, mass * answers.confidence[order], mass * answers.correct[order])
    found, confidence, hits = (_totals(which, ECE_BINS, each) for each in values)
    return found, confidence, hits


def expected_stars(labels: Sequence[str], probs: Floats) -> Floats:
    """Return 3 + 2 * (P(positive) - P(negative)) of each row: 1 to 5 stars.

    This is our own definition: the score of `Prediction`, scaled from -1..1 to the range of stars,
    so that the three labels are at 1, 3 and 5. No stars are needed to fit it.
    """
    positive, negative = labels.index("positive"), labels.index("negative")
    return 3 + 2 * (probs[:, positive] - probs[:, negative])


def star_mae(answers: Answers, weights: Floats) -> Floats:
    """Return the mean of |expected stars - stars|, in stars. Needs `answers.stars`."""
    return _mean(weights, np.abs(expected_stars(answers.labels, answers.probs) - _stars(answers)))


def quadratic_kappa(answers: Answers, weights: Floats) -> Floats:
    """Return Cohen's kappa between rounded expected stars and stars, weighted by squared distance.

    Cohen 1968: 1 - sum(d^2 * observed) / sum(d^2 * expected by chance); 1 agrees, 0 is chance.
    Needs `answers.stars`.
    """
    # Half a star rounds up: numpy's rounding to even would take 2.5 down and 3.5 up.
    guessed = np.floor(expected_stars(answers.labels, answers.probs) + 0.5).astype(np.int64)
    return _weighted_kappa(_stars(answers) - 1, guessed - 1, np.arange(1.0, 6.0), weights)


def label_values(labels: Sequence[str]) -> Floats | None:
    """Return the number of each of *labels*, None if the labels have no order.

    Labels are ordered if they contain rising numbers, such as `1 star` to `5 stars`, or if they are
    negative, neutral and positive, which count as 0, 1 and 2.
    """
    if tuple(labels) == ("negative", "neutral", "positive"):
        return np.arange(3.0)
    values = np.array([number for label in labels if (number := number_in(label)) is not None])
    ordered = len(values) == len(labels) > 2 and bool((np.diff(values) > 0).all())
    return values if ordered else None


def label_kappa(answers: Answers, weights: Floats) -> Floats:
    """Return Cohen's kappa between answers and gold, weighted by the squared distance of labels.

    Needs labels with an order, see `label_values`.
    """
    return _weighted_kappa(answers.gold, answers.predicted, _values(answers), weights)


def label_mae(answers: Answers, weights: Floats) -> Floats:
    """Return the mean of |expected label - gold label|, in the numbers of `label_values`."""
    values = _values(answers)
    return _mean(weights, np.abs(answers.probs @ values - values[answers.gold]))


def _values(answers: Answers) -> Floats:
    values = label_values(answers.labels)
    if values is None:
        raise ValueError("these labels have no order, so no measure of ordered labels applies")
    return values


def _weighted_kappa(gold: Ints, said: Ints, values: Floats, weights: Floats) -> Floats:
    """Return quadratically weighted kappa (draws,); *values*: the number of each label."""
    observed = cells(gold, said, len(values), weights)
    chance = observed.sum(axis=2)[:, :, None] * observed.sum(axis=1)[:, None, :]
    chance /= observed.sum(axis=(1, 2))[:, None, None]
    distance = (values[:, None] - values[None, :]) ** 2
    expected = (distance * chance).sum(axis=(1, 2))
    found = (distance * observed).sum(axis=(1, 2))
    # If all rows are in one cell, no disagreement is possible, and none was found.
    return np.asarray(1 - np.divide(found, expected, out=np.zeros_like(found), where=expected > 0))


def _stars(answers: Answers) -> Ints:
    if answers.stars is None:
        raise ValueError("some rows have no stars, so no measure of stars applies")
    return answers.stars


def _mean(weights: Floats, values: Floats) -> Floats:
    return np.asarray(weights @ values / weights.sum(axis=1))
