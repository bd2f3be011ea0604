"""The figures of README and docs are those of the committed results, to the letter."""

from __future__ import annotations

import re

import pytest

from benchmarks import figures
from benchmarks.serving import tables as serving_tables
from repository import ROOT
from sentimill.classifier import Classifier
from sentimill.types import Prediction

README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS = ROOT / "benchmarks/results"


def test_the_tables_say_what_the_results_say() -> None:
    """`make figures` would change nothing; the tables of the proof have a test of their own."""
    guide = (ROOT / "docs/operate.md").read_text(encoding="utf-8")
    page = (ROOT / "docs/results.md").read_text(encoding="utf-8")
    structure = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    security = (ROOT / "docs/security.md").read_text(encoding="utf-8")

    assert figures.results_page(page) == page
    assert figures.architecture(structure) == structure
    assert serving_tables.fill(guide, RESULTS) == guide
    assert serving_tables.fill_security(security, RESULTS) == security
    assert without_first_answer(figures.readme(README)) == without_first_answer(README)


def test_the_first_answer_is_the_one_that_a_reader_gets() -> None:
    """Labels are the same on every processor; its kind may move a figure by a hundredth."""
    shown = re.findall(r"^(\w+)\?? +([+-]\S+) +(\S+)  (.+)$", README, re.MULTILINE)
    answers = Classifier.load().classify([text for *_, text in shown])

    assert len(shown) == 3
    for (label, score, confidence, _), answer in zip(shown, answers, strict=True):
        assert isinstance(answer, Prediction)
        assert label == answer.label
        assert answer.score == pytest.approx(float(score), abs=0.02)
        assert answer.confidence == pytest.approx(float(confidence), abs=0.02)


def without_first_answer(text: str) -> str:
    """Return *text* without the answer that depends on the processor."""
    return re.sub(r"<!-- first-answer.*?/first-answer -->", "", text, flags=re.DOTALL)
