"""Abstention: risk against coverage, and the confidence threshold for a target error.

All are pure functions of confidence (rows,) and correct (rows,), so they work for any model.
"""

from __future__ import annotations

from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from sentimill_train.metrics.classification import Answers, Floats, Ints
from sentimill_train.metrics.intervals import error_bound

SURENESS: Final = 0.95
"""The confidence level at which a threshold keeps its target on new rows."""


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One threshold. coverage: share of rows at or above it. risk: share of those that is wrong."""

    threshold: float
    coverage: float
    risk: float


def risk_coverage(answers: Answers) -> list[Point]:
    """Return at most 100 points of the curve, from the most confident rows to all rows.

    El-Yaniv and Wiener 2010; Geifman and El-Yaniv 2017, section 2. Rows of equal confidence are
    answered together, since no threshold can separate them.
    """
    confidence, rows, errors = _groups(answers.confidence, answers.correct)
    total = len(answers.gold)
    wanted = np.unique(np.searchsorted(rows, np.linspace(0, total, 101)[1:]))
    return [
        Point(
            threshold=float(confidence[i]),
            coverage=float(rows[i] / total),
            risk=float(errors[i] / rows[i]),
        )
        for i in wanted
    ]


def aurc(answers: Answers, weights: Floats) -> Floats:
    """Return the area under the risk-coverage curve: the mean risk over all coverages.

    Geifman, Uziel and El-Yaniv 2019, equation 2. It gives errors at high confidence a very large
    weight, and also rises with the difficulty of the data.
    """
    mass, covered, wrong = _by_confidence(answers, weights)
    risk = np.divide(wrong, covered, out=np.zeros_like(covered), where=covered > 0)
    return np.asarray((mass * risk).sum(axis=1) / mass.sum(axis=1))


def augrc(answers: Answers, weights: Floats) -> Floats:
    """Return the mean, over coverages, of the share of all rows answered and wrong: 0 to 0.5.

    This is the generalised risk of Traub et al. 2024, section 3: the probability that an answer is
    both given and wrong. Unlike AURC, it does not give the first few rows too much weight.
    """
    mass, _, wrong = _by_confidence(answers, weights)
    return np.asarray((mass * wrong).sum(axis=1) / mass.sum(axis=1) ** 2)


def _by_confidence(answers: Answers, weights: Floats) -> tuple[Floats, Floats, Floats]:
    """Return the mass of each row, and the total and wrong mass up to its middle: (draws, rows).

    Rows are sorted by falling confidence. The middle of a row drawn m times is the mean of covering
    1 to m of its copies. Rows of equal confidence share their errors evenly, which is the mean over
    their orders.
    """
    order = np.argsort(-answers.confidence, kind="stable")
    mass = weights[:, order]
    rate = np.broadcast_to((~answers.correct[order]).astype(np.float64), mass.shape)
    same = np.unique(-answers.confidence[order], return_inverse=True)[1]
    if same[-1] + 1 < len(same):
        starts = np.searchsorted(same, np.arange(same[-1] + 1))
        group = np.add.reduceat(mass, starts, axis=1)
        wrong = np.add.reduceat(mass * rate, starts, axis=1)
        rate = np.divide(wrong, group, out=np.zeros_like(group), where=group > 0)[:, same]
    before = (mass - 1) / 2
    return mass, mass.cumsum(axis=1) - before, (mass * rate).cumsum(axis=1) - before * rate


class Abstention(msgspec.Struct, frozen=True, kw_only=True):
    """The threshold that was chosen, and its coverage and error on the rows that chose it.

    threshold: the bundle answers at or above it; None if no threshold keeps the target. coverage:
    share of rows answered. error: share of those that is wrong. error_bound: upper bound of the
    error on new rows like these, at a confidence level of 95 %. It assumes that these rows chose
    nothing else; the validation rows also chose the best epoch, so it is a little too low. If
    threshold is None, the other three describe the one with the lowest bound, and are not stored.
    """

    target_error: float
    threshold: float | None
    coverage: float
    error: float
    error_bound: float
    rows: int

    def sentence(self) -> str:
        """Return the outcome in one sentence, for the log, the card and the report."""
        bound = f" (at most {self.error_bound:.2%} on new rows, if these chose nothing else)"
        if self.threshold is not None:
            return (
                f"Answering at confidence {self.threshold:.4f} or above covers {self.coverage:.1%}"
                f" of {self.rows} rows with {self.error:.2%} of the answers wrong{bound}; the"
                f" target was {self.target_error:.2%}, with {SURENESS:.0%} sureness."
            )
        return (
            f"An error of {self.target_error:.2%}, with {SURENESS:.0%} sureness cannot be reached"
            f" on {self.rows} rows: the best is {self.error:.2%} wrong{bound} at a coverage of"
            f" {self.coverage:.1%}. No threshold was set: give more validation rows or a higher"
            " target."
        )


def choose_threshold(
    confidence: Floats, correct: NDArray[np.bool_], *, target_error: float
) -> Abstention:
    """Return the threshold with the largest coverage whose error is at most *target_error*.

    The target holds on new rows, at the confidence level `SURENESS`. The exact binomial bound tests
    each coverage in rising order, starting with the first that could pass with three errors, and
    the last one before the first failure is taken. Tests in a fixed order need no correction for
    their number (Bauer 1991; Angelopoulos et al. 2021, "Learn then Test", section 2.3); a search
    over all thresholds, as in Geifman and El-Yaniv 2017, algorithm 1, does. If the error of these
    rows alone chose the threshold, about half of the thresholds would miss their target on new
    rows.

    confidence: (rows,) of calibrated answers on the validation split. correct: (rows,).

    Raises:
        ValueError: no rows, or a target outside 0 to 1.
    """
    if not len(confidence):
        raise ValueError("a threshold cannot be chosen without rows")
    if not 0 < target_error < 1:
        raise ValueError(f"target_error {target_error} must be between 0 and 1")
    levels, rows, errors = _groups(confidence, correct)
    bound = error_bound(errors, rows, 1 - SURENESS)
    order = _test_order(rows, target_error)
    failed = np.flatnonzero(bound[order] > target_error)
    passed = order[: failed[0]] if len(failed) else order
    shown = int(passed[-1] if len(passed) else bound.argmin())
    return Abstention(
        target_error=target_error,
        threshold=float(levels[shown]) if len(passed) else None,
        coverage=float(rows[shown] / len(confidence)),
        error=float(errors[shown] / rows[shown]),
        error_bound=float(bound[shown]),
        rows=len(confidence),
    )


def _test_order(rows: Floats, target: float) -> Ints:
    """Return the indices into *rows* to test, in order. It must not depend on the errors.

    The first size allows three errors, or fewer if there are few rows: if it allowed none, one
    error among the most confident rows would end the search. The steps are a hundredth of the rows.
    """
    total = float(rows[-1])
    for allowed in (3.0, 2.0, 1.0, 0.0):
        sizes = np.arange(1.0, total + 1)
        enough = np.flatnonzero(
            error_bound(np.full(len(sizes), allowed), sizes, 1 - SURENESS) <= target
        )
        if len(enough):
            sizes = np.arange(sizes[enough[0]], total + 1, max(1.0, total // 100))
            return np.unique(np.searchsorted(rows, np.append(sizes, total)))
    return np.empty(0, dtype=np.int64)


def _groups(confidence: Floats, correct: NDArray[np.bool_]) -> tuple[Floats, Floats, Floats]:
    """Return each distinct confidence, falling, with the number of rows and errors from it up."""
    order = np.argsort(-confidence, kind="stable")
    sorted_ = confidence[order]
    last = np.append(np.flatnonzero(np.diff(sorted_)), len(sorted_) - 1)
    errors = np.cumsum(~correct[order])[last]
    return sorted_[last], (last + 1).astype(np.float64), errors.astype(np.float64)
