"""The figures of a classifier: against scikit-learn, by hand, and under weights."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score, f1_score, log_loss

from sentimill_train.calibration.abstention import augrc, aurc
from sentimill_train.metrics import classification as measures
from sentimill_train.metrics.classification import Answers, Floats

LABELS = ("negative", "neutral", "positive")
Measure = Callable[[Answers, Floats], Floats]


def made_up(rows: int = 400, *, seed: int = 0) -> Answers:
    """Return answers that are right more often than not, with stars that fit the gold label."""
    random = np.random.default_rng(seed)
    probs = random.dirichlet([0.6, 0.6, 0.6], rows)
    drawn = (probs.cumsum(axis=1) > random.random((rows, 1))).argmax(axis=1)
    stars = np.clip(drawn * 2 + 1 + random.integers(-1, 2, rows), 1, 5)
    return Answers(LABELS, drawn.astype(np.int64), probs, stars.astype(np.int64))


def value(measure: Measure, answers: Answers) -> float:
    """Return the figure on the rows as they are."""
    return float(measure(answers, np.ones((1, len(answers.gold))))[0])


def test_macro_f1_is_that_of_scikit_learn() -> None:
    """With every label in gold, macro-F1 is scikit-learn's."""
    answers = made_up()
    expected = f1_score(answers.gold, answers.predicted, average="macro")
    assert value(measures.macro_f1, answers) == pytest.approx(expected)


def test_macro_f1_leaves_out_a_label_that_gold_never_has() -> None:
    """A set without neutral rows is scored on two labels, and calling a row neutral still costs."""
    probs = np.array([[0.9, 0.1, 0.0], [0.1, 0.8, 0.1], [0.0, 0.1, 0.9], [0.0, 0.1, 0.9]])
    answers = Answers(LABELS, np.array([0, 0, 2, 2]), probs)
    assert value(measures.macro_f1, answers) == pytest.approx((2 / 3 + 1) / 2)


def test_plain_predictions_have_the_same_macro_f1() -> None:
    """The loop asks for it without probs."""
    answers = made_up()
    found = measures.macro_f1_of(answers.predicted, answers.gold)
    assert found == pytest.approx(value(measures.macro_f1, answers))
    gold = np.array([0, 0, 2, 2])
    assert measures.macro_f1_of(np.array([0, 1, 2, 2]), gold) == pytest.approx((2 / 3 + 1) / 2)
    assert measures.macro_f1_of(np.array([0, 0, 1, 1]), np.array([0, 0, 1, 1])) == 1.0


def test_nll_is_that_of_scikit_learn_and_never_infinite() -> None:
    """A certain mistake costs what a prob of 1e-12 does, and a certain hit nothing."""
    answers = made_up()
    assert value(measures.nll, answers) == pytest.approx(log_loss(answers.gold, answers.probs))
    sure = Answers(("late", "rude"), np.array([1, 0]), np.array([[1.0, 0.0], [1.0, 0.0]]))
    assert value(measures.nll, sure) == pytest.approx(-np.log(1e-12) / 2)


def test_quadratic_kappa_is_that_of_scikit_learn() -> None:
    """Kappa on rounded expected stars is scikit-learn's with quadratic weights."""
    answers = made_up()
    assert answers.stars is not None
    guessed = np.floor(measures.expected_stars(LABELS, answers.probs) + 0.5).astype(int)
    expected = cohen_kappa_score(answers.stars, guessed, weights="quadratic", labels=range(1, 6))
    assert value(measures.quadratic_kappa, answers) == pytest.approx(expected)


def test_expected_stars_span_the_scale() -> None:
    """The three pure answers are 1, 3 and 5 stars."""
    assert measures.expected_stars(LABELS, np.eye(3)).tolist() == [1.0, 3.0, 5.0]


def test_two_class_accuracy_leaves_neutral_out_of_rows_and_choice() -> None:
    """A neutral row does not count, and a polar row called neutral is judged by the other two."""
    probs = np.array([[0.3, 0.5, 0.2], [0.1, 0.6, 0.3], [0.0, 1.0, 0.0], [0.4, 0.2, 0.4]])
    answers = Answers(LABELS, np.array([0, 2, 1, 0]), probs)
    assert value(measures.two_class_accuracy, answers) == pytest.approx(1.0)


def test_brier_is_zero_for_certain_and_right_two_for_certain_and_wrong() -> None:
    """The multi-class Brier score spans 0 to 2."""
    right = Answers(LABELS, np.array([0, 1, 2]), np.eye(3))
    wrong = Answers(LABELS, np.array([1, 2, 0]), np.eye(3))
    assert value(measures.brier, right) == 0.0
    assert value(measures.brier, wrong) == 2.0


