"""The reference student's figures as tables."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from benchmarks.reference.figures import calibrated, checklist, not_beaten, without_their_texts
from sentimill_train.evaluation.result import Rival, RivalResult
from sentimill_train.metrics.significance import compare


def failing(test: str, rows: int) -> dict[str, Any]:
    """Return what `evaluate` says of one behavioural test."""
    return {"test": test, "rate": {"value": 0.25, "low": 0.2, "high": 0.3, "rows": rows}}


def test_failures_of_checklist_stand_beside_the_published_ones() -> None:
    """A test that the paper does not give, or of which no case was run, is left out."""
    found = [failing("typos", 500), failing("of our own", 40), failing("Q & A: no", 0)]

    (row,) = [line for line in checklist({"behaviour": found}).splitlines() if "5.2" in line]

    assert row == "| typos | 500 | 25.0 (20.0 to 30.0) | 5.2 | 3.8 |"
    assert "own" not in checklist({"behaviour": found})
    assert "Q & A" not in checklist({"behaviour": found})
    assert checklist({"behaviour": [failing("of our own", 40)]}) == ""


def test_texts_of_other_suites_are_not_kept() -> None:
    """They are for measuring here; ours are shipped anyway."""
    ours = {"suite": "sentimill", "examples": [{"text": "Not once was it open."}]}
    theirs = {"suite": "imdb-cad", "test": "minimal", "examples": [{"text": "A film."}]}

    found = without_their_texts({"behaviour": [ours, theirs]})

    assert found["behaviour"] == [ours, {"suite": "imdb-cad", "test": "minimal", "examples": []}]


def test_the_calibration_in_domain_is_a_floor_too() -> None:
    """It says how far the limit is away, and on which side."""
    near = {"sets": [{"figures": {"ece": {"value": 0.019, "low": 0.006, "high": 0.032}}}]}
    far = {"sets": [{"figures": {"ece": {"value": 0.021, "low": 0.01, "high": 0.04}}}]}

    assert calibrated(near) == {
        "value": 0.019,
        "low": 0.006,
        "high": 0.032,
        "at_most": 0.02,
        "reached": True,
    }
    assert not calibrated(far)["reached"]


def test_a_plain_model_that_is_not_beaten_is_named() -> None:
    """With the set on which it is not: a table of many figures would hide it."""
    gold = np.array([0, 1] * 20)
    same = compare(gold, gold, gold, labels=2, draws=10)
    rival = Rival(
        name="TF-IDF",
        kind="baseline",
        note="",
        sets=(RivalResult(name="shoes", figures={}, comparison=same),),
    )

    (line,) = not_beaten([msgspec.to_builtins(rival)])

    assert line.startswith("- the student does not beat TF-IDF on every set")
    assert "no clear difference on shoes" in line
