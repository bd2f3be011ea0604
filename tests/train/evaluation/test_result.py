"""Every figure of a set, on the rows that it is of, with an interval that few rows cannot close."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from sentimill.types import Prediction, Probs
from sentimill_train.calibration.abstention import choose_threshold
from sentimill_train.data.schema import Example
from sentimill_train.evaluation.labelled_set import Answered, Sample, gold_of
from sentimill_train.evaluation.result import (
    Contender,
    Judged,
    Judgement,
    SetResult,
    judge_rival,
    judge_set,
)
from sentimill_train.metrics.intervals import Figure, share
from sentimill_train.packaging.card_findings import findings

LABELS = ("negative", "neutral", "positive")


def answered(gold: Sequence[str], said: Sequence[str], abstained: Sequence[int] = ()) -> Answered:
    """Return answers *said* to reviews with the labels *gold*; the rows *abstained* are unsure."""
    examples = tuple(
        Example(id=str(i), text="x", label=g, source="made") for i, g in enumerate(gold)
    )
    probs = np.array([[0.8 if label == one else 0.1 for label in LABELS] for one in said])
    predictions = tuple(
        Prediction(
            label=one,
            probs=Probs(row),
            score=None,
            confidence=0.8,
            tokens=3,
            truncated=False,
            abstained=i in abstained,
        )
        for i, (one, row) in enumerate(zip(said, probs.tolist(), strict=True))
    )
    return Answered(
        sample=Sample(name="test", sha256="", part="test", examples=examples),
        answers=gold_of(examples, LABELS, probs),
        examples=examples,
        predictions=predictions,
        failed=0,
    )


def judged(result: SetResult) -> Judgement:
    """Return the judgement with that set alone."""
    bundle = Judged(
        name="mine",
        version="1",
        graph_sha256="",
        precision="fp32",
        created="",
        labels=LABELS,
        threshold=0.5,
    )
    return Judgement(bundle=bundle, created="", draws=100, seed=0, sets=(result,))


def test_rows_that_are_all_right_leave_an_error_open() -> None:
    """For this bundle and for a rival, as Wilson's interval says."""
    right = answered(["negative", "positive"] * 10, ["negative", "positive"] * 10)

    found = judge_set(right, draws=100)
    other = Contender(name="other", kind="bundle", note="", probs=lambda texts: right.answers.probs)
    rival = judge_rival(other, [right], draws=100).sets[0]

    for figure in (found.figures["accuracy"], rival.figures["accuracy"]):
        assert figure == share(20, 20)
    assert found.figures["neutral_share"] == share(0, 20)
    assert (found.labels[0].precision, found.labels[0].recall) == (share(10, 10), share(10, 10))


def test_a_figure_has_the_rows_that_it_is_of() -> None:
    """Not those of the whole set."""
    gold = [*["negative"] * 4, *["neutral"] * 3, *["positive"] * 5]
    said = [*["negative"] * 3, *["positive"] * 4, *["positive"] * 5]

    found = judge_set(answered(gold, said), draws=100)

    assert found.figures["two_class_accuracy"].rows == 9
    assert [(label.precision.rows, label.recall.rows) for label in found.labels] == [
        (3, 4),
        (0, 3),
        (9, 5),
    ]
    assert [label.f1.rows for label in found.labels] == [4, 3, 9]
    assert found.labels[2].f1.value == pytest.approx(10 / 14)


def test_the_error_among_the_answers_that_are_given_is_told() -> None:
    """The promise of the threshold was made on rows that chose it; here are others."""
    gold = ["negative", "positive"] * 10
    said = [*gold[:16], "neutral", *gold[17:19], "neutral"]
    chosen = choose_threshold(np.full(200, 0.8), np.ones(200, dtype=bool), target_error=0.05)

    found = judge_set(answered(gold, said, abstained=[16, 17]), draws=100)

    assert found.abstained == pytest.approx(0.1)
    assert found.answered_error == share(1, 18)
    card = findings(judged(found), chosen)
    assert "abstains from 10.0% of 20 rows, and 5.6% of its answers are wrong (1.0% to" in card
    nothing = judge_set(answered(gold, said, abstained=range(20)), draws=100)
    assert nothing.answered_error is None
    assert "answers no row" in findings(judged(nothing), chosen)


def test_a_label_without_rows_has_no_figures_on_the_card() -> None:
    """A 0.0 would look measured."""
    found = judge_set(answered(["negative", "positive"] * 10, ["negative", "neutral"] * 10))

    card = findings(judged(found))

    assert "| neutral | 0 | \u2013 | \u2013 | \u2013 |" in card
    assert "| positive | 10 | \u2013 | 0.0" in card
    assert found.labels[1].recall == Figure(value=0.0, low=0.0, high=1.0, rows=0)
