"""Admission: what may come in, counted in texts and tokens, never in calls."""

from __future__ import annotations

from typing import Final

from sentimill.errors import UnavailableError
from sentimill.metrics import Metrics

__all__ = ["Admission"]

_RATE_DECAY: Final = 0.8
"""Weight of the past in the running estimate of tokens a second."""


class Admission:
    """Counts the texts and tokens that wait or run, and refuses what would pass the limits."""

    def __init__(self, *, max_texts: int, max_tokens: int, metrics: Metrics) -> None:
        self.max_texts = max_texts
        self.max_tokens = max_tokens
        self.texts = 0
        self.tokens = 0
        self.tokens_per_second: float | None = None
        self._metrics = metrics

    def enter(self, texts: int) -> None:
        """Count *texts* in. Raises UnavailableError when that would pass the limit."""
        if self.texts + texts > self.max_texts:
            raise self._full("texts", self.texts, texts, self.max_texts)
        self.texts += texts
        self._metrics.waiting_texts.set(self.texts)

    def enter_tokens(self, tokens: int, seconds_left: float | None) -> None:
        """Count *tokens* in.

        Raises:
            UnavailableError: the limit would be passed, or the estimated wait is longer than
                *seconds_left* until the caller's deadline: the work is refused before it is begun.
        """
        if self.tokens + tokens > self.max_tokens:
            raise self._full("tokens", self.tokens, tokens, self.max_tokens)
        wait = self.wait_seconds()
        if seconds_left is not None and wait > seconds_left:
            raise UnavailableError(
                f"the queue is about {wait:.2f} s long and the deadline is in {seconds_left:.2f} s:"
                " try again later or with a longer deadline",
                reason="DEADLINE_TOO_SHORT",
            )
        self.tokens += tokens
        self._metrics.waiting_tokens.set(self.tokens)

    def leave(self, texts: int, tokens: int) -> None:
        """Count out what was counted in."""
        self.texts -= texts
        self.tokens -= tokens
        self._metrics.waiting_texts.set(self.texts)
        self._metrics.waiting_tokens.set(self.tokens)

    def wait_seconds(self) -> float:
        """Estimate how long a text that came now would wait; 0 before anything was measured."""
        return self.tokens / self.tokens_per_second if self.tokens_per_second else 0.0

    def observe(self, tokens: int, seconds: float) -> None:
        """Learn from one engine call how fast the queue drains."""
        rate = tokens / max(seconds, 1e-6)
        past = self.tokens_per_second
        self.tokens_per_second = (
            rate if past is None else _RATE_DECAY * past + (1 - _RATE_DECAY) * rate
        )

    def _full(self, unit: str, now: int, more: int, limit: int) -> UnavailableError:
        return UnavailableError(
            f"{now} {unit} wait, {more} more would pass the limit of {limit}: try again later",
            reason="QUEUE_FULL",
        )
