"""Behavioural cases: how each kind is judged, how a suite is read, and the suite of our own."""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from pathlib import Path

import msgspec
import numpy as np
import pytest

from sentimill.classifier import Classifier
from sentimill.errors import TableError
from sentimill.text.cleaning import clean
from sentimill_train.data.readers import STARTER
from sentimill_train.evaluation.behaviour import OWN_SUITE, Case, judge_case, read_cases, run_cases

LABELS = ("negative", "neutral", "positive")


def case(kind: str, expected: str | tuple[str, ...], *texts: str) -> Case:
    """Return a case of that kind."""
    record = {
        "suite": "s",
        "test": "t",
        "type": kind,
        "capability": "c",
        "row": "1",
        "texts": texts or ("a", "b"),
        "expected": expected,
    }
    return msgspec.convert(record, Case)


@pytest.mark.parametrize(
    ("kind", "expected", "probs", "failed"),
    [
        ("MFT", ("positive",), [[0.1, 0.1, 0.8]], []),
        ("MFT", ("positive",), [[0.8, 0.1, 0.1]], [0]),
        ("MFT", ("positive", "neutral"), [[0.1, 0.8, 0.1]], []),
        ("INV", "same", [[0.1, 0.1, 0.8], [0.1, 0.2, 0.7], [0.8, 0.1, 0.1]], [2]),
        ("INV", "same", [[0.48, 0.0, 0.52], [0.52, 0.0, 0.48]], []),  # another label, hardly moved
        ("PAIR", ("negative", "positive"), [[0.8, 0.1, 0.1], [0.1, 0.1, 0.8]], []),
        ("PAIR", ("negative", "positive"), [[0.8, 0.1, 0.1], [0.7, 0.1, 0.2]], [1]),
        ("DIR", "not_less_confident", [[0.8, 0.1, 0.1], [0.75, 0.1, 0.15]], []),
        ("DIR", "not_less_confident", [[0.8, 0.1, 0.1], [0.6, 0.3, 0.1]], [1]),
        ("DIR", "not_more_confident", [[0.6, 0.3, 0.1], [0.8, 0.1, 0.1]], [1]),
        ("DIR", "not_more_confident", [[0.1, 0.8, 0.1], [0.1, 0.1, 0.8]], None),
        ("DIR", "not_less_positive", [[0.5, 0.0, 0.5], [0.7, 0.0, 0.3]], [1]),
        ("DIR", "not_less_positive", [[0.5, 0.0, 0.5], [0.1, 0.0, 0.9]], []),
        ("DIR", "not_more_positive", [[0.5, 0.0, 0.5], [0.1, 0.0, 0.9]], [1]),
    ],
)
def test_how_a_case_is_judged(
    kind: str, expected: str | tuple[str, ...], probs: list[list[float]], failed: list[int] | None
) -> None:
    """Each kind by its rule in SOURCES.md, with a tolerance of 0.1 for what may move."""
    assert judge_case(case(kind, expected), np.array(probs), LABELS) == failed


def test_a_model_without_the_label_is_not_asked() -> None:
    """A two-label model is spared the neutral cases, and judged on the rest."""
    two = np.array([[0.2, 0.8]])
    assert judge_case(case("MFT", ("neutral",)), two, ("negative", "positive")) is None
    assert judge_case(case("MFT", ("neutral", "positive")), two, ("negative", "positive")) == []


def test_failures_are_counted_by_test_and_shown(bundle: Path) -> None:
    """The tiny bundle knows `good` and `bad`; a refused text makes its case not apply."""
    cases = [
        case("MFT", ("positive",), "good battery"),
        case("MFT", ("negative",), "good battery"),
        case("MFT", ("negative",), "   "),
    ]
    (result,) = run_cases(Classifier.load(bundle), cases)
    assert (result.failures, result.rate.rows, result.skipped) == (1, 2, 1)
    assert result.rate.value == 0.5
    assert result.examples[0].expected == "negative"
    assert result.examples[0].got.startswith("positive 0.")


