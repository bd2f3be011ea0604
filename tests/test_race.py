"""Ratios with intervals, shares with intervals, and the cascade's curve."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from cascade import THRESHOLDS, curve
from prompts import LABELS
from quality import correct, judge, wilson
from race import race, ratio_of
from record import Speed
from reviews import Review


def speed(name: str, seconds: tuple[float, ...]) -> Speed:
    """Return a contestant that did 100 reviews a round."""
    return Speed(
        name=name,
        kind="student",
        path="engine",
        precision="fp32",
        reviews=100,
        tokens=1000,
        seconds=seconds,
    )


def review(label: str, teacher: str) -> Review:
    """Return a review with a label and a certain teacher."""
    shares = tuple(float(teacher == one) for one in LABELS)
    return Review(id="1", text="x", label=label, dataset="d", teacher=shares)


def test_contestants_take_turns_after_a_warm_up() -> None:
    """Each runs once unmeasured, then all run once a round in the same order."""
    order: list[str] = []
    seconds = race({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, rounds=3)
    assert order == ["a", "b"] * 4
    assert [len(times) for times in seconds.values()] == [3, 3]


def test_a_ratio_is_taken_round_against_round() -> None:
    """A machine that halves its speed for both in one round does not move the ratio."""
    student = speed("student", (1.0, 2.0, 1.0, 1.0))
    large = speed("large", (10.0, 20.0, 10.0, 10.0))
    found = ratio_of(student, large)
    assert (found.value, found.low, found.high) == pytest.approx((10, 10, 10))
    assert found.repeats
    assert ratio_of(student, large, factor=16).value == pytest.approx(160)


def test_a_ratio_that_drifts_says_that_it_does_not_repeat() -> None:
    """The second half of the rounds is a fifth slower: no repetition within 10 %."""
    found = ratio_of(speed("s", (1.0, 1.0, 1.0, 1.0)), speed("l", (10.0, 10.0, 12.0, 12.0)))
    assert not found.repeats
    assert found.low < found.value < found.high


def test_wilson_intervals_are_those_of_the_paper() -> None:
    """81 of 263, the example of Newcombe (1998); and the ends stay within 0 and 1."""
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=2e-4)
    assert wilson(0, 10)[0] == 0
    assert wilson(10, 10)[1] == pytest.approx(1)


def test_two_classes_leave_neutral_out_of_rows_and_columns() -> None:
    """A row that leans to neutral still says which of the two poles is likelier."""
    probs = np.array([[0.3, 0.6, 0.1], [0.1, 0.6, 0.3], [0.1, 0.8, 0.1]])
    reviews = [review("negative", "negative"), review("negative", "negative")]
    reviews.append(review("neutral", "neutral"))
    assert correct(probs, reviews, 2) == [True, False]
    assert correct(probs, reviews, 3) == [False, False, True]
    assert [(row.classes, row.rows) for row in judge("m", probs, reviews)] == [(2, 2), (3, 3)]


def test_the_curve_runs_from_the_student_alone_to_the_large_model_alone() -> None:
    """At 0 nothing is handed over; above 1 everything is, at both prices together."""
    reviews = [review("positive", "positive"), review("negative", "negative")] * 20
    probs = np.array([[0.05, 0.05, 0.9], [0.2, 0.25, 0.55]] * 20)
    points = curve(probs, reviews, student_usd=1e-6, large_usd=1e-3)
    first, last = points[0], points[-1]
    assert (first.handed_over, first.accuracy) == (0, 0.5)
    assert (last.handed_over, last.accuracy) == (1, 1)
    assert last.usd_million == pytest.approx(1 + 1000)
    best = next(point for point in points if point.best)
    assert best.accuracy == 1
    assert best.handed_over == 0.5
    assert len(points) == len(THRESHOLDS)


def test_records_read_back_as_they_were_written() -> None:
    """JSON keeps every raw sample."""
    one = speed("a", (0.1, 0.2, 0.30000001))
    assert msgspec.json.decode(msgspec.json.encode(one), type=Speed) == one
