"""Decides which requests may enter the queue. It limits texts and tokens, not calls."""

from __future__ import annotations

from collections import Counter
from typing import Final

from sentimill.errors import InputError, UnavailableError
from sentimill.observability.metrics import Metrics

_DECAY: Final = 0.9
"""Each engine call multiplies the weight of all earlier calls in an estimate by this."""

_BULK_SHARE: Final = 0.75
"""Share of the queue that bulk texts may fill; the rest is kept for interactive calls."""

_PATIENCE: Final = 1.5
"""A deadline must be at least this many times the estimated wait away.

Batches prefer texts of similar length, and the engine's speed varies. Without a margin the queue
would fill with texts that are only just in time, and half of the answers would come too late
(benchmarks/serving/latency.py, overload).
"""

_TURN_SHARE: Final = 4 / 3
"""Every fourth batch has a bulk anchor: interactive texts wait at most this many times as long."""


class Admission:
    """Counts the texts and tokens that wait or run, and refuses requests beyond the limits.

    A caller that already has texts in the queue may add more while it has, with them, at most as
    many texts (or tokens) as would then still be free. Limited in this way, one caller leaves half
    of the queue free, and two leave a third. A caller with nothing in the queue may use all that is
    free. This is the dynamic threshold of Choudhury and Hahne (1998, "Dynamic queue length
    thresholds for shared-memory packet switches", with alpha = 1). The empty caller has no share:
    it stands for all callers without a name.
    """

    def __init__(self, *, max_texts: int, max_tokens: int, metrics: Metrics) -> None:
        self.max_texts = max_texts
        self.max_tokens = max_tokens
        self.texts = 0
        self.tokens = 0
        self.bulk_tokens = 0
        self._texts_of: Counter[str] = Counter()  # by caller, for those that hold any
        self._tokens_of: Counter[str] = Counter()
        self._engine = _Pace()
        self._call = _Pace()
        self._metrics = metrics
        metrics.max_waiting_texts.set(max_texts)
        metrics.max_waiting_tokens.set(max_tokens)

    def enter(
        self, texts: int, seconds_left: float | None = None, *, bulk: bool = False, caller: str = ""
    ) -> None:
        """Count *texts* in, before any work on them.

        Raises:
            InputError: the queue never holds that many.
            UnavailableError: the request would exceed the limit or the caller's share. Or 1.5
                times the estimated wait is longer than *seconds_left* until the caller's deadline.
                An empty queue refuses no deadline.
        """
        own = self._texts_of[caller] if caller else 0
        self._check("texts", self.texts, texts, self.max_texts, own, bulk=bulk)
        self._check_wait(0, seconds_left, bulk=bulk, caller=caller)
        self.texts += texts
        self._texts_of[caller] += texts
        self._metrics.waiting_texts.set(self.texts)

    def enter_tokens(
        self, tokens: int, seconds_left: float | None, *, bulk: bool = False, caller: str = ""
    ) -> None:
        """Count *tokens* in; the wait includes their own time. Raises as `enter` does."""
        own = self._tokens_of[caller] if caller else 0
        self._check("tokens", self.tokens, tokens, self.max_tokens, own, bulk=bulk)
        self._check_wait(tokens, seconds_left, bulk=bulk, caller=caller)
        self.tokens += tokens
        self._tokens_of[caller] += tokens
        self.bulk_tokens += tokens * bulk
        self._metrics.waiting_tokens.set(self.tokens)

    def leave(self, texts: int, tokens: int, *, bulk: bool = False, caller: str = "") -> None:
        """Subtract what was counted in."""
        self.texts -= texts
        self.tokens -= tokens
        self.bulk_tokens -= tokens * bulk
        for held, count in ((self._texts_of, texts), (self._tokens_of, tokens)):
            held[caller] -= count
            if not held[caller]:
                del held[caller]
        self._metrics.waiting_texts.set(self.texts)
        self._metrics.waiting_tokens.set(self.tokens)

    def wait_seconds(self, tokens: int = 0, *, bulk: bool = True, caller: str = "") -> float:
        """Estimate how long *tokens* that came now would wait; 0 before anything was measured.

        Bulk texts wait for everything. Interactive texts wait for other interactive texts, and for
        at most one bulk batch in four. Callers take turns. So the texts of *caller* wait for at
        most one average batch of each caller, and one token of every other caller per own token.
        """
        interactive = self.tokens - self.bulk_tokens
        ahead = self.tokens if bulk else min(self.tokens, interactive * _TURN_SHARE)
        if caller:
            own = self._tokens_of[caller]
            others = len((self._texts_of.keys() | self._tokens_of.keys()) - {caller})
            turns = (others + 1) * (own + self._call.mean_tokens) + others * tokens
            ahead = min(ahead, turns)
        return self.seconds_for(ahead)

    def seconds_for(self, tokens: float) -> float:
        """Estimate how long the engine takes for *tokens*; 0 before anything was measured."""
        return self._engine.seconds_for(tokens)

    def call_seconds(self, tokens: int) -> float:
        """Estimate how long one engine call of *tokens* takes, while other calls run as well."""
        return self._call.seconds_for(tokens)

    def observe(self, tokens: int, seconds: float, busy_seconds: float) -> None:
        """Learn from one engine call, which took *seconds*, how fast the queue drains.

        busy_seconds: see `call_clock.CallTime`.
        """
        self._call.observe(tokens, seconds)
        self._engine.observe(tokens, busy_seconds)

    def _check(self, unit: str, now: int, more: int, limit: int, own: int, *, bulk: bool) -> None:
        if bulk:
            limit = int(limit * _BULK_SHARE)
        if more > limit:
            raise InputError(
                f"the request has {more} {unit} and the server never holds more than {limit}:"
                " split it into smaller ones",
                reason="REQUEST_TOO_LARGE",
                field="items",
            )
        free = limit - now - more
        if free < 0:
            raise UnavailableError(
                f"{now} {unit} wait, {more} more would exceed the limit of {limit}: try again"
                " later",
                reason="QUEUE_FULL",
            )
        if own and own + more > free:
            raise UnavailableError(
                f"{own} {unit} of this caller wait, and {more} more would leave only {free} for"
                " other callers: try again later",
                reason="CALLER_SHARE_FULL",
            )

    def _check_wait(
        self, tokens: int, seconds_left: float | None, *, bulk: bool, caller: str
    ) -> None:
        # An empty queue admits every call: only an engine call can correct an estimate that is too
        # high, and a server that refuses all calls would never make one.
        if seconds_left is None or not self.tokens or not self.seconds_for(1):
            return
        before = self.wait_seconds(tokens, bulk=bulk, caller=caller)
        wait = _PATIENCE * before + self.seconds_for(tokens)
        if wait > seconds_left:
            raise UnavailableError(
                f"the answer may take {wait:.2f} s and the deadline is in"
                f" {seconds_left:.2f} s: try again later or with a longer deadline",
                reason="DEADLINE_TOO_SHORT",
            )


class _Pace:
    """Tokens of engine calls and the seconds that they took; older calls weigh less."""

    def __init__(self) -> None:
        self._calls = 0.0
        self._tokens = 0.0
        self._seconds = 0.0

    @property
    def mean_tokens(self) -> float:
        """Tokens of an average call; 0 before anything was observed."""
        return self._tokens / self._calls if self._calls else 0.0

    def observe(self, tokens: int, seconds: float) -> None:
        self._calls = _DECAY * self._calls + 1
        self._tokens = _DECAY * self._tokens + tokens
        self._seconds = _DECAY * self._seconds + seconds

    def seconds_for(self, tokens: float) -> float:
        """Return 0 before anything was observed."""
        return tokens * self._seconds / self._tokens if self._tokens else 0.0
