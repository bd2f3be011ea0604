"""The judgement of the test teacher: a word list, a little noise, and no language model.

It reads the real prompt, as a model would: classes and their letters from the user message, the
review from between the fences. `gullible` makes it follow any label that the review names.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import dataclass
from typing import Final

GOOD: Final = {
    *("lovely", "best", "deep", "fair", "worth", "grateful", "recommended"),
    *("good", "great", "love", "loved", "excellent"),
}
BAD: Final = {
    *("leaked", "gone", "poor", "cold", "crashes", "broken", "worst", "dangerous"),
    *("rubbish", "terrible", "bad", "awful"),
}
_CLASS: Final = re.compile(r"^([A-Z]) = ([\w-]+)", re.MULTILINE)
_REVIEW: Final = re.compile(r"<review (\w+)>\n(.*?)\n</review \1>", re.DOTALL)
_WORD: Final = re.compile(r"[a-z]+")


@dataclass(frozen=True)
class Judgement:
    """What the mind says: the answer's JSON, and the likeliest tokens for its letter."""

    content: str
    tokens: list[tuple[str, list[tuple[str, float]]]]


def review_of(user: str) -> str:
    """Return the fenced text of a prompt."""
    found = _REVIEW.search(user)
    return found[2] if found else user


def annotator(user: str, *, stated: bool, gullible: bool = False) -> Judgement:
    """Answer a prompt. The same review always gets the same shares, whatever its letters."""
    letters = {label: letter for letter, label in _CLASS.findall(user)}
    review = review_of(user)
    shares = shares_of(review, sorted(letters))
    if gullible:
        named = [label for label in re.findall(r"[a-z]+", review.lower()) if label in letters]
        if named:
            rest = 0.04 / (len(letters) - 1)
            shares = {label: 0.96 if label == named[-1] else rest for label in letters}
    if stated:
        numbers = {letters[label]: round(100 * share) for label, share in shares.items()}
        return Judgement(json.dumps(dict(sorted(numbers.items()))), [])
    best = max(sorted(shares), key=shares.__getitem__)
    top = [(letters[label], math.log(max(share, 1e-9))) for label, share in shares.items()]
    tokens = [('{"', [('{"', 0.0)]), ("label", [("label", 0.0)]), ('":"', [('":"', 0.0)])]
    tokens += [(letters[best], top), ('"}', [('"}', 0.0)])]
    return Judgement(json.dumps({"label": letters[best]}, separators=(",", ":")), tokens)


def shares_of(review: str, labels: list[str]) -> dict[str, float]:
    """Return the shares for a review, from its words and a little noise from its hash."""
    words = _WORD.findall(review.lower())
    tilt = sum(word in GOOD for word in words) - sum(word in BAD for word in words)
    noise = hashlib.sha256(review.encode("utf-8", "replace")).digest()
    weights = {label: 1.0 + noise[k] / 512 for k, label in enumerate(labels)}
    wanted = "positive" if tilt > 0 else "negative" if tilt < 0 else "neutral"
    if wanted in weights:
        weights[wanted] += 6.0
    else:
        weights[labels[noise[9] % len(labels)]] += 6.0
    total = sum(weights.values())
    return {label: weight / total for label, weight in weights.items()}
