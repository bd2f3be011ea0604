"""The temperature undoes what made logits too sure or too timid."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from sentimill.classifier import probabilities
from sentimill_train.calibration.temperature import calibrate, find_temperature
from sentimill_train.metrics.classification import Answers, ece, nll

LABELS = ("negative", "neutral", "positive")


def calibrated(rows: int, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return logits whose softmax is right as often as it says, and gold labels drawn from it."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=2, size=(rows, 3)).astype(np.float32)
    probs = probabilities(logits, 1.0)
    gold = np.array([rng.choice(3, p=p / p.sum()) for p in probs.astype(np.float64)])
    return logits, gold


@pytest.mark.parametrize("factor", [0.3, 1.0, 4.0])
def test_a_factor_on_the_logits_is_found_again(factor: float) -> None:
    """Calibrated logits times 4 need temperature 4."""
    logits, gold = calibrated(4000)

    assert find_temperature(logits * np.float32(factor), gold) == pytest.approx(factor, rel=0.1)


def test_calibration_lowers_nll_and_calibration_error_and_moves_no_label() -> None:
    """On rows that it has not seen."""
    logits, gold = calibrated(2000)
    sure = logits * np.float32(3)
    other, other_gold = calibrated(2000, seed=1)
    other = other * np.float32(3)

    temperature = find_temperature(sure, gold)
    before, after = (
        Answers(LABELS, other_gold, probabilities(other, t).astype(np.float64))
        for t in (1.0, temperature)
    )

    one = np.ones((1, len(other_gold)))
    assert nll(after, one) < nll(before, one)
    assert ece(after, one) < 0.03 < ece(before, one)
    assert np.array_equal(after.predicted, before.predicted)


def test_a_small_split_without_an_error_does_not_make_it_certain() -> None:
    """Twenty right answers do not say that the next is right too."""
    gold = np.arange(20) % 3
    logits = (5 * np.eye(3)[gold]).astype(np.float32)

    temperature = find_temperature(logits, gold)

    assert probabilities(logits, temperature).max() == pytest.approx(21 / 23, abs=0.01)


def test_a_target_error_gives_a_threshold_and_none_gives_none() -> None:
    """On other rows the answers above it keep the target, and those below would have broken it."""
    logits, gold = calibrated(6000)
    other, other_gold = calibrated(6000, seed=1)

    found = calibrate(logits, gold, 0.1)

    probs = probabilities(other, found.temperature)
    wrong = probs.argmax(1) != other_gold
    answered = probs.max(1) >= (found.threshold or 0)
    assert calibrate(logits, gold, None).threshold is None
    assert 0.3 < answered.mean() < 0.95
    assert wrong[answered].mean() <= 0.1 < wrong.mean()
