"""Soft labels: votes, temperature, pools and disagreement."""

from __future__ import annotations

import random

import pytest

from sentimill_train.labelling.soft_labels import (
    LEAST_GOLD,
    agreement,
    combine,
    disagreement,
    fit_temperature,
    of_votes,
    temper,
)

SURE = (1.0, 0.0, 0.0)


def test_votes_leave_a_share_to_every_label() -> None:
    """Three of three votes are not certainty."""
    assert pytest.approx(of_votes([SURE] * 3)) == (10 / 12, 1 / 12, 1 / 12)


def test_temperature_finds_the_truth_of_an_overconfident_teacher() -> None:
    """Labels drawn from flatter shares than stated: the fit recovers how much flatter."""
    rng = random.Random(0)
    rows = []
    for _ in range(4000):
        shares = temper(tuple(rng.random() + 0.05 for _ in range(3)), 0.2)
        true = temper(shares, 3.0)
        rows.append((shares, rng.choices(range(3), true)[0]))

    assert pytest.approx(fit_temperature(rows), rel=0.12) == 3.0


def test_few_gold_rows_fit_nothing() -> None:
    """Below the least number the teacher is taken at its word."""
    assert fit_temperature([(SURE, 0)] * (LEAST_GOLD - 1)) == 1.0


def test_temper_keeps_order_and_sum() -> None:
    """The first choice never changes, so agreement does not depend on the temperature."""
    flat = temper((0.7, 0.2, 0.1), 2.0)

    assert pytest.approx(sum(flat)) == 1.0
    assert flat[0] > flat[1] > flat[2]
    assert flat[0] < 0.7


def test_agreement_counts_first_choices() -> None:
    """None without gold, for nothing was measured."""
    assert agreement([(SURE, 0), (SURE, 1)]) == 0.5
    assert agreement([]) is None


def test_pool_is_the_weighted_mean() -> None:
    """The teacher that agrees more with gold counts more."""
    assert pytest.approx(combine([SURE, (0.0, 1.0, 0.0)], [3.0, 1.0])) == (0.75, 0.25, 0.0)


@pytest.mark.parametrize(
    ("teachers", "expected"),
    [
        ([SURE], None),
        ([SURE, SURE], 0.0),
        ([SURE, (0.0, 1.0, 0.0)], 1.0),
        ([SURE, (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)], 1.0),
    ],
)
def test_disagreement_is_none_to_one(
    teachers: list[tuple[float, ...]], expected: float | None
) -> None:
    """0 for the same shares, 1 when each is sure of something else, None for a single teacher."""
    assert expected == pytest.approx(disagreement(teachers))