def test_a_suite_is_read_plain_or_compressed_and_sampled_the_same_each_time(tmp_path: Path) -> None:
    """The kept cases depend on their texts alone, not on their order."""
    lines = [
        json.dumps(
            {
                "suite": "s",
                "test": f"t{i % 2}",
                "type": "MFT",
                "capability": "c",
                "row": i,
                "texts": [f"text {i}"],
                "expected": ["neutral"],
                "check": "unknown fields are ignored",
            }
        )
        for i in range(20)
    ]
    plain, packed = tmp_path / "a.jsonl", tmp_path / "b.jsonl.gz"
    plain.write_text("\n".join(lines), encoding="utf-8")
    packed.write_bytes(gzip.compress("\n".join(reversed(lines)).encode()))
    assert len(read_cases(plain)) == 20
    first, second = read_cases(plain, most=3), read_cases(packed, most=3)
    assert Counter(c.test for c in first) == {"t0": 3, "t1": 3}
    assert {c.texts for c in first} == {c.texts for c in second}


@pytest.mark.parametrize(
    "line",
    [
        "not json",
        '{"suite": "s"}',
        '{"suite":"s","test":"t","type":"DIR","capability":"c","row":1,"texts":["a","b"],"expected":"up"}',
        '{"suite":"s","test":"t","type":"MFT","capability":"c","row":1,"texts":["a","b"],"expected":["x"]}',
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str) -> None:
    """File and line are in the message."""
    path = tmp_path / "suite.jsonl"
    path.write_text(line, encoding="utf-8")
    with pytest.raises(TableError, match=r"suite\.jsonl, line 1") as caught:
        read_cases(path)
    assert caught.value.reason == "BAD_CASE"


def test_missing_broken_and_empty_suites_are_told(tmp_path: Path) -> None:
    """Each gets an error that names the file."""
    with pytest.raises(TableError, match="cannot be read"):
        read_cases(tmp_path / "none.jsonl")
    (tmp_path / "bad.gz").write_bytes(b"no gzip")
    with pytest.raises(TableError, match="cannot be read"):
        read_cases(tmp_path / "bad.gz")
    (tmp_path / "empty.jsonl").write_bytes(b"")
    with pytest.raises(TableError, match="no cases"):
        read_cases(tmp_path / "empty.jsonl")


def test_our_suite_is_large_varied_and_whole() -> None:
    """At least 300 cases of every kind, no case twice, every text readable."""
    cases = read_cases(OWN_SUITE)
    assert len(cases) >= 300
    assert {c.type for c in cases} == {"MFT", "INV", "DIR"}
    assert len({c.texts for c in cases}) == len(cases)
    assert len({(c.test, c.row) for c in cases}) == len(cases)
    for found in cases:
        assert len(set(found.texts)) == len(found.texts)
        assert all(clean(text) for text in found.texts)
    tests = Counter(c.test for c in cases)
    assert min(tests.values()) >= 8
    wanted = {label for c in cases if c.type == "MFT" for label in c.expected}
    assert wanted == set(LABELS)
    assert all(len(c.expected) < 3 for c in cases if c.type == "MFT")


def test_our_suite_shares_no_long_phrase_with_the_starter_reviews() -> None:
    """A model that was trained on the starter reviews has not seen the cases."""

    def phrases(text: str) -> set[tuple[str, ...]]:
        words = re.findall(r"\w+", text.lower())
        return {tuple(words[i : i + 8]) for i in range(len(words) - 7)}

    lines = STARTER.read_text(encoding="utf-8").splitlines()
    seen = set().union(*(phrases(json.loads(line)["text"]) for line in lines))
    whole = {clean(json.loads(line)["text"]).lower() for line in lines}
    for found in read_cases(OWN_SUITE):
        for text in found.texts:
            assert not phrases(text) & seen, text
            assert clean(text).lower() not in whole, text
