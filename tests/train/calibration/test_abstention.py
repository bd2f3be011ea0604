"""Risk against coverage, and the threshold that keeps a promise about errors."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from sentimill_train.calibration.abstention import (
    augrc,
    aurc,
    choose_threshold,
    risk_coverage,
)
from sentimill_train.metrics.classification import Answers, Floats
from sentimill_train.metrics.intervals import error_bound

LABELS = ("negative", "positive")


def answers_of(confidence: list[float], correct: list[bool]) -> Answers:
    """Return two-label answers with that confidence, right or wrong as told."""
    probs = np.array([[c, 1 - c] for c in confidence])
    return Answers(LABELS, np.array([0 if right else 1 for right in correct]), probs)


def draw(rows: int, seed: int) -> tuple[Floats, np.typing.NDArray[np.bool_]]:
    """Return calibrated confidences and whether each answer is right."""
    random = np.random.default_rng(seed)
    confidence = 1 - random.uniform(0, 0.6, rows) ** 2
    return confidence, random.random(rows) < confidence


def test_curve_runs_from_the_surest_to_all() -> None:
    """The last point covers everything at the plain error rate; coverage only rises."""
    answers = answers_of([0.9, 0.8, 0.7, 0.6], [True, True, False, True])
    points = risk_coverage(answers)
    assert [(p.coverage, p.risk) for p in points] == [
        (0.25, 0.0),
        (0.5, 0.0),
        (0.75, pytest.approx(1 / 3)),
        (1.0, 0.25),
    ]


def test_rows_of_equal_confidence_are_answered_together() -> None:
    """No threshold parts them, so the curve has one point for them."""
    points = risk_coverage(answers_of([0.9, 0.9, 0.9, 0.6], [True, False, True, True]))
    assert [p.coverage for p in points] == [0.75, 1.0]


def test_areas_by_hand() -> None:
    """AURC is the mean risk over coverages; AUGRC that of errors given over all rows."""
    answers = answers_of([0.9, 0.8, 0.7, 0.6], [True, False, True, False])
    ones = np.ones((1, 4))
    assert aurc(answers, ones)[0] == pytest.approx((0 + 1 / 2 + 1 / 3 + 2 / 4) / 4)
    assert augrc(answers, ones)[0] == pytest.approx((0 + 1 + 1 + 2) / 16)


def test_areas_do_not_depend_on_the_order_of_equal_rows() -> None:
    """Ties count as the mean over their orders."""
    found = {
        round(float(aurc(answers_of([0.9, 0.7, 0.7, 0.7], list(right)), np.ones((1, 4)))[0]), 12)
        for right in itertools.permutations([True, False, True])
        for right in [(True, *right)]
    }
    assert len(found) == 1


def test_a_threshold_answers_what_it_says() -> None:
    """Rows at or above the threshold are the coverage, as `Classifier` decides it."""
    confidence, correct = draw(3000, 0)
    found = choose_threshold(confidence, correct, target_error=0.05)
    assert found.threshold is not None
    answered = confidence >= found.threshold
    assert found.coverage == answered.mean()
    assert found.error == pytest.approx(1 - correct[answered].mean())
    assert found.error <= found.error_bound <= 0.05
    assert "covers" in found.sentence()


def test_the_promise_is_kept_on_new_rows() -> None:
    """At 95 % sureness, few thresholds chosen on 800 rows break their target elsewhere."""
    new, new_correct = draw(200_000, 10**6)
    broken = covered = 0.0
    for seed in range(200):
        found = choose_threshold(*draw(800, seed), target_error=0.05)
        if found.threshold is not None:
            answered = new >= found.threshold
            broken += 1 - new_correct[answered].mean() > 0.05
            covered += found.coverage
    assert broken / 200 <= 0.08  # 0.05, and two standard errors of 200 trials
    assert covered / 200 > 0.3  # and it is not kept by never answering


@pytest.mark.parametrize(("rows", "target"), [(40, 0.02), (1000, 0.0001)])
def test_a_target_that_cannot_be_reached_is_said_to_be(rows: int, target: float) -> None:
    """Too few rows, or too high a hope: no threshold, and the best that was to be had."""
    confidence, _ = draw(rows, 1)
    found = choose_threshold(confidence, np.ones(rows, dtype=bool), target_error=target)
    assert found.threshold is None
    assert found.error_bound > target
    assert "cannot be reached" in found.sentence()


def test_a_model_that_is_always_right_answers_everything() -> None:
    """With enough rows, no error means full coverage."""
    confidence, _ = draw(1000, 1)
    found = choose_threshold(confidence, np.ones(1000, dtype=bool), target_error=0.02)
    assert found.coverage == 1.0


def test_error_bound_is_clopper_pearson() -> None:
    """The rule of three: no error in 149 rows is 2 % at 95 %; all wrong is 1."""
    found = error_bound(np.array([0.0, 5.0]), np.array([149.0, 5.0]), 0.05)
    assert found[0] == pytest.approx(0.02, abs=2e-4)
    assert found[1] == 1.0


@pytest.mark.parametrize("target", [0.0, 1.0])
def test_bad_targets_are_refused(target: float) -> None:
    """A target outside 0 to 1 is a mistake, as are no rows."""
    with pytest.raises(ValueError, match="must be between 0 and 1"):
        choose_threshold(*draw(10, 0), target_error=target)
    with pytest.raises(ValueError, match="without rows"):
        choose_threshold(np.empty(0), np.empty(0, dtype=bool), target_error=0.1)
