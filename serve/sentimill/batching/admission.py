"""Admission: what may come in, counted in texts and tokens, never in calls."""

from __future__ import annotations

from typing import Final

from sentimill.errors import InputError, UnavailableError
from sentimill.observability.metrics import Metrics

__all__ = ["Admission"]

_DECAY: Final = 0.9
"""Weight of the past in a running estimate, at each engine call."""

_BULK_SHARE: Final = 0.75
"""Share of the queue that bulk work may fill, so that interactive calls always find room."""

_PATIENCE: Final = 1.5
"""How much longer than its turn a text may have to wait before its deadline is believed in.

Texts of like length go before it, and the engine's rate moves. Admitting whatever would be just in
time fills the queue to the deadline's edge, where half of what is computed comes too late
(benchmarks/serving/latency.py, overload).
"""

_TURN_SHARE: Final = 4 / 3
"""Bulk work has every fourth batch, so what is interactive waits this much longer at most."""


class Admission:
    """Counts the texts and tokens that wait or run, and refuses what would pass the limits."""

    def __init__(self, *, max_texts: int, max_tokens: int, metrics: Metrics) -> None:
        self.max_texts = max_texts
        self.max_tokens = max_tokens
        self.texts = 0
        self.tokens = 0
        self.bulk_tokens = 0
        self._engine = _Pace()
        self._call = _Pace()
        self._metrics = metrics

    def enter(self, texts: int, seconds_left: float | None = None, *, bulk: bool = False) -> None:
        """Count *texts* in, before anything is done for them.

        Raises:
            InputError: there are more of them than the queue ever holds.
            UnavailableError: the limit would be passed, or half as much again as the estimated
                wait is longer than *seconds_left* until the caller's deadline, while there is
                anything to wait for.
        """
        self._check("texts", self.texts, texts, self.max_texts, bulk=bulk)
        self._check_wait(0, seconds_left, bulk=bulk)
        self.texts += texts
        self._metrics.waiting_texts.set(self.texts)

    def enter_tokens(self, tokens: int, seconds_left: float | None, *, bulk: bool = False) -> None:
        """Count *tokens* in, with their own time added to the wait. Raises as `enter` does."""
        self._check("tokens", self.tokens, tokens, self.max_tokens, bulk=bulk)
        self._check_wait(tokens, seconds_left, bulk=bulk)
        self.tokens += tokens
        self.bulk_tokens += tokens * bulk
        self._metrics.waiting_tokens.set(self.tokens)

    def leave(self, texts: int, tokens: int, *, bulk: bool = False) -> None:
        """Count out what was counted in."""
        self.texts -= texts
        self.tokens -= tokens
        self.bulk_tokens -= tokens * bulk
        self._metrics.waiting_texts.set(self.texts)
        self._metrics.waiting_tokens.set(self.tokens)

    def wait_seconds(self, *, bulk: bool = True) -> float:
        """Estimate how long a text that came now would wait; 0 before anything was measured.

        bulk: it waits for everything. Otherwise it waits for what is interactive, and at most for
        one batch of bulk work in four.
        """
        interactive = self.tokens - self.bulk_tokens
        ahead = self.tokens if bulk else min(self.tokens, interactive * _TURN_SHARE)
        return self.seconds_for(ahead)

    def seconds_for(self, tokens: float) -> float:
        """Estimate how long the engine takes for *tokens*; 0 before anything was measured."""
        return self._engine.seconds_for(tokens)

    def call_seconds(self, tokens: int) -> float:
        """Estimate how long one engine call of *tokens* takes, which is more where several go."""
        return self._call.seconds_for(tokens)

    def observe(self, tokens: int, seconds: float, busy_seconds: float) -> None:
        """Learn from one engine call, which took *seconds*, how fast the queue drains.

        busy_seconds: those in which no call before it was observed; fewer where calls go at once.
        """
        self._call.observe(tokens, seconds)
        self._engine.observe(tokens, busy_seconds)

    def _check(self, unit: str, now: int, more: int, limit: int, *, bulk: bool) -> None:
        if bulk:
            limit = int(limit * _BULK_SHARE)
        if more > limit:
            raise InputError(
                f"the request has {more} {unit} and the server never holds more than {limit}:"
                " split it into smaller ones",
                reason="REQUEST_TOO_LARGE",
                field="items",
            )
        if now + more > limit:
            raise UnavailableError(
                f"{now} {unit} wait, {more} more would pass the limit of {limit}: try again later",
                reason="QUEUE_FULL",
            )

    def _check_wait(self, tokens: int, seconds_left: float | None, *, bulk: bool) -> None:
        # With nothing before it a call is let in on any estimate: only an engine call corrects one
        # that is too high, and a server that refused them all would never make another.
        if seconds_left is None or not self.tokens or not self.seconds_for(1):
            return
        wait = _PATIENCE * self.wait_seconds(bulk=bulk) + self.seconds_for(tokens)
        if wait > seconds_left:
            raise UnavailableError(
                f"the answer may take {wait:.2f} s and the deadline is in"
                f" {seconds_left:.2f} s: try again later or with a longer deadline",
                reason="DEADLINE_TOO_SHORT",
            )


class _Pace:
    """Tokens and the seconds that they took, old ones weighing less."""

    def __init__(self) -> None:
        self._tokens = 0.0
        self._seconds = 0.0

    def observe(self, tokens: int, seconds: float) -> None:
        self._tokens = _DECAY * self._tokens + tokens
        self._seconds = _DECAY * self._seconds + seconds

    def seconds_for(self, tokens: float) -> float:
        """Return 0 before anything was observed."""
        return tokens * self._seconds / self._tokens if self._tokens else 0.0
