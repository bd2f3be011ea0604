"""A labelling session: a job with its store and budget, which makes runners and annotators."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from sentimill.errors import UsageError
from sentimill_train.labelling.annotator import Annotator, PromptFile, choose_mode
from sentimill_train.labelling.job import LabelJob
from sentimill_train.labelling.prompt import Shot
from sentimill_train.labelling.requests.batch_api import ModelTeacher
from sentimill_train.labelling.requests.budget import Budget
from sentimill_train.labelling.requests.messages import Mode
from sentimill_train.labelling.requests.rate_limit import RateLimiter
from sentimill_train.labelling.requests.request_loop import NO_COST, RequestRunner
from sentimill_train.labelling.requests.response_cache import ResponseCache
from sentimill_train.labelling.token_prices import Quote

__all__ = ["Priced", "Session"]

Priced = tuple[ModelTeacher, Quote | None]
"""A teacher and its price; None where the price is unknown."""

_GUESS: Final[dict[bool, Mode]] = {False: "logprobs", True: "votes"}


class Session:
    """What the steps of a run share. One event loop uses it."""

    def __init__(
        self, job: LabelJob, store: ResponseCache, budget: Budget, shots: Sequence[Shot]
    ) -> None:
        self.job = job
        self.store = store
        self.budget = budget
        self.file = PromptFile(job.prompt, job.labels, tuple(shots), job.meanings)

    @classmethod
    async def open(cls, job: LabelJob, store: ResponseCache, shots: Sequence[Shot] = ()) -> Session:
        """Open a session: book the calls that a killed run left open; count what was spent."""
        await store.settle_lost()
        totals = store.totals()
        budget = Budget(job.budget, spent=totals.spent, at_risk=totals.at_risk)
        return cls(job, store, budget, shots)

    def check_price(self, priced: Priced) -> None:
        """Raise UsageError where there is a budget and no price to hold it with."""
        teacher, quote = priced
        if quote is None and self.budget.cap is not None:
            raise UsageError(
                f"the price of {teacher.name} is in no table: give --price-in and --price-out"
                " (dollars a million tokens), or --budget none",
                reason="UNKNOWN_PRICE",
            )

    def runner(self, priced: Priced, *, concurrency: int | None = None) -> RequestRunner:
        """Return a runner of online calls, at the full price."""
        teacher, quote = priced
        rates = self.job.rates
        limiter = RateLimiter(
            requests_per_minute=rates.requests_per_minute, tokens_per_minute=rates.tokens_per_minute
        )
        return RequestRunner(
            teacher,
            self.store,
            self.budget,
            limiter,
            price=quote.live if quote else NO_COST,
            concurrency=concurrency or rates.concurrency,
            retries=self.job.retries,
        )

    def likely_annotator(self, teacher: ModelTeacher) -> Annotator:
        """Return the annotator that a teacher most likely becomes, without a call."""
        known = self.store.fact(f"mode {teacher.name} {self.job.votes}")
        mode = self._wanted() or (msgspec.convert(known, Mode) if known else None)
        guess = _GUESS[self.job.votes > 1 and not teacher.offers_logprobs]
        return self._judge(teacher, mode or guess)

    async def annotator(self, priced: Priced, text: str) -> tuple[Annotator, str | None]:
        """Return the annotator, and why the run must stop if finding out its mode stopped it."""
        teacher, _ = priced
        wanted = self._wanted()
        if wanted is not None:
            return self._judge(teacher, wanted), None
        runner = self.runner(priced, concurrency=1)
        mode = await choose_mode(
            teacher, self.file, self.store, runner, votes=self.job.votes, text=text
        )
        return self._judge(teacher, mode), runner.tally.stopped

    def _wanted(self) -> Mode | None:
        return None if self.job.soft == "auto" else self.job.soft

    def _judge(self, teacher: ModelTeacher, mode: Mode) -> Annotator:
        votes = max(2, self.job.votes) if mode == "votes" else 1
        return Annotator(teacher, self.file.bind(mode), votes)
