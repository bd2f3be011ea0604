"""Runs the pipeline of `label`: plan, ask, measure on gold, combine, write.

::

    rows ─► clean, shorten, redact ─► questions ─► answers ─► shares ─► mean of teachers ─► rows

The input is read three times (to count, to ask, to write), so memory holds no text, only about 100
bytes for each different text.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import signal
import time
from collections.abc import Callable, Iterator, Sequence

import msgspec

from sentimill.atomic_write import open_atomically, write_atomically
from sentimill.errors import UsageError
from sentimill_train.data.examples import encode_example
from sentimill_train.labelling.annotator import Annotator
from sentimill_train.labelling.cost_estimate import estimate_cost
from sentimill_train.labelling.job import (
    InputScan,
    Item,
    LabelJob,
    failed_path,
    items,
    person_label,
    report_path,
    scan_input,
)
from sentimill_train.labelling.requests.batch_runner import BatchLimits, BatchRunner
from sentimill_train.labelling.requests.budget import NO_COST, PICO, Budget
from sentimill_train.labelling.requests.request_loop import RequestRunner, Tally
from sentimill_train.labelling.requests.response_cache import ResponseCache
from sentimill_train.labelling.run_report import Report, raise_unless_complete
from sentimill_train.labelling.session import Priced, Session
from sentimill_train.labelling.soft_labels import combine, disagreement

Tick = Callable[[int, int, Tally, Budget], None]
"""Called after each question with the number done, the total, the counts and the budget."""


class Labeller:
    """One run of one job. `run` closes the teachers when it ends.

    agree: gets the text of the estimate, and returns False to stop the run.
    """

    def __init__(
        self,
        job: LabelJob,
        teachers: Sequence[Priced],
        agree: Callable[[str], bool],
        tick: Tick = lambda done, total, tally, budget: None,
        batch: BatchLimits | None = None,
    ) -> None:
        self._job = job
        self._teachers = teachers
        self._agree = agree
        self._tick = tick
        self._batch = batch

    def run(self) -> Report:
        """Label the rows. The output is written before an error is raised.

        Raises:
            UsageError: a price is unknown while there is a budget, the plan is refused, or the
                endpoint refuses every call (a wrong key or model).
            UnavailableError: the endpoint has stopped answering.
            SomeRowsFailed: BUDGET_REACHED, INTERRUPTED or ROWS_FAILED; the rest is written.
        """
        found = scan_input(self._job)
        with contextlib.closing(ResponseCache(self._job.store)) as store:
            return asyncio.run(self._run(found, store))

    async def _run(self, found: InputScan, store: ResponseCache) -> Report:
        started = time.monotonic()
        report = Report(rows=found.rows)
        try:
            await store.settle_lost()
            session = Session(self._job, store, found.shots)
            report.expected_usd = self._plan(found, session)
            annotators = await self._ask(found, session)
        finally:
            for teacher, _ in self._teachers:
                await teacher.close()
        report.add_annotators(annotators, store.totals())
        answers = any(a.tally.answered or a.tally.stored for a in annotators)
        if answers or report.stopped is None:
            self._write(store, annotators, report)
        report.seconds = round(time.monotonic() - started, 3)
        data = msgspec.json.encode(report, order="deterministic")
        write_atomically(report_path(self._job.out), msgspec.json.format(data, indent=2) + b"\n")
        raise_unless_complete(self._job, report)
        return report

    def _plan(self, found: InputScan, session: Session) -> float | None:
        """Show the estimate and return the expected dollars, None if no price is known."""
        plans = []
        for priced in self._teachers:
            teacher, quote = priced
            session.check_price(priced)
            annotator = session.likely_annotator(teacher)
            stored = self._stored(found, session.store, annotator)
            plans.append(
                estimate_cost(annotator, found, stored, quote, self._job.rates, session.budget)
            )
        if not self._agree("\n".join(text for _, text in plans)):
            raise UsageError("nothing was asked: the plan was not confirmed", reason="NOT_AGREED")
        costs = [cost for cost, _ in plans if cost is not None]
        return sum(costs) / PICO if costs else None

    def _stored(self, found: InputScan, store: ResponseCache, annotator: Annotator) -> int:
        if store.totals().replies == 0:
            return 0
        keys = {key for text in self._texts(found) for key in annotator.keys(text)}
        return sum(bool(store.replies(key)) for key in keys)

    async def _ask(self, found: InputScan, session: Session) -> list[Annotator]:
        """Ask one teacher after the other; if one stops, the others are not asked."""
        annotators: list[Annotator] = []
        first = next(self._texts(found), None)
        for priced in self._teachers if first is not None else ():
            annotator = await session.annotator(priced, first or "")
            if annotator.tally.stopped is None:
                runner = self._runner(priced, session, found.texts * annotator.votes)
                with _on_signal(functools.partial(runner.stop, "INTERRUPTED")):
                    questions = annotator.questions_about(self._texts(found))
                    annotator.tally = await runner.run(questions)
            annotator.measure(session.store, found.gold)
            annotators.append(annotator)
            if annotator.tally.stopped is not None:
                break
        return annotators

    def _runner(self, priced: Priced, session: Session, total: int) -> RequestRunner | BatchRunner:
        teacher, quote = priced
        runner: RequestRunner | BatchRunner
        if self._batch is None:
            runner = session.runner(priced)
        else:
            price = quote.price if quote else NO_COST
            runner = BatchRunner(teacher, session.store, session.budget, self._batch, price=price)
        tally = runner.tally
        runner.progress = lambda: self._tick(
            tally.answered + tally.stored, total, tally, session.budget
        )
        return runner

    def _texts(self, found: InputScan) -> Iterator[str]:
        """Yield the texts to ask about; the gold rows, which measure the teacher, come first."""
        yield from (text for text, _ in found.gold)
        for item in items(self._job):
            if self._is_asked(item):
                yield item.sent

    def _is_asked(self, item: Item) -> bool:
        return item.reason is None and (item.row.label is None or self._job.relabel)

    def _write(self, store: ResponseCache, annotators: Sequence[Annotator], report: Report) -> None:
        """Write the labelled rows in input order, and the ids of the others with the reasons."""
        job = self._job
        with open_atomically(job.out) as out, open_atomically(failed_path(job.out)) as bad:
            for item in items(job):
                asked = self._is_asked(item)
                line = self._labelled(item, store, annotators) if asked else None
                if line is not None:
                    report.labelled += 1
                elif not asked and item.row.label is not None:
                    report.kept += 1
                    line = encode_example(item.row, job.labels)
                else:
                    failure = next((r for a in annotators if (r := a.failure(item.sent))), None)
                    reason = item.reason or failure or report.stopped or "NOT_ASKED"
                    report.failed[reason] += 1
                    bad.write(msgspec.json.encode({"id": item.row.id, "reason": reason}) + b"\n")
                    continue
                out.write(line)

    def _labelled(
        self, item: Item, store: ResponseCache, annotators: Sequence[Annotator]
    ) -> bytes | None:
        """Return the row with its label as a line of JSON, None unless every teacher has answered.

        The line also has the source of the shares, and the disagreement of teachers, 0 to 1.
        """
        found = [annotator.shares(store, item.sent) for annotator in annotators]
        shares = [share for share in found if share is not None]
        if not shares or len(shares) < len(self._teachers):
            return None
        pooled = combine(shares, [annotator.weight for annotator in annotators])
        labelled = dataclasses.replace(
            item.row,
            label=self._job.labels[pooled.index(max(pooled))],
            probs=tuple(round(share, 6) for share in pooled),
            given=person_label(item.row),
            teacher=" ".join(annotator.teacher.name for annotator in annotators),
        )
        more: dict[str, object] = {"soft": " ".join(a.prompt.mode for a in annotators)}
        if (apart := disagreement(shares)) is not None:
            more["disagreement"] = round(apart, 6)
        return encode_example(labelled, self._job.labels, more)


@contextlib.contextmanager
def _on_signal(stop: Callable[[], None]) -> Iterator[None]:
    """Stop the run cleanly on Ctrl-C and SIGTERM while the block runs."""
    loop = asyncio.get_running_loop()
    signals = (signal.SIGINT, signal.SIGTERM)
    try:
        for number in signals:
            loop.add_signal_handler(number, stop)
    except (NotImplementedError, RuntimeError, ValueError):  # not the main thread, or Windows
        yield
        return
    try:
        yield
    finally:
        for number in signals:
            loop.remove_signal_handler(number)
