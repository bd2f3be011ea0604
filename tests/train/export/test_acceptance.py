"""What a precision must reach to be in a bundle."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np
import pytest
import scipy.stats
from numpy.typing import NDArray

from sentimill.errors import InputError
from sentimill_train.data.tokenized import NO_LABEL, Rows
from sentimill_train.export.acceptance import (
    FEWEST_ROWS,
    MANY_LABELS,
    SURE_AGREEMENT,
    PrecisionCheck,
    check_row_count,
    compare_answers,
    is_invariant,
)
from sentimill_train.metrics.classification import Answers, Floats

LABELS = ("negative", "neutral", "positive")
DRAW = np.random.default_rng(0)
GOLD = DRAW.integers(0, 3, MANY_LABELS)
PROBS = np.eye(3)[np.where(DRAW.random(MANY_LABELS) < 0.9, GOLD, (GOLD + 1) % 3)] * 0.85 + 0.05


def answers(probs: Floats, labelled: int) -> Answers:
    """Return them with the gold labels of so many rows."""
    gold = GOLD[: len(probs)].copy()
    gold[labelled:] = NO_LABEL
    return Answers(LABELS, gold, probs)


def flipped(rows: int) -> Floats:
    """Return the probs with another label in so many rows that were right."""
    probs = PROBS.copy()
    right = np.flatnonzero(PROBS.argmax(1) == GOLD)[:rows]
    probs[right] = np.roll(probs[right], 1, axis=1)
    return probs


def check(
    found: Floats,
    *,
    invariant: bool = True,
    golden: bool = True,
    fitted_on: int = 0,
    labelled: int = MANY_LABELS,
) -> PrecisionCheck:
    """Return the outcome for a precision that gave the probs *found*."""
    agreement, sure_agreement, f1_drop, ece_change = compare_answers(
        answers(PROBS[: len(found)], labelled), answers(found, labelled)
    )
    return PrecisionCheck(
        precision="int8",
        engine="an engine",
        rows=len(found),
        agreement=agreement,
        sure_agreement=sure_agreement,
        macro_f1_drop=f1_drop,
        ece_change=ece_change,
        invariant=invariant,
        golden=golden,
        max_logit_difference=0.1,
        temperature=1.25,
        fitted_on=fitted_on,
    )


def test_the_same_answers_pass() -> None:
    """Nothing changed, and the sentence has the figures and their limits."""
    outcome = check(PROBS)

    assert outcome.passed
    assert outcome.macro_f1_drop is not None
    assert outcome.ece_change is not None
    changes = (outcome.macro_f1_drop.value, outcome.ece_change.value)
    assert (outcome.agreement, *changes) == (1.0, 0.0, 0.0)
    assert (
        "int8 passes its gate on 2,000 rows in an engine, with fp32's temperature 1.2500: 100.00%"
        in outcome.sentence()
    )


def test_a_temperature_of_its_own_is_named() -> None:
    """With the rows that it comes from, so that nobody takes them for those that judge it."""
    said = check(PROBS, fitted_on=300).sentence()

    assert "with its temperature 1.2500 fitted on 300 validation rows: 100.00%" in said


@pytest.mark.parametrize(("rows", "passed"), [(3, True), (11, False)])
def test_labels_that_move_are_counted(rows: int, passed: bool) -> None:
    """Eleven of 2,000 are more than half a per cent."""
    outcome = check(flipped(rows))

    assert outcome.passed is passed
    assert outcome.agreement == pytest.approx(1 - rows / MANY_LABELS)


def test_a_confidence_that_moves_fails_though_no_label_does() -> None:
    """Abstention and the score hang on it."""
    timid = PROBS * 0.9 + 0.1 / 3
    outcome = check(timid)

    assert outcome.agreement == 1.0
    assert outcome.ece_change is not None
    assert abs(outcome.ece_change.value) > 0.01
    assert not outcome.passed


def test_answers_that_depend_on_the_batch_fail() -> None:
    """However close the answers are."""
    outcome = check(PROBS, invariant=False)

    assert not outcome.passed
    assert "gets other bits" in outcome.sentence()


def test_golden_texts_that_do_not_come_out_fail() -> None:
    """Such a bundle would not load."""
    outcome = check(PROBS, golden=False)

    assert not outcome.passed
    assert "the golden texts get other probs" in outcome.sentence()


def test_too_few_rows_are_refused() -> None:
    """On 299 even full agreement would not show that 99 of 100 labels stay."""
    check_row_count(FEWEST_ROWS)
    assert check(PROBS[:FEWEST_ROWS]).passed

    with pytest.raises(InputError, match="needs 300 held-out rows but got 299") as caught:
        check_row_count(FEWEST_ROWS - 1)

    assert caught.value.reason == "TOO_FEW_ROWS"


def test_the_fewest_rows_are_those_that_show_agreement_at_all() -> None:
    """One fewer would fail whatever the graph answers."""
    full = check(PROBS[:FEWEST_ROWS])

    assert SURE_AGREEMENT <= full.sure_agreement < SURE_AGREEMENT + 1e-4
    assert 0.05 ** (1 / (FEWEST_ROWS - 2)) < SURE_AGREEMENT


@pytest.mark.parametrize(
    ("rows", "other", "passed"),
    [(300, 0, True), (300, 1, False), (500, 1, True), (500, 2, False), (2000, 10, True)],
)
def test_with_few_rows_the_bound_decides(rows: int, other: int, passed: bool) -> None:
    """One of 300 that differs may be one in a hundred of all; ten of 2,000 are not."""
    outcome = check(flipped(other)[:rows], labelled=0)

    assert outcome.passed is passed
    assert outcome.sure_agreement == pytest.approx(
        scipy.stats.binomtest(rows - other, rows).proportion_ci(0.9, "exact").low, abs=1e-9
    )


def test_agreement_needs_no_labels() -> None:
    """F1 and calibration then have no figure, and the sentence says so."""
    outcome = check(PROBS, labelled=0)

    assert outcome.passed
    assert (outcome.macro_f1_drop, outcome.ece_change) == (None, None)
    assert "no row has a label to compare F1 and calibration by" in outcome.sentence()


def test_with_few_labels_a_change_must_be_sure_to_refuse() -> None:
    """Of 400 labelled rows the chance of the sample is larger than the limits."""
    slight, timid = PROBS.copy(), PROBS * 0.7 + 0.1
    slight[:3] = np.roll(slight[:3], 1, axis=1)

    found = check(slight, labelled=400)
    sure = check(timid, labelled=400)

    assert found.macro_f1_drop is not None
    assert found.macro_f1_drop.rows == 400
    assert found.macro_f1_drop.value > 0.002 > found.macro_f1_drop.low
    assert found.passed
    assert "on 400 labelled rows, by the intervals, macro-F1 drops by" in found.sentence()
    assert sure.agreement == 1
    assert not sure.passed


def test_a_threshold_of_its_own_is_named() -> None:
    """It was chosen on the rows that the temperature was fitted on."""
    outcome = msgspec.structs.replace(check(PROBS, fitted_on=300), threshold=0.75)

    assert "300 validation rows and the threshold 0.7500 chosen on them" in outcome.sentence()


def invariant(odd: Callable[[int, int], bool]) -> bool:
    """Return what is said of a graph that gives other bits in batches of *odd* rows and tokens."""
    lengths = [*np.random.default_rng(1).integers(3, 64, 99).tolist(), 64]
    rows = Rows(
        ids=np.arange(sum(lengths), dtype=np.int32) % 50,
        starts=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        gold=np.zeros(100, np.int64),
        soft=np.zeros((100, 3), np.float32),
        weight=np.ones(100, np.float32),
        allowed=np.ones((100, 3), np.bool_),
    )

    def run(ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
        texts, tokens = ids.shape
        logits = np.repeat((ids * mask).sum(axis=1, keepdims=True), 3, axis=1).astype(np.float32)
        return logits + np.float32(odd(texts, tokens))

    return is_invariant(run, rows, 0)


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        (lambda texts, tokens: False, True),
        (lambda texts, tokens: texts > 1 and tokens == 64, False),
        (lambda texts, tokens: texts == 32, False),
        # What no batch of 32 of the longest rows would show.
        (lambda texts, tokens: texts > 1 and tokens < 64, False),
        (lambda texts, tokens: 1 < texts < 32, False),
        # What no text as it is may show: one token is left over for a block of its own.
        *[(lambda texts, tokens, n=n: texts == 1 and tokens == n, False) for n in (34, 53)],
    ],
)
def test_a_text_is_tried_in_batches_of_several_sizes(
    odd: Callable[[int, int], bool], said: bool
) -> None:
    """By rows and by tokens: a kernel may be chosen by either."""
    assert invariant(odd) is said
