"""The cap on spending: before a call is sent, it reserves the most it can cost; then it settles.

Money is counted in whole picodollars (10^-12 USD), so sums are exact: $0.10 a million tokens are
100,000 picodollars a token. An int64 of SQLite holds nine million dollars.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from sentimill_train.labelling.requests.messages import Question, Usage

PICO: Final = 10**12

_MESSAGE_TOKENS: Final = 256
"""How many tokens a chat template may add: role markers, a date, a default preamble."""


def dollars(pico: int) -> str:
    """Return an amount as text: with cents from one dollar up, with four decimals below."""
    value = pico / PICO
    return f"${value:,.2f}" if value >= 1 or value == 0 else f"${value:.4f}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """Picodollars a token. cached_in: read from a prompt cache. cache_write: written to it."""

    tokens_in: int
    tokens_out: int
    cached_in: int
    cache_write: int

    @classmethod
    def of(
        cls,
        usd_in: float,
        usd_out: float,
        *,
        usd_cached_in: float | None = None,
        usd_cache_write: float | None = None,
        factor: float = 1.0,
    ) -> Price:
        """Build from US dollars a million tokens. factor: 0.5 for a batch at half price."""

        def pico(usd: float) -> int:
            return round(usd * factor * PICO / 1_000_000)

        return cls(
            tokens_in=pico(usd_in),
            tokens_out=pico(usd_out),
            cached_in=pico(usd_in if usd_cached_in is None else usd_cached_in),
            cache_write=pico(usd_in if usd_cache_write is None else usd_cache_write),
        )

    def cost(self, usage: Usage) -> int:
        """Return the cost of a reply, in picodollars."""
        plain = usage.tokens_in - usage.cached_in - usage.cache_written
        return (
            max(0, plain) * self.tokens_in
            + usage.cached_in * self.cached_in
            + usage.cache_written * self.cache_write
            + usage.tokens_out * self.tokens_out
        )

    def worst(self, question: Question, body_bytes: int) -> int:
        """Return the most that a call can cost, in picodollars.

        A token has at least one byte, so the number of bytes bounds the number of tokens. For
        English it is about four times too high; settling a call returns the difference.
        """
        dearest = max(self.tokens_in, self.cached_in, self.cache_write)
        tokens_in = body_bytes + _MESSAGE_TOKENS
        return tokens_in * dearest + question.answer_tokens * self.tokens_out


NO_COST: Final = Price.of(0.0, 0.0)


class Budget:
    """The cap, the money spent, and the money reserved by open calls, in picodollars.

    cap: None if spending is not limited. at_risk: for calls that got no reply but may have been
    billed; they count with the most they can cost, because the provider decides what it bills.
    One event loop uses it.
    """

    def __init__(self, cap: int | None, *, spent: int = 0, at_risk: int = 0) -> None:
        self.cap = cap
        self.spent = spent
        self.at_risk = at_risk
        self.reserved = 0
        self.reached = False
        self._excess = 0
        self._changed = asyncio.Condition()

    @property
    def left(self) -> int | None:
        """The money neither spent nor reserved; None without a cap."""
        if self.cap is None:
            return None
        return self.cap - self.spent - self.at_risk - self.reserved

    async def reserve(self, worst: int) -> int | None:
        """Reserve *worst* and return the reserved amount; None if the cap is reached.

        While other calls are open it waits, because they return what they do not need.
        """
        async with self._changed:
            while not self.reached:
                if (amount := self.reserve_now(worst)) is not None:
                    return amount
                if self.reserved == 0:
                    self.reached = True
                    self._changed.notify_all()
                else:
                    await self._changed.wait()
        return None

    def reserve_now(self, worst: int) -> int | None:
        """Reserve *worst* if it is free at this moment, else return None. Used for batches."""
        amount = worst + self._excess
        if self.left is not None and amount > self.left:
            return None
        self.reserved += amount
        return amount

    async def settle(self, reserved: int, *, spent: int = 0, at_risk: int = 0) -> None:
        """End a reservation and book what the call cost."""
        async with self._changed:
            self.reserved -= reserved
            self.spent += spent
            self.at_risk += at_risk
            # A cost above the bound means that the endpoint adds text to each call, so from now on
            # every call reserves that much more.
            self._excess = max(self._excess, spent + at_risk - reserved)
            self._changed.notify_all()
