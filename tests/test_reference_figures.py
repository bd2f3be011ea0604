"""The reference student's figures as tables."""

from __future__ import annotations

from typing import Any

from reference_figures import checklist, without_their_texts


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
