"""Kinds of reviews, and how a model does on each."""

from __future__ import annotations

import numpy as np
import pytest

from sentimill_train.data.schema import Example
from sentimill_train.evaluation.slices import kinds_of, slice_by_kind
from sentimill_train.metrics.classification import Answers

LABELS = ("negative", "neutral", "positive")


def review(text: str, *, stars: int | None = None, domain: str | None = None) -> Example:
    """Return a review with that text."""
    return Example(id="1", text=text, label="neutral", stars=stars, domain=domain, source="made")


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("I can't complain", "negation", "yes"),
        ("I can\u2019t complain", "negation", "yes"),
        ("it doesnt fit", "negation", "yes"),
        ("Nothing works", "negation", "yes"),
        ("A knot in the notebook", "negation", "no"),
        ("WORST PHONE EVER", "capitals", "all"),
        ("It is VERY slow", "capitals", "some words"),
        ("My USB TV", "capitals", "none"),
        ("12 34", "capitals", "none"),
        ("love it 😀", "emoji", "yes"),
        ("love it ❤", "emoji", "yes"),
        ("love it :-)", "emoji", "yes"),
        ("ratio 3:1", "emoji", "no"),
        ("see http://a.b", "emoji", "no"),
        ("crème brûlée", "non-ASCII", "yes"),
        ("plain", "non-ASCII", "no"),
        ("Does it fit?", "question", "yes"),
        ("word " * 10, "length", "1-10 words"),
        ("word " * 11, "length", "11-50 words"),
        ("word " * 251, "length", "over 250 words"),
    ],
)
def test_kinds(text: str, kind: str, value: str) -> None:
    """Each kind is told by its own sign, and not by what looks like it."""
    assert kinds_of(review(text))[kind] == value


def test_stars_and_domain_are_kinds_where_they_are_known() -> None:
    """A review without them belongs to no such slice."""
    kinds = kinds_of(review("fine", stars=4, domain="hotels"))
    assert (kinds["stars"], kinds["domain"]) == ("4", "hotels")
    assert not {"stars", "domain"} & set(kinds_of(review("fine")))


def test_a_weak_slice_is_found_and_small_ones_are_left_out() -> None:
    """Wrong on every review with a question, right elsewhere; 5 reviews in capitals say nothing."""
    texts = ["Is it any good?"] * 40 + ["It is a lamp."] * 160 + ["IT IS A LAMP"] * 5
    gold = np.ones(len(texts), dtype=np.int64)
    probs = np.tile([0.1, 0.8, 0.1], (len(texts), 1))
    probs[:40] = [0.8, 0.1, 0.1]
    found = slice_by_kind([review(text) for text in texts], Answers(LABELS, gold, probs))
    question = {s.value: s for s in found if s.kind == "question"}
    assert question["yes"].weak
    assert not question["no"].weak
    assert question["yes"].accuracy.value == 0.0
    assert question["yes"].macro_f1 is None
    assert ("capitals", "all") not in {(s.kind, s.value) for s in found}


def test_a_slice_with_hardly_any_other_rows_is_not_weak() -> None:
    """Two right answers elsewhere do not show that 75 % is little."""
    texts = ["It is a lamp."] * 60 + ["Is it any good?"] * 2
    probs = np.tile([0.1, 0.8, 0.1], (len(texts), 1))
    probs[:15] = [0.8, 0.1, 0.1]
    answers = Answers(LABELS, np.ones(len(texts), dtype=np.int64), probs)
    (question,) = [
        s for s in slice_by_kind([review(t) for t in texts], answers) if s.kind == "question"
    ]

    assert (question.value, question.accuracy.value) == ("no", 0.75)
    assert not question.weak


def test_lengths_come_in_order() -> None:
    """From short to long, with what is over the last bound at the end."""
    texts = [text for n in (300, 200, 5, 30, 100) for text in ["word " * n] * 20]
    answers = Answers(LABELS, np.ones(100, dtype=np.int64), np.tile([0.1, 0.8, 0.1], (100, 1)))
    found = slice_by_kind([review(text) for text in texts], answers)
    assert [s.value.split(" words")[0] for s in found if s.kind == "length"] == [
        "1-10",
        "11-50",
        "51-120",
        "121-250",
        "over 250",
    ]
