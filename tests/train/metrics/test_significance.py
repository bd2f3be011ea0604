"""Two models on the same rows."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import f1_score

from sentimill_train.metrics.classification import Answers, macro_f1, macro_f1_of
from sentimill_train.metrics.intervals import resample
from sentimill_train.metrics.significance import compare, mcnemar


@pytest.mark.parametrize(("first", "second"), [(0, 0), (3, 3), (1, 8), (30, 12), (400, 350)])
def test_exact_p_is_the_binomial_test(first: int, second: int) -> None:
    """McNemar's exact test is a two-sided sign test on the rows where one alone is right."""
    exact, mid, _ = mcnemar(first, second)
    expected = binomtest(first, first + second).pvalue if first + second else 1.0
    assert exact == pytest.approx(expected)
    assert mid <= exact


def test_mid_p_by_hand() -> None:
    """1 against 8: 2 * P(X <= 1) - P(X = 1) of Binomial(9, 1/2)."""
    assert mcnemar(1, 8)[1] == pytest.approx((2 * 10 - 9) / 512)


def test_one_sided_p_is_small_only_when_the_second_is_worse() -> None:
    """Losing many rows and winning few is worse; the other way round is not."""
    assert mcnemar(40, 10)[2] < 0.001
    assert mcnemar(10, 40)[2] > 0.999
    assert mcnemar(25, 25)[2] == pytest.approx(0.5)
    assert mcnemar(0, 0)[2] == 1.0


def test_a_clear_improvement_is_called_better() -> None:
    """The differences, their signs and the verdict agree."""
    random = np.random.default_rng(0)
    gold = random.integers(0, 3, 800)
    weak = np.where(random.random(800) < 0.6, gold, random.integers(0, 3, 800))
    strong = np.where(random.random(800) < 0.8, gold, random.integers(0, 3, 800))
    found = compare(gold, weak, strong, labels=3)
    assert found.verdict == "better"
    assert found.accuracy.value == (found.only_second - found.only_first) / 800
    assert found.accuracy.low > 0
    assert found.macro_f1.low > 0
    assert found.p_macro_f1 < 0.01
    assert found.p_worse > 0.99
    back = compare(gold, strong, weak, labels=3)
    assert back.verdict == "worse"
    assert back.p_worse < 0.01
    assert back.p_worse_macro_f1 < 0.01


def test_many_labels_need_little_memory() -> None:
    """By confusion matrices and all kinds of a row, 150 labels would take gigabytes."""
    random = np.random.default_rng(0)
    gold = random.integers(0, 150, 600)
    first, second = (
        np.where(random.random(600) < right, gold, random.integers(0, 150, 600))
        for right in (0.5, 0.7)
    )
    answers = Answers(tuple(map(str, range(150))), gold, np.eye(150)[second])

    tracemalloc.start()
    found = compare(gold, first, second, labels=150)
    drawn = resample(600, lambda weights: macro_f1(answers, weights), draws=100, seed=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 300e6
    assert found.macro_f1.low > 0
    before, after = (
        f1_score(gold, said, average="macro", labels=np.unique(gold)) for said in (first, second)
    )
    assert found.macro_f1.value == pytest.approx(after - before)
    assert drawn.mean() == pytest.approx(macro_f1_of(second, gold), abs=0.1)


def test_a_model_against_itself_shows_nothing() -> None:
    """No difference, no significance, on either side; but 120 rows leave 3 % open."""
    gold = np.tile([0, 1, 2], 40)
    guess = np.roll(gold, 1)
    guess[:60] = gold[:60]
    found = compare(gold, guess, guess, labels=3)
    assert found.verdict == "no clear difference"
    assert (found.accuracy.value, found.macro_f1.value, found.macro_f1.high) == (0.0, 0.0, 0.0)
    assert (found.accuracy.low, found.accuracy.high) == pytest.approx((-0.0303, 0.0303), abs=1e-4)
    assert found.p_worse_macro_f1 == pytest.approx(0.5, abs=0.01)
