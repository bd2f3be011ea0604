"""A labelling session: a job with its store and budget, which creates runners and annotators."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace

import msgspec

from sentimill.errors import UsageError
from sentimill_train.labelling.annotator import Annotator
from sentimill_train.labelling.job import LabelJob
from sentimill_train.labelling.prompt import Prompt, Shot, load_prompt
from sentimill_train.labelling.providers.teacher import Teacher
from sentimill_train.labelling.requests.budget import NO_COST, Budget
from sentimill_train.labelling.requests.messages import Mode
from sentimill_train.labelling.requests.rate_limit import CallRates
from sentimill_train.labelling.requests.request_loop import RequestRunner
from sentimill_train.labelling.requests.response_cache import ResponseCache
from sentimill_train.labelling.token_prices import Quote

Priced = tuple[Teacher, Quote | None]
"""A teacher and its price; None where the price is unknown."""


class Session:
    """The objects that the steps of a run share, used by one event loop. shots: in the prompt."""

    def __init__(self, job: LabelJob, store: ResponseCache, shots: Sequence[Shot] = ()) -> None:
        totals = store.totals()
        self.job = job
        self.store = store
        self.budget = Budget(job.budget, spent=totals.spent, at_risk=totals.at_risk)
        self._shots = shots

    def check_price(self, priced: Priced) -> None:
        """Raise UsageError if there is a budget but no price, so that it cannot be enforced."""
        teacher, quote = priced
        if quote is None and self.budget.cap is not None:
            raise UsageError(
                f"the price of {teacher.name} is in no table: give --price-in and --price-out"
                " (dollars a million tokens), or --budget none",
                reason="UNKNOWN_PRICE",
            )

    def runner(self, priced: Priced, rates: CallRates | None = None) -> RequestRunner:
        """Return a runner of online calls, at the full price."""
        teacher, quote = priced
        return RequestRunner(
            teacher,
            self.store,
            self.budget,
            price=quote.live if quote else NO_COST,
            rates=rates or self.job.rates,
            retries=self.job.retries,
        )

    def likely_annotator(self, teacher: Teacher) -> Annotator:
        """Return the most likely annotator of a teacher, without a call to find out its mode."""
        guess: Mode = "logprobs" if teacher.offers_logprobs else self._mode_without_logprobs()
        return self._annotator(teacher, self._known_mode(teacher) or guess)

    def _mode_without_logprobs(self) -> Mode:
        return "votes" if self.job.votes > 1 else "stated"

    async def annotator(self, priced: Priced, text: str) -> Annotator:
        """Return the annotator of a teacher. Its tally is stopped if finding out the mode failed.

        One question about *text* shows whether the endpoint gives log-probabilities. Without them
        the mode is votes if the job has more than one vote, else stated shares.
        """
        teacher, _ = priced
        if (known := self._known_mode(teacher)) is not None:
            return self._annotator(teacher, known)
        mode = self._mode_without_logprobs()
        if teacher.offers_logprobs:
            prompt = self._prompt("logprobs")
            runner = self.runner(priced, replace(self.job.rates, concurrency=1))
            await runner.run([functools.partial(prompt.question, teacher.name, text, 0)])
            raws = self.store.replies(prompt.key(teacher.name, text))
            replies = [reply for raw in raws if (reply := teacher.read(raw)) is not None]
            if any(reply.tokens for reply in replies):
                mode = "logprobs"
            elif runner.tally.stopped is not None or not replies:
                # The question got no answer, so nothing is known, and nothing is remembered.
                annotator = self._annotator(teacher, mode)
                annotator.tally.stopped = runner.tally.stopped
                return annotator
        await self.store.remember(self._fact(teacher), mode)
        return self._annotator(teacher, mode)

    def _known_mode(self, teacher: Teacher) -> Mode | None:
        """Return the mode given in the job, or found out by an earlier run."""
        if self.job.soft != "auto":
            return self.job.soft
        known = self.store.fact(self._fact(teacher))
        return None if known is None else msgspec.convert(known, Mode)

    def _fact(self, teacher: Teacher) -> str:
        return f"mode {teacher.name} {self.job.votes}"

    def _prompt(self, mode: Mode) -> Prompt:
        job = self.job
        return load_prompt(job.prompt, job.labels, mode, self._shots, job.meanings)

    def _annotator(self, teacher: Teacher, mode: Mode) -> Annotator:
        votes = max(2, self.job.votes) if mode == "votes" else 1
        return Annotator(teacher, self._prompt(mode), votes)
