"""The cascade: where the student is unsure, a large model answers, within a budget and a timeout.

    fallback = Fallback(ask=my_model, below=0.8, usd_each=0.001, budget_usd=5.0)
    with Client("127.0.0.1:50051", fallback=fallback) as client:
        client.classify(texts)[0].answered_by      # "student" or "large"

What the large model does not answer in time, or within the budget, keeps the student's answer: a
fallback never makes a call fail that succeeded without it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as Late
from dataclasses import replace
from threading import Lock
from typing import Final

from sentimill.classifier import Prediction
from sentimill.client.channel import Result
from sentimill.errors import UsageError

__all__ = ["Ask", "Fallback"]

Ask = Callable[[Sequence[str]], Sequence[Sequence[float] | None]]
"""Texts to probs in label order, None for a text without an answer. Called from a thread."""

_LOG: Final = logging.getLogger(__name__)
_SUM_TOLERANCE: Final = 1e-3


class Fallback:
    """Asks a large model about the least confident answers. Threads may share it.

    spent_usd counts every text that was sent, answered or not, because a provider bills it so.
    """

    def __init__(
        self,
        ask: Ask,
        *,
        below: float | None = None,
        usd_each: float = 0.0,
        budget_usd: float = math.inf,
        timeout_seconds: float = 10.0,
        labels: Sequence[str] = ("negative", "neutral", "positive"),
        callers: int = 8,
    ) -> None:
        """Ask where confidence is under *below*; None asks where the model abstained.

        usd_each: the most that one text costs. callers: calls of *ask* under way at once.

        Raises:
            UsageError: a threshold outside 0 to 1, or a price or budget below 0.
        """
        if below is not None and not 0 <= below <= 1:
            why = f"fallback below={below} is no confidence: give 0 to 1"
            raise UsageError(why, reason="BAD_FALLBACK")
        if not (usd_each >= 0 and budget_usd >= 0 and timeout_seconds > 0):
            why = "fallback prices must be 0 or more, and its timeout more than 0 seconds"
            raise UsageError(why, reason="BAD_FALLBACK")
        self.spent_usd = 0.0
        self.asked = 0
        self.answered = 0
        self._ask = ask
        self._below = below
        self._usd_each = usd_each
        self._budget_usd = budget_usd
        self._timeout_seconds = timeout_seconds
        self._labels = tuple(labels)
        self._lock = Lock()
        self._pool = ThreadPoolExecutor(callers, thread_name_prefix="sentimill-fallback")

    def improve(self, texts: Sequence[str], results: Sequence[Result]) -> list[Result]:
        """Return *results* with the large model's answers in the place of unsure ones.

        Texts that have an error keep it.
        """
        better = list(results)
        unsure = [
            (result.confidence, i)
            for i, result in enumerate(results)
            if isinstance(result, Prediction) and self._is_unsure(result)
        ]
        chosen = [i for _, i in sorted(unsure)]
        chosen = chosen[: self._reserve(len(chosen))]
        if not chosen:
            return better
        for i, probs in zip(chosen, self._answers([texts[i] for i in chosen]), strict=True):
            student = better[i]
            if probs is not None and isinstance(student, Prediction):
                better[i] = self._decide(student, probs)
        return better

    def close(self) -> None:
        """Stop the threads without waiting for calls under way."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _is_unsure(self, result: Prediction) -> bool:
        return result.abstained if self._below is None else result.confidence < self._below

    def _reserve(self, wanted: int) -> int:
        """Set money aside for as many texts as the budget allows, and return how many."""
        with self._lock:
            left = self._budget_usd - self.spent_usd
            allowed = wanted
            if wanted * self._usd_each > left:
                # Not rounded up by a binary fraction: 1.0 / 0.1 buys ten.
                allowed = max(0, int(left / self._usd_each + 1e-9))
            self.spent_usd += allowed * self._usd_each
            self.asked += allowed
        return allowed

    def _answers(self, texts: Sequence[str]) -> Sequence[Sequence[float] | None]:
        """Ask, and return one answer a text; nothing at all where the call failed or was late."""
        nothing: list[Sequence[float] | None] = [None] * len(texts)
        future = self._pool.submit(self._checked, texts)
        try:
            # The user's own code may raise anything; whatever it is, the student's answers stand.
            error = future.exception(timeout=self._timeout_seconds)
        except Late:
            if future.cancel():  # all callers were busy: nothing was sent
                self._give_back(len(texts))
            _LOG.warning("fallback: no answer in %.1f s", self._timeout_seconds)
            return nothing
        if error is not None:
            _LOG.warning("fallback: %s", type(error).__name__)
            return nothing
        return future.result()

    def _checked(self, texts: Sequence[str]) -> list[Sequence[float] | None]:
        answers = list(self._ask(texts))
        if len(answers) != len(texts):
            raise ValueError(f"{len(answers)} answers for {len(texts)} texts")
        return [answer if self._is_usable(answer) else None for answer in answers]

    def _give_back(self, texts: int) -> None:
        with self._lock:
            self.spent_usd -= texts * self._usd_each
            self.asked -= texts

    def _is_usable(self, probs: Sequence[float] | None) -> bool:
        return (
            probs is not None
            and len(probs) == len(self._labels)
            and all(0 <= p <= 1 for p in probs)
            and abs(sum(probs) - 1) <= _SUM_TOLERANCE
        )

    def _decide(self, student: Prediction, probs: Sequence[float]) -> Prediction:
        with self._lock:
            self.answered += 1
        by_label = dict(zip(self._labels, map(float, probs), strict=True))
        ordered = {"negative", "positive"} <= by_label.keys()
        return replace(
            student,
            label=max(by_label, key=by_label.__getitem__),
            probs=tuple(by_label.values()),
            score=by_label["positive"] - by_label["negative"] if ordered else None,
            confidence=max(by_label.values()),
            abstained=False,
            answered_by="large",
        )
