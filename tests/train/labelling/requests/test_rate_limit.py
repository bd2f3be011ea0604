"""Politeness, by a clock of our own."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentimill_train.labelling.requests.rate_limit import CallRates, RateLimiter, backoff_s


class Clock:
    """Time that passes only when someone sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Return the time in seconds."""
        return self.now

    async def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


@given(
    tokens=st.lists(st.integers(1, 3000), min_size=2, max_size=80),
    rpm=st.floats(1, 600),
    tpm=st.floats(100, 100_000),
)
def test_no_minute_holds_more_than_allowed(tokens: list[int], rpm: float, tpm: float) -> None:
    """Between two sends there is time for all that was sent before the second of them."""
    clock = Clock()
    rates = CallRates(requests_per_minute=rpm, tokens_per_minute=tpm)
    limiter = RateLimiter(rates, clock, clock.sleep)
    sent: list[float] = []

    async def scenario() -> None:
        for count in tokens:
            await limiter.wait(count)
            sent.append(clock.now)

    asyncio.run(scenario())

    elapsed = sent[-1] - sent[0]
    assert len(tokens) - 1 <= elapsed * rpm / 60 + 1e-6
    assert sum(tokens[:-1]) <= elapsed * tpm / 60 + 1e-6


def test_pause_holds_everybody_back() -> None:
    """One caller's Retry-After is obeyed by all."""
    clock = Clock()
    limiter = RateLimiter(CallRates(), clock, clock.sleep)
    limiter.pause(7.0)
    limiter.pause(3.0)

    asyncio.run(limiter.wait(1))

    assert clock.now == 7.0


@pytest.mark.parametrize(
    ("attempt", "longest"), [(0, 0.5), (1, 1.0), (3, 4.0), (30, 60.0), (3000, 60.0)]
)
def test_backoff_is_full_jitter_under_a_doubling_bound(attempt: int, longest: float) -> None:
    """Anything from nothing to the bound, which stops growing at a minute."""
    assert backoff_s(attempt, random_share=lambda: 0.0) == 0.0
    assert longest == backoff_s(attempt, random_share=lambda: 1.0)
