"""What a precision must reach to be in a bundle."""

from __future__ import annotations

import numpy as np
import pytest

from sentimill.errors import InputError
from sentimill_train.measures import Answers, Floats
from sentimill_train.precision_gate import FEWEST_ROWS, check_precision

LABELS = ("negative", "neutral", "positive")
DRAW = np.random.default_rng(0)
GOLD = DRAW.integers(0, 3, FEWEST_ROWS)
PROBS = np.eye(3)[np.where(DRAW.random(FEWEST_ROWS) < 0.9, GOLD, (GOLD + 1) % 3)] * 0.85 + 0.05


def answers(probs: Floats) -> Answers:
    """Return them with the gold labels."""
    return Answers(LABELS, GOLD[: len(probs)], probs)


def flipped(rows: int) -> Floats:
    """Return the probs with another label in so many rows that were right."""
    probs = PROBS.copy()
    right = np.flatnonzero(PROBS.argmax(1) == GOLD)[:rows]
    probs[right] = np.roll(probs[right], 1, axis=1)
    return probs


def test_the_same_answers_pass() -> None:
    """Nothing changed, and the sentence has the figures and their limits."""
    check = check_precision("int8", answers(PROBS), answers(PROBS), invariant=True)

    assert check.passed
    assert (check.agreement, check.macro_f1_drop, check.ece_change) == (1.0, 0.0, 0.0)
    assert "int8 passes its gate on 2,000 rows: 100.00%" in check.sentence()


@pytest.mark.parametrize(("rows", "passed"), [(3, True), (11, False)])
def test_labels_that_move_are_counted(rows: int, passed: bool) -> None:
    """Eleven of 2,000 are more than half a per cent."""
    check = check_precision("int8", answers(PROBS), answers(flipped(rows)), invariant=True)

    assert check.passed is passed
    assert check.agreement == pytest.approx(1 - rows / FEWEST_ROWS)


def test_a_confidence_that_moves_fails_though_no_label_does() -> None:
    """Abstention and the score hang on it."""
    timid = PROBS * 0.9 + 0.1 / 3
    check = check_precision("int8", answers(PROBS), answers(timid), invariant=True)

    assert check.agreement == 1.0
    assert abs(check.ece_change) > 0.01
    assert not check.passed


def test_company_that_shows_fails() -> None:
    """However near the answers are."""
    check = check_precision("int8", answers(PROBS), answers(PROBS), invariant=False)

    assert not check.passed
    assert "gets other bits" in check.sentence()


def test_few_rows_are_refused() -> None:
    """On 1,999 half a per cent is not even ten rows."""
    few = answers(PROBS[: FEWEST_ROWS - 1])

    with pytest.raises(InputError, match="needs 2,000 labelled held-out rows") as caught:
        check_precision("int8", few, few, invariant=True)

    assert caught.value.reason == "TOO_FEW_ROWS"
