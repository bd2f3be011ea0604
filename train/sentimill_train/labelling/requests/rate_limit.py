"""Rate limits: requests and tokens a minute, the provider's pauses, and backoff with full jitter.

Calls are spaced evenly, without a burst after a pause, so no minute exceeds a limit.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

_FIRST_WAIT_S: Final = 0.5
_LONGEST_WAIT_S: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRates:
    """Limits on the rate of calls. None means no limit."""

    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    concurrency: int = 16


class RateLimiter:
    """Delays calls to stay below the rates. One event loop uses it."""

    def __init__(
        self,
        rates: CallRates,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._request_s = 60.0 / (rates.requests_per_minute or math.inf)
        self._token_s = 60.0 / (rates.tokens_per_minute or math.inf)
        self._clock = clock
        self.sleep = sleep
        self._next_s = float("-inf")
        self._paused_until_s = float("-inf")

    async def wait(self, tokens: int) -> None:
        """Wait until a call of *tokens* may be sent."""
        now = self._clock()
        start = max(now, self._next_s)
        # The next call waits until this one fits both rates.
        self._next_s = start + max(self._request_s, tokens * self._token_s)
        if start > now:
            await self.sleep(start - now)
        while (left := self._paused_until_s - self._clock()) > 0:
            await self.sleep(left)

    def pause(self, seconds: float) -> None:
        """Delay every call, because the provider asked one of them to wait."""
        self._paused_until_s = max(self._paused_until_s, self._clock() + seconds)


def backoff_s(
    attempt: int,
    *,
    first_s: float = _FIRST_WAIT_S,
    random_share: Callable[[], float] = random.random,
) -> float:
    """Return how long to wait after failure number *attempt* (from 0), in seconds.

    With full jitter the wait is uniform between 0 and a doubling bound. That spreads many callers
    better than a little noise (Brooker, "Exponential Backoff And Jitter", AWS, 2015).
    """
    return random_share() * min(_LONGEST_WAIT_S, first_s * 2.0 ** min(attempt, 16))
