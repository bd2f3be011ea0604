"""The estimate shown before the first call: rows, calls, tokens, cost and time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sentimill_train.labelling.prompt import Prompt
from sentimill_train.labelling.providers.teacher import Teacher
from sentimill_train.labelling.requests.budget import Budget, dollars
from sentimill_train.labelling.requests.messages import Usage
from sentimill_train.labelling.requests.request_loop import body_bytes
from sentimill_train.labelling.token_prices import Quote

_CALL_S: Final = 1.5
"""The assumed duration of a call, as usual for a hosted model with a short answer."""

_SCHEMA_TOKENS: Final = 40  # a provider adds the schema to the prompt
_OUT_TOKENS: Final = {"logprobs": 8, "votes": 8, "stated": 26}


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """How much there is to ask. sample: some of the texts, as they will be sent."""

    rows: int
    texts: int
    votes: int
    stored: int
    sample: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRates:
    """Limits on the rate of calls. None is no limit."""

    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    concurrency: int = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class CostEstimate:
    """The estimate for one teacher. cost, worst: picodollars; None where the price is unknown."""

    teacher: str
    load: Workload
    calls: int
    tokens_in: int
    tokens_out: int
    cost: int | None
    worst: int | None
    seconds: float
    origin: str


def estimate_cost(
    teacher: Teacher, prompt: Prompt, load: Workload, quote: Quote | None, rates: CallRates
) -> CostEstimate:
    """Return the estimate for a workload, extrapolated from its sample."""
    calls = load.texts * load.votes - load.stored
    questions = [prompt.question(teacher.name, text) for text in load.sample]
    tokens = [
        _estimate(question.system) + _estimate(question.user) + _SCHEMA_TOKENS
        for question in questions
    ]
    mean = math.fsum(tokens) / len(tokens) if tokens else 0.0
    tokens_in, tokens_out = round(mean * calls), _OUT_TOKENS[prompt.mode] * calls
    cost = worst = None
    if quote is not None:
        cost = quote.price.cost(Usage(tokens_in=tokens_in, tokens_out=tokens_out))
        bounds = [quote.price.worst(q, body_bytes(teacher, q)) for q in questions]
        worst = round(sum(bounds) / len(bounds) * calls) if bounds else 0
    paces = [_CALL_S / rates.concurrency]
    if rates.requests_per_minute:
        paces.append(60 / rates.requests_per_minute)
    if rates.tokens_per_minute:
        paces.append(mean * 60 / rates.tokens_per_minute)
    return CostEstimate(
        teacher=teacher.name,
        load=load,
        calls=calls,
        tokens_in=tokens_in,
        tokens_out=tokens_out,
        cost=cost,
        worst=worst,
        seconds=calls * max(paces),
        origin=quote.origin if quote else "unknown",
    )


def format_estimate(plan: CostEstimate, budget: Budget) -> str:
    """Return the estimate as text for a terminal."""
    load = plan.load
    votes = f" x {load.votes} votes" if load.votes > 1 else ""
    lines = [
        f"{plan.teacher}: {load.rows:,} rows to label, {load.texts:,} different texts to ask about"
        f"{votes}, {load.stored:,} answers already stored, {plan.calls:,} calls to make",
        f"  tokens  {plan.tokens_in:,} in, {plan.tokens_out:,} out "
        f"(estimated on {len(load.sample)} rows)",
    ]
    if plan.cost is None or plan.worst is None:
        lines.append("  price   unknown")
    else:
        lines.append(f"  cost    {dollars(plan.cost)} expected, price: {plan.origin}")
        if budget.cap is None:
            lines.append("  budget  none")
        else:
            left = budget.left or 0
            lines.append(
                f"  budget  {dollars(budget.cap)}, {dollars(max(0, left))} left in this store"
            )
            if plan.cost > left:
                covered = max(0, math.floor(plan.calls * left / plan.cost)) if plan.cost else 0
                lines.append(f"          enough for about {covered:,} of {plan.calls:,} calls")
    lines.append(f"  time    about {_duration(plan.seconds)} once it runs")
    return "\n".join(lines)


def _estimate(text: str) -> int:
    """Return about how many tokens a text has: four ASCII characters each, others nearly one."""
    ascii_only = sum(map(str.isascii, text)) if not text.isascii() else len(text)
    return math.ceil(ascii_only / 4 + (len(text) - ascii_only) / 1.5)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{math.ceil(seconds)} s"
    return f"{math.ceil(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
