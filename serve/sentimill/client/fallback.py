"""The cascade: a large model answers where the student is unsure, within a budget and a timeout.

    fallback = Fallback(ask=my_model, below=0.8, usd_each=0.001, budget_usd=5.0)
    with Client("127.0.0.1:50051", fallback=fallback) as client:
        client.classify(texts)[0].answered_by      # "student" or "large"

A text keeps the student's answer when the large model is late, fails, or would exceed the budget.
So a fallback never makes a call fail that would succeed without it. The one exception is a mistake
in the program: labels that are not the model's raise UsageError at the first call.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from concurrent.futures import TimeoutError as Late
from dataclasses import replace
from threading import Lock
from typing import Final

from sentimill.errors import UsageError
from sentimill.types import Prediction, Probs, Result

Ask = Callable[[Sequence[str]], Sequence[Sequence[float] | None]]
"""Takes texts and returns probs in label order, or None for a text without an answer.

It is called from a thread of the fallback's own.
"""

_LOG: Final = logging.getLogger(__name__)
_SUM_TOLERANCE: Final = 1e-3


class Fallback:
    """Asks a large model about the least confident answers. Threads may share it.

    spent_usd counts every text that was sent, answered or not, because a provider bills for it.
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
        """Ask where confidence is below *below*; None asks where the model abstained.

        usd_each: the most that one text costs. labels: the order of the probs that *ask* returns.
        callers: calls of *ask* that run at once.

        Raises:
            UsageError: a threshold outside 0 to 1, or a price or budget below 0.
        """
        if below is not None and not 0 <= below <= 1:
            why = f"fallback below={below} is not a confidence: use 0 to 1"
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

    def improve(self, texts: Sequence[object], results: Sequence[Result]) -> list[Result]:
        """Return *results* with the large model's answers in place of the unsure ones.

        A text that has an error keeps it.

        Raises:
            UsageError: FALLBACK_LABELS, the model has other labels than the fallback.
        """
        better = list(results)
        self._check_labels(results)
        below = self._below
        unsure = [
            (one.confidence, i)
            for i, one in enumerate(results)
            if isinstance(one, Prediction)
            and (one.abstained if below is None else one.confidence < below)
        ]
        chosen = [i for _, i in sorted(unsure)]
        chosen = chosen[: self._reserve(len(chosen))]
        if not chosen:
            return better
        for i, probs in zip(chosen, self._answers([str(texts[i]) for i in chosen]), strict=True):
            student = better[i]
            if probs is not None and isinstance(student, Prediction):
                better[i] = self._decide(student, probs)
        return better

    def close(self) -> None:
        """Stop the threads without waiting for calls under way; the student then answers alone."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _check_labels(self, results: Sequence[Result]) -> None:
        """Compare the labels with the model's, where the server sends them."""
        known = next((one.probs.labels for one in results if isinstance(one, Prediction)), ())
        if known and set(known) != set(self._labels):
            raise UsageError(
                f"the fallback's labels are {', '.join(self._labels)}, and the model's are"
                f" {', '.join(known)}: pass Fallback(labels=...) in the order of your probs",
                reason="FALLBACK_LABELS",
            )

    def _reserve(self, wanted: int) -> int:
        """Reserve money for as many texts as the budget allows, and return their number."""
        with self._lock:
            left = self._budget_usd - self.spent_usd
            allowed = wanted
            if wanted * self._usd_each > left:
                # The small term undoes a rounding error: 1.0 / 0.1 must pay for ten texts.
                allowed = max(0, int(left / self._usd_each + 1e-9))
            self.spent_usd += allowed * self._usd_each
            self.asked += allowed
        return allowed

    def _answers(self, texts: Sequence[str]) -> Sequence[Sequence[float] | None]:
        """Ask, and return one answer per text; all are None if the call failed or was late."""
        nothing: list[Sequence[float] | None] = [None] * len(texts)
        closed = "fallback: closed, the student answers alone"
        try:
            future = self._pool.submit(self._checked, texts)
        except RuntimeError:  # the pool is shut down
            self._give_back(len(texts))
            _LOG.warning(closed)
            return nothing
        try:
            # The user's own code may raise any exception. The student's answers stay then.
            error = future.exception(timeout=self._timeout_seconds)
        except CancelledError:  # `close` came while all threads were busy, so nothing was sent
            self._give_back(len(texts))
            _LOG.warning(closed)
            return nothing
        except Late:
            if future.cancel():  # all threads were busy, so nothing was sent
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
        labels = student.probs.labels or self._labels  # the model's order, where it is known
        return replace(
            student,
            label=max(by_label, key=by_label.__getitem__),
            probs=Probs((by_label[label] for label in labels), labels),
            score=by_label["positive"] - by_label["negative"] if ordered else None,
            confidence=max(by_label.values()),
            abstained=False,
            abstain_reason=None,
            answered_by="large",
        )
