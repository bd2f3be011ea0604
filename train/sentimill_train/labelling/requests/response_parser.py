"""Parses a stored answer into shares of the labels, or a reason why it is unusable.

Answers are parsed each time they are read, so a better parser also improves answers that are
already paid for.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from itertools import accumulate
from typing import Final, Literal

from sentimill_train.labelling.requests.messages import Question, Reply, TokenShares

Unusable = Literal["TRUNCATED", "REFUSED", "EMPTY", "MALFORMED"]

_OBJECT: Final = re.compile(r"\{[^{}]*\}")
_THINKING: Final = re.compile(r"<think>.*?</think>", re.DOTALL)
_LABEL_VALUE: Final = re.compile(r'"label"\s*:\s*"')
_BARE_LETTER: Final = re.compile(r"[\W_\u0120]*([A-Z])[\W_\u0120]*")
"""A letter with quotes, blanks, brackets or a stop: `"A`, `A"}`. U+0120 is a blank in some tokens.
A word such as `Both` or `Answer` is no letter.
"""
_LEAST_MASS: Final = 0.5
"""The least total probability of the letters at their token. The rest is ignored."""
_SUM_TOLERANCE: Final = 10
"""How far the sum of stated shares may be from 100, since models round them."""


def read_answer(reply: Reply | None, question: Question) -> tuple[float, ...] | Unusable:
    """Return the shares of an answer, (labels,) summing to 1, or why it cannot be used.

    In the modes `logprobs` and `votes` the answer is one letter. In `logprobs` the shares are the
    probabilities of the letters, in `votes` the letter gets a share of 1.
    """
    if reply is None:
        return "MALFORMED"
    if reply.stop == "refusal":
        return "REFUSED"
    if reply.stop == "length":
        return "TRUNCATED"
    content = _THINKING.sub("", reply.content).strip()
    if not content:
        return "EMPTY"
    found = _last_object(content)
    if found is None:
        return "MALFORMED"
    if question.mode == "stated":
        return _stated(found, question.aliases)
    letter = found.get("label")
    if not isinstance(letter, str) or letter not in question.aliases:
        return "MALFORMED"
    if question.mode == "logprobs":
        shares = _from_tokens(reply.tokens, question.aliases)
        return "MALFORMED" if shares is None else shares
    return tuple(1.0 if alias == letter else 0.0 for alias in question.aliases)


def _last_object(content: str) -> Mapping[str, object] | None:
    """Return the last flat JSON object in *content*, since small models add prose or a fence."""
    for match in reversed(list(_OBJECT.finditer(content))):
        try:
            value = json.loads(match[0])
        except ValueError:
            continue
        if isinstance(value, dict):
            return value
    return None


def _stated(found: Mapping[str, object], aliases: tuple[str, ...]) -> tuple[float, ...] | Unusable:
    numbers: list[float] = []
    for alias in aliases:
        value = found.get(alias)
        if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
            return "MALFORMED"
        numbers.append(float(value))
    total = math.fsum(numbers)
    if not abs(total - 100) <= _SUM_TOLERANCE:
        return "MALFORMED"
    return tuple(number / total for number in numbers)


def _from_tokens(
    tokens: tuple[TokenShares, ...], aliases: tuple[str, ...]
) -> tuple[float, ...] | None:
    """Return the shares at the token with the letter of the label; None if it is not found."""
    text = "".join(token for token, _ in tokens)
    starts = [match.end() for match in _LABEL_VALUE.finditer(text)]
    ends = accumulate(len(token) for token, _ in tokens)
    place = next((i for i, end in enumerate(ends) if starts and end > starts[-1]), None)
    if place is None:
        return None
    token, top = tokens[place]
    mass = dict.fromkeys(aliases, 0.0)
    for alternative, logprob in top:
        letter = _letter(alternative)
        if letter in mass:
            mass[letter] += math.exp(min(0.0, logprob))
    total = math.fsum(mass.values())
    if total < _LEAST_MASS or _letter(token) not in mass:
        return None
    return tuple(share / total for share in mass.values())


def _letter(token: str) -> str:
    """Return the letter that is alone in *token*, "" if there is none."""
    found = _BARE_LETTER.fullmatch(token)
    return "" if found is None else found[1]