def test_ece_of_a_calibrated_model_is_near_zero_and_of_a_bold_one_is_its_excess() -> None:
    """Confidence 0.95 at an accuracy of 0.75 is an ECE of 0.2; drawn from its probs, about 0."""
    bold = Answers(LABELS, np.tile([0, 0, 0, 1], 60), np.tile([0.95, 0.05, 0.0], (240, 1)))
    assert value(measures.ece, bold) == pytest.approx(0.2, abs=0.02)
    assert value(measures.ece, made_up(20_000)) < 0.02


def test_reliability_bins_have_equal_mass_and_hold_every_row() -> None:
    """Fifteen bins differ by a row at most, and rise in confidence."""
    bins = measures.reliability(made_up(1000))
    assert sum(b.rows for b in bins) == 1000
    assert max(b.rows for b in bins) - min(b.rows for b in bins) <= 1
    assert [b.confidence for b in bins] == sorted(b.confidence for b in bins)


@pytest.mark.parametrize(
    "measure",
    [
        measures.accuracy,
        measures.macro_f1,
        measures.two_class_accuracy,
        measures.neutral_share,
        measures.brier,
        measures.star_mae,
        measures.quadratic_kappa,
        measures.label_kappa,
        measures.label_mae,
        aurc,
        augrc,
    ],
)
def test_a_weight_of_two_is_the_row_twice(measure: Measure) -> None:
    """A figure under counts is the figure of the rows written out as often."""
    answers = made_up(80)
    counts = np.random.default_rng(1).integers(0, 4, 80)
    assert answers.stars is not None
    twice = Answers(
        LABELS,
        np.repeat(answers.gold, counts),
        np.repeat(answers.probs, counts, axis=0),
        np.repeat(answers.stars, counts),
    )
    weighted = float(measure(answers, counts[None].astype(float))[0])
    # AURC alone is not additive: the middle of two equal rows stands for both.
    rel = 0.01 if measure is aurc else 1e-9
    assert weighted == pytest.approx(value(measure, twice), rel=rel)


@given(st.integers(1, 60), st.integers(0, 1000))
def test_measures_stay_in_their_range(rows: int, seed: int) -> None:
    """Whatever the rows, shares are between 0 and 1, and nothing is undefined."""
    answers = made_up(rows, seed=seed)
    for measure in (measures.accuracy, measures.macro_f1, measures.ece, aurc):
        assert 0.0 <= value(measure, answers) <= 1.0 + 1e-12
    assert 0.0 <= value(augrc, answers) <= 1.0
    assert value(measures.quadratic_kappa, answers) <= 1.0


def test_stars_are_needed_for_figures_of_stars() -> None:
    """Asking for stars where there are none is a programming error."""
    answers = made_up(10)
    with pytest.raises(ValueError, match="have no stars"):
        value(measures.star_mae, Answers(LABELS, answers.gold, answers.probs))


def test_kappa_of_ordered_labels_is_that_of_scikit_learn() -> None:
    """For any labels with an order, such as five stars as five classes."""
    random = np.random.default_rng(3)
    labels = tuple(f"{stars} stars" for stars in range(1, 6))
    gold = random.integers(0, 5, 300)
    answers = Answers(labels, gold, random.dirichlet([0.5] * 5, 300))

    expected = cohen_kappa_score(gold, answers.predicted, weights="quadratic")
    assert value(measures.label_kappa, answers) == pytest.approx(expected)


def test_the_mean_error_of_ordered_labels_is_in_their_numbers() -> None:
    """Half 1 and half 5 expects 3, which is 2 from gold 5 and exact for gold 3."""
    answers = Answers(("1", "3", "5"), np.array([2, 1]), np.array([[0.5, 0, 0.5], [0.5, 0, 0.5]]))

    assert value(measures.label_mae, answers) == 1.0


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (("1 star", "2 stars", "3 stars"), [1, 2, 3]),
        (("-1", "0", "0.5"), [-1, 0, 0.5]),
        (("star-1", "star-2", "star-3"), [1, 2, 3]),
        (LABELS, [0, 1, 2]),
        (("billing", "delivery", "product"), None),
        (("3", "2", "1"), None),
        (("no", "yes"), None),
    ],
)
def test_labels_have_an_order_where_their_names_say_so(
    labels: tuple[str, ...], expected: list[float] | None
) -> None:
    """Topics have none, and two labels need none."""
    found = measures.label_values(labels)

    assert (None if found is None else found.tolist()) == expected
