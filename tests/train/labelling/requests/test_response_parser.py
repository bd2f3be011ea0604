"""What stored answers say."""

from __future__ import annotations

import math
from typing import Any, Literal

import pytest

from sentimill_train.data.schema import SENTIMENTS
from sentimill_train.labelling.prompt import SENTIMENT, load_prompt
from sentimill_train.labelling.requests.messages import Question, Reply
from sentimill_train.labelling.requests.response_parser import read_answer

Mode = Literal["logprobs", "votes", "stated"]


def question(mode: Mode) -> Question:
    """Return a question in which A is negative, B neutral and C positive."""
    prompt = load_prompt(SENTIMENT, SENTIMENTS, mode)
    for n in range(1000):
        found = prompt.question("t", f"Review {n}.")
        if found.aliases == ("A", "B", "C"):
            return found
    raise AssertionError("no such order")


def reply(content: str, **changes: Any) -> Reply:
    """Return a reply that ended well."""
    return Reply(**({"content": content, "stop": "end", "usage": None} | changes))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"label": "B"}', (0.0, 1.0, 0.0)),
        ('Sure!\n```json\n{"label":"C"}\n```', (0.0, 0.0, 1.0)),
        ('<think>{"label": "A"}</think>{"label": "C"}', (0.0, 0.0, 1.0)),
        ('{"label": "D"}', "MALFORMED"),
        ('{"label": "positive"}', "MALFORMED"),
        ('{"label": ', "MALFORMED"),
        ("C", "MALFORMED"),
        ("[]", "MALFORMED"),
        ("  ", "EMPTY"),
        ("<think>hm</think>", "EMPTY"),
    ],
)
def test_vote_is_one_letter(content: str, expected: object) -> None:
    """A letter of this call counts, whatever stands around it; anything else is unusable."""
    assert expected == read_answer(reply(content), question("votes"))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"A": 10, "B": 30, "C": 60}', (0.1, 0.3, 0.6)),
        ('{"A": 0, "B": 0, "C": 99}', (0.0, 0.0, 1.0)),
        ('{"A": 10, "B": 30}', "MALFORMED"),
        ('{"A": -10, "B": 50, "C": 60}', "MALFORMED"),
        ('{"A": 50, "B": 50, "C": 50}', "MALFORMED"),
        ('{"A": true, "B": 0, "C": 99}', "MALFORMED"),
        ('{"A": NaN, "B": 0, "C": 99}', "MALFORMED"),
        ('{"A": "10", "B": 30, "C": 60}', "MALFORMED"),
    ],
)
def test_stated_shares_are_scaled_to_one(content: str, expected: object) -> None:
    """Rounding is forgiven; a missing class or another sum is not."""
    assert expected == read_answer(reply(content), question("stated"))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [({"stop": "length"}, "TRUNCATED"), ({"stop": "refusal"}, "REFUSED")],
)
def test_answer_that_did_not_end_well_is_unusable(changes: dict[str, Any], expected: str) -> None:
    """Even when its content could be read."""
    assert expected == read_answer(reply('{"label": "B"}', **changes), question("votes"))


def test_body_that_is_no_reply_is_malformed() -> None:
    """A teacher gives None for such a body."""
    assert read_answer(None, question("votes")) == "MALFORMED"


def test_log_probabilities_become_shares() -> None:
    """The letter's token decides; quotes that share its token and other words do not matter."""
    likely = (('C"', math.log(0.6)), ("A", math.log(0.2)), ("the", math.log(0.2)))
    tokens = (('{"label', ()), ('": "', ()), ('C"', likely), ("}", ()))

    shares = read_answer(reply('{"label": "C"}', tokens=tokens), question("logprobs"))

    assert pytest.approx(shares) == (0.25, 0.0, 0.75)


@pytest.mark.parametrize("bare", ["B", "\u0120B", '"B', 'B"}', " B", "(B)", "B."])
def test_only_a_bare_letter_has_a_probability(bare: str) -> None:
    """`Both` is not B, and `Answer` not A."""
    likely = (
        (bare, math.log(0.6)),
        ("Both", math.log(0.1)),
        ("Answer", math.log(0.1)),
        ("C", -1.7),
    )
    tokens = (('{"label": "', ()), (bare, likely), ('"}', ()))

    shares = read_answer(reply('{"label": "B"}', tokens=tokens), question("logprobs"))

    certain = 0.6 / (0.6 + math.exp(-1.7))
    assert pytest.approx(shares) == (0.0, certain, 1 - certain)


@pytest.mark.parametrize(
    "tokens",
    [
        (),
        (('{"label": "', ()),),
        (('{"label": "', ()), ("C", (("the", -0.1),)), ('"}', ())),
    ],
)
def test_letter_without_probabilities_is_malformed(tokens: Any) -> None:
    """A share of one would be a lie about how sure the teacher is."""
    got = read_answer(reply('{"label": "C"}', tokens=tokens), question("logprobs"))

    assert got == "MALFORMED"
