"""Sentences whose form decides what they say."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import pytest

import sentimill_train
from benchmarks.reference.mix import LABELS, plain
from benchmarks.reference.sentence_forms import FORMS, WORDS, Words, answered, denied, rows

MADE = list(rows(2000))


def test_a_row_is_read_as_one_with_shares() -> None:
    """The label is the largest share, and the shares of a row are one whole."""
    for row in MADE:
        assert sum(row["probs"]) == pytest.approx(1)
        assert row["label"] == LABELS[row["probs"].index(max(row["probs"]))]
        assert row["split"] == "train"


def test_no_two_rows_have_the_same_words_and_a_seed_gives_the_same_rows() -> None:
    """Whoever runs it again gets what the reference student learnt from."""
    assert len({plain(row["text"]) for row in MADE}) == len(MADE)
    assert list(rows(50)) == MADE[:50]
    assert list(rows(50, seed=1)) != MADE[:50]


def test_the_words_alone_tell_nothing() -> None:
    """Each sign of word stands in sentences of each sign, or a bag of words would do."""
    counts: Counter[tuple[str, str]] = Counter()
    for row in MADE:
        words = set(plain(row["text"]).split())
        counts["good", row["label"]] += bool(words & set(WORDS["good"]))
        counts["bad", row["label"]] += bool(words & set(WORDS["bad"]))

    for sign in ("good", "bad"):
        least = min(counts[sign, "positive"], counts[sign, "negative"])
        assert least > 0.25 * (counts[sign, "positive"] + counts[sign, "negative"])


def test_every_form_gives_both_labels() -> None:
    """None of them is a form that says one thing whatever its words are."""
    draw = random.Random(0)
    for form in FORMS:
        keys = {form(Words(draw))[1].lstrip("~") for _ in range(200)}
        assert {"+", "-"} <= keys, form.__name__


def test_a_denial_turns_a_word_round() -> None:
    """Praise that is denied is blame; blame that is denied is praise, with doubt."""
    draw = random.Random(0)
    for form in (denied, answered):
        for _ in range(100):
            text, key = form(Words(draw))
            yes = any(
                text.lower().endswith(end)
                for end in ("yes", "yes.", "yes!", "tainly.", "do", "so.")
            )
            if form is denied or not yes:
                good = any(f" {word}" in f" {text}" for word in WORDS["good"])
                bad = any(f" {word}" in f" {text}" for word in WORDS["bad"])
                if good != bad:
                    assert key == ("-" if good else "~+"), text


def test_none_is_a_case_that_judges() -> None:
    """The package's own suite, and the airline of CheckList, are for judging only."""
    file = Path(sentimill_train.__file__).parent / "resources" / "behaviour.jsonl"
    cases = {
        plain(text)
        for line in file.read_text(encoding="utf-8").splitlines()
        for text in json.loads(line)["texts"]
    }

    for row in MADE:
        assert plain(row["text"]) not in cases
        assert not set(plain(row["text"]).split()) & {"airline", "flight", "aircraft", "pilot"}
