"""Figures agree with scikit-learn and with sums done by hand."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, f1_score, log_loss, precision_recall_fscore_support

from sentimill_train.evaluate import (
    confusion_matrix,
    evaluate,
    expected_calibration_error,
    macro_f1,
)

LABELS = ("negative", "neutral", "positive")


def some(rows: int = 500) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return probs that are right more often than not, and gold labels."""
    rng = np.random.default_rng(0)
    gold = rng.integers(0, 3, size=rows)
    logits = rng.normal(size=(rows, 3)) + 1.5 * np.eye(3)[gold]
    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return probs.astype(np.float32), gold


def test_figures_agree_with_scikit_learn() -> None:
    """Accuracy, macro-F1, precision, recall, F1, support and NLL."""
    probs, gold = some()
    predicted = probs.argmax(1)

    found = evaluate(probs, gold, LABELS)

    wide = probs.astype(np.float64)
    wide /= wide.sum(1, keepdims=True)
    reference = precision_recall_fscore_support(gold, predicted)
    ours = [(f.precision, f.recall, f.f1, f.support) for f in found.labels.values()]
    assert found.accuracy == pytest.approx(accuracy_score(gold, predicted))
    assert found.macro_f1 == pytest.approx(f1_score(gold, predicted, average="macro"))
    assert found.nll == pytest.approx(log_loss(gold, wide), rel=1e-5)
    assert np.array(ours) == pytest.approx(np.array(reference).T)
    assert found.rows == 500


def test_the_confusion_has_gold_down_and_predicted_across() -> None:
    """One negative taken for positive is top right."""
    predicted, gold = np.array([2, 1, 1]), np.array([0, 1, 1])

    assert confusion_matrix(predicted, gold, 3).tolist() == [[0, 0, 1], [0, 2, 0], [0, 0, 0]]


def test_macro_f1_is_over_the_labels_that_occur() -> None:
    """Two-class data under three labels is not marked down for a label that it lacks."""
    gold = np.array([0, 0, 2, 2])

    assert macro_f1(np.array([0, 0, 2, 2]), gold) == 1.0
    # Negative: precision 1, recall 1/2; positive: both 1; neutral does not occur.
    assert macro_f1(np.array([0, 1, 2, 2]), gold) == pytest.approx((2 / 3 + 1) / 2)


def test_two_class_accuracy_leaves_out_neutral_on_both_sides() -> None:
    """Gold neutral rows do not count, and neutral is no answer."""
    probs = np.array(
        [[0.3, 0.5, 0.2], [0.1, 0.8, 0.1], [0.4, 0.3, 0.3], [0.1, 0.1, 0.8]], dtype=np.float32
    )
    gold = np.array([0, 1, 2, 2])

    found = evaluate(probs, gold, LABELS)

    assert found.two_class_accuracy == pytest.approx(2 / 3)
    assert found.two_class_rows == 3


def test_other_labels_have_no_two_class_accuracy() -> None:
    """There is nothing to take for the two ends."""
    found = evaluate(np.array([[0.4, 0.6]], dtype=np.float32), np.array([1]), ("late", "rude"))

    assert (found.two_class_accuracy, found.two_class_rows) == (None, 0)


def test_calibration_error_of_a_case_done_by_hand() -> None:
    """Two bins of two: |0.55 - 0.5| and |0.85 - 1|, each half of the rows."""
    confidence = np.array([0.9, 0.5, 0.8, 0.6], dtype=np.float32)
    correct = np.array([True, False, True, True])

    found = expected_calibration_error(confidence, correct, bins=2)

    assert found == pytest.approx((0.05 + 0.15) / 2, abs=1e-7)


def test_bins_have_equal_mass_also_where_rows_do_not_divide() -> None:
    """Five rows in two bins are three and two."""
    confidence = np.array([0.5, 0.5, 0.5, 1.0, 1.0], dtype=np.float32)
    correct = np.array([True, True, True, True, False])

    found = expected_calibration_error(confidence, correct, bins=2)

    assert found == pytest.approx((3 * 0.5 + 2 * 0.5) / 5)


def test_a_perfect_prediction_has_no_error() -> None:
    """Not even a negative zero, which a reader would stumble over."""
    found = evaluate(np.eye(3, dtype=np.float32), np.arange(3), LABELS)

    assert (found.accuracy, found.macro_f1, found.ece, f"{found.nll:.4f}") == (1, 1, 0, "0.0000")


def test_a_certain_mistake_has_a_finite_cost() -> None:
    """A probability of zero does not make the whole split infinite."""
    found = evaluate(np.array([[1.0, 0.0]], dtype=np.float32), np.array([1]), ("late", "rude"))

    assert found.nll == pytest.approx(-np.log(1e-12), rel=1e-3)
