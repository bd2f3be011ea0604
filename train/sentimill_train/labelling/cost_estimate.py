"""The estimate shown before the first call: rows, calls, tokens, cost and time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from sentimill_train.labelling.annotator import Annotator
from sentimill_train.labelling.job import InputScan
from sentimill_train.labelling.requests.budget import Budget, dollars
from sentimill_train.labelling.requests.messages import Usage
from sentimill_train.labelling.requests.rate_limit import CallRates
from sentimill_train.labelling.token_prices import Quote

_CALL_S: Final = 1.5
"""The assumed duration of a call, usual for a hosted model with a short answer."""

_SCHEMA_TOKENS: Final = 40  # a provider adds the schema to the prompt
_OUT_TOKENS: Final = {"logprobs": 8, "votes": 8, "stated": 26}


def estimate_cost(
    annotator: Annotator,
    found: InputScan,
    stored: int,
    quote: Quote | None,
    rates: CallRates,
    budget: Budget,
) -> tuple[int | None, str]:
    """Return the cost for one teacher, extrapolated from a sample, and the estimate as text.

    The cost is in picodollars, None if the price is unknown. stored: how many answers are stored.
    """
    calls = found.texts * annotator.votes - stored
    questions = [annotator.prompt.question(annotator.teacher.name, t) for t in found.sample]
    tokens = [_tokens(q.system) + _tokens(q.user) + _SCHEMA_TOKENS for q in questions]
    mean = math.fsum(tokens) / len(tokens) if tokens else 0.0
    usage = Usage(
        tokens_in=round(mean * calls), tokens_out=_OUT_TOKENS[annotator.prompt.mode] * calls
    )
    cost = None if quote is None else quote.price.cost(usage)
    seconds_a_call = max(
        _CALL_S / rates.concurrency,
        60 / (rates.requests_per_minute or math.inf),
        mean * 60 / (rates.tokens_per_minute or math.inf),
    )
    votes = f" x {annotator.votes} votes" if annotator.votes > 1 else ""
    lines = [
        f"{annotator.teacher.name}: {found.asked_rows:,} rows to label, {found.texts:,} different"
        f" texts to ask about{votes}, {stored:,} answers already stored, {calls:,} calls to make",
        f"  tokens  {usage.tokens_in:,} in, {usage.tokens_out:,} out "
        f"(estimated on {len(found.sample)} rows)",
        *_money(cost, calls, "" if quote is None else quote.origin, budget),
        f"  time    about {_duration(calls * seconds_a_call)} once it runs",
    ]
    return cost, "\n".join(lines)


def _money(cost: int | None, calls: int, origin: str, budget: Budget) -> Iterator[str]:
    if cost is None:
        yield "  price   unknown"
        return
    yield f"  cost    {dollars(cost)} expected, price: {origin}"
    if budget.cap is None or budget.left is None:
        yield "  budget  none"
        return
    left = max(0, budget.left)
    yield f"  budget  {dollars(budget.cap)}, {dollars(left)} left in this store"
    if cost > left:
        yield f"          enough for about {calls * left // cost:,} of {calls:,} calls"


def _tokens(text: str) -> int:
    """Estimate the tokens of a text: 4 ASCII characters or 1.5 other characters each."""
    ascii_only = sum(map(str.isascii, text))
    return math.ceil(ascii_only / 4 + (len(text) - ascii_only) / 1.5)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{math.ceil(seconds)} s"
    return f"{math.ceil(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
