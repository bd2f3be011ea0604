"""From reviews to a labelled set: plan, ask, measure on gold, combine, write.

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
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import msgspec

from sentimill.atomic_write import open_atomically
from sentimill.errors import UsageError
from sentimill_train.data.examples import encode_example
from sentimill_train.data.schema import Example
from sentimill_train.labelling.annotator import Annotator, questions_about
from sentimill_train.labelling.cost_estimate import (
    CostEstimate,
    Workload,
    estimate_cost,
    format_estimate,
)
from sentimill_train.labelling.job import (
    InputScan,
    Item,
    LabelJob,
    failed_path,
    items,
    report_path,
    scan_input,
)
from sentimill_train.labelling.requests.batch_runner import BatchLimits, BatchRunner
from sentimill_train.labelling.requests.budget import NO_COST, Budget
from sentimill_train.labelling.requests.request_loop import RequestRunner, Tally
from sentimill_train.labelling.requests.response_cache import ResponseCache
from sentimill_train.labelling.run_report import (
    Report,
    RowCounts,
    make_report,
    raise_unless_complete,
)
from sentimill_train.labelling.session import Priced, Session
from sentimill_train.labelling.soft_labels import combine, disagreement


@dataclass(frozen=True, slots=True)
class RunObserver:
    """Callbacks of a run.

    plan: is shown the estimate, and returns False to stop the run. tick: is called after each
    question.
    """

    plan: Callable[[str], bool]
    tick: Callable[[int, int, Tally, Budget], None] = lambda done, total, tally, budget: None


class Labeller:
    """One run of one job. `run` closes the teachers when it ends."""

    def __init__(
        self,
        job: LabelJob,
        teachers: Sequence[Priced],
        observer: RunObserver,
        batch: BatchLimits | None = None,
    ) -> None:
        self._job = job
        self._teachers = teachers
        self._observer = observer
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
        store = ResponseCache(self._job.store)
        try:
            return asyncio.run(self._run(found, store))
        finally:
            store.close()

    async def _run(self, found: InputScan, store: ResponseCache) -> Report:
        started = time.monotonic()
        try:
            session = await Session.open(self._job, store, found.shots)
            plans = self._plan(found, session)
            tallies, annotators = await self._ask(found, session)
        finally:
            for teacher, _ in self._teachers:
                await teacher.close()
        written = RowCounts(0, 0, Counter())
        if any(tally.answered or tally.stored for tally in tallies) or _stop_of(tallies) is None:
            written = self._write(store, annotators, tallies)
        report = make_report(found, store, plans, tallies, annotators, written)
        report.seconds = round(time.monotonic() - started, 3)
        with open_atomically(report_path(self._job.out)) as file:
            file.write(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
        raise_unless_complete(self._job, report)
        return report

    def _plan(self, found: InputScan, session: Session) -> list[CostEstimate]:
        plans = []
        for priced in self._teachers:
            teacher, quote = priced
            session.check_price(priced)
            annotator = session.likely_annotator(teacher)
            load = Workload(
                rows=found.asked_rows,
                texts=found.texts,
                votes=annotator.votes,
                stored=self._stored(found, session.store, annotator),
                sample=found.sample,
            )
            plans.append(estimate_cost(teacher, annotator.prompt, load, quote, self._job.rates))
        text = "\n".join(format_estimate(plan, session.budget) for plan in plans)
        if not self._observer.plan(text):
            raise UsageError("nothing was asked: the plan was not agreed to", reason="NOT_AGREED")
        return plans

    def _stored(self, found: InputScan, store: ResponseCache, annotator: Annotator) -> int:
        if store.totals().replies == 0:
            return 0
        keys = {
            annotator.prompt.key(annotator.teacher.name, text, vote)
            for text in self._texts(found)
            for vote in range(annotator.votes)
        }
        return sum(bool(store.replies(key)) for key in keys)

    async def _ask(self, found: InputScan, session: Session) -> tuple[list[Tally], list[Annotator]]:
        """Ask one teacher after the other; where one stops, the others are not asked."""
        tallies: list[Tally] = []
        annotators: list[Annotator] = []
        first = next(self._texts(found), None)
        for priced in self._teachers if first is not None else ():
            annotator, stopped = await session.annotator(priced, first or "")
            tally = Tally(stopped=stopped)
            if stopped is None:
                runner = self._asker(priced, session, found.texts * annotator.votes)
                with _on_signal(functools.partial(runner.stop, "INTERRUPTED")):
                    tally = await runner.run(questions_about(annotator, self._texts(found)))
            tallies.append(tally)
            annotator.measure(session.store, found.gold)
            annotators.append(annotator)
            if tally.stopped is not None:
                break
        return tallies, annotators

    def _asker(self, priced: Priced, session: Session, total: int) -> RequestRunner | BatchRunner:
        teacher, quote = priced
        runner: RequestRunner | BatchRunner
        if self._batch is None:
            runner = session.runner(priced)
        else:
            price = quote.price if quote else NO_COST
            runner = BatchRunner(teacher, session.store, session.budget, self._batch, price=price)
        tally = runner.tally
        runner.progress = lambda: self._observer.tick(
            tally.answered + tally.stored, total, tally, session.budget
        )
        return runner

    def _texts(self, found: InputScan) -> Iterator[str]:
        """Yield the texts to ask about; the gold rows, which measure the teacher, come first."""
        yield from (text for text, _ in found.gold)
        for item in items(self._job):
            if item.reason is None and (item.row.label is None or self._job.relabel):
                yield item.sent

    def _write(
        self, store: ResponseCache, annotators: Sequence[Annotator], tallies: Sequence[Tally]
    ) -> RowCounts:
        """Write the labelled rows in input order, and a list of the others with the reasons."""
        job = self._job
        stopped = _stop_of(tallies)
        done = RowCounts(0, 0, Counter())
        with open_atomically(job.out) as out, open_atomically(failed_path(job.out)) as bad:
            for item in items(job):
                row: Example | None = item.row
                more: dict[str, object] = {}
                if item.reason is None and (item.row.label is None or job.relabel):
                    row, more = self._labelled(item, store, annotators)
                    done.labelled += row is not None
                elif item.row.label is not None:
                    done.kept += 1
                else:
                    row = None
                if row is not None:
                    out.write(encode_example(row, job.labels, more))
                    continue
                reason = item.reason or _reason(item, annotators, tallies) or stopped or "NOT_ASKED"
                done.failed[reason] += 1
                bad.write(msgspec.json.encode({"id": item.row.id, "reason": reason}) + b"\n")
        return done

    def _labelled(
        self, item: Item, store: ResponseCache, annotators: Sequence[Annotator]
    ) -> tuple[Example | None, dict[str, object]]:
        """Return the row with its label, None unless every teacher has answered.

        Also returns where the shares come from, and how far several teachers are apart, 0 to 1.
        """
        found = [annotator.shares(store, item.sent) for annotator in annotators]
        shares = [share for share in found if share is not None]
        if not shares or len(shares) < len(self._teachers):
            return None, {}
        pooled = combine(shares, [annotator.weight for annotator in annotators])
        apart = disagreement(shares)
        labelled = dataclasses.replace(
            item.row,
            label=self._job.labels[pooled.index(max(pooled))],
            probs=tuple(round(share, 6) for share in pooled),
            given=item.row.label,
            teacher=" ".join(annotator.teacher.name for annotator in annotators),
        )
        more: dict[str, object] = {
            "soft": " ".join(annotator.prompt.mode for annotator in annotators)
        }
        return labelled, more if apart is None else {**more, "disagreement": round(apart, 6)}


def _stop_of(tallies: Sequence[Tally]) -> str | None:
    return next((tally.stopped for tally in tallies if tally.stopped is not None), None)


def _reason(item: Item, annotators: Sequence[Annotator], tallies: Sequence[Tally]) -> str | None:
    """Return why a text has no label: the last failure of any of its questions."""
    for annotator, tally in zip(annotators, tallies, strict=False):
        for vote in range(annotator.votes):
            key = annotator.prompt.key(annotator.teacher.name, item.sent, vote)
            if key in tally.failures:
                return tally.failures[key]
    return None


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
