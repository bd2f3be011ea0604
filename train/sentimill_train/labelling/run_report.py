"""The report of a labelling run: what was done, what it cost, and how it ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec

from sentimill.errors import SomeRowsFailed, UnavailableError, UsageError
from sentimill_train.labelling.annotator import Annotator
from sentimill_train.labelling.cost_estimate import CostEstimate
from sentimill_train.labelling.job import InputScan, LabelJob, failed_path
from sentimill_train.labelling.requests.budget import PICO, dollars
from sentimill_train.labelling.requests.request_loop import Tally
from sentimill_train.labelling.requests.response_cache import ResponseCache


class Report(msgspec.Struct, kw_only=True):
    """The report of a run. The dollars count all runs with the same store."""

    rows: int
    labelled: int
    kept: int
    failed: dict[str, int]
    stopped: str | None
    spent_usd: float
    at_risk_usd: float
    expected_usd: float | None
    tokens_in: int
    tokens_out: int
    calls: int
    faults: dict[str, int]
    seconds: float
    teachers: list[dict[str, object]]


class RowCounts(msgspec.Struct):
    """How many rows were labelled, kept their label, or failed (by reason)."""

    labelled: int
    kept: int
    failed: Counter[str]


def make_report(
    found: InputScan,
    store: ResponseCache,
    plans: Sequence[CostEstimate],
    tallies: Sequence[Tally],
    annotators: Sequence[Annotator],
    written: RowCounts,
) -> Report:
    """Return the report of a run that has ended."""
    totals = store.totals()
    costs = [plan.cost for plan in plans if plan.cost is not None]
    return Report(
        rows=found.rows,
        labelled=written.labelled,
        kept=written.kept,
        failed=dict(sorted(written.failed.items())),
        stopped=next((t.stopped for t in tallies if t.stopped is not None), None),
        spent_usd=totals.spent / PICO,
        at_risk_usd=totals.at_risk / PICO,
        expected_usd=sum(costs) / PICO if costs else None,
        tokens_in=sum(t.tokens_in for t in tallies),
        tokens_out=sum(t.tokens_out for t in tallies),
        calls=sum(t.calls for t in tallies),
        faults=dict(sorted(sum((t.faults for t in tallies), Counter()).items())),
        seconds=0.0,
        teachers=[
            {
                "teacher": annotator.teacher.name,
                "prompt": annotator.prompt.version,
                "soft": annotator.prompt.mode,
                "votes": annotator.votes,
                "gold_rows": annotator.gold_rows,
                "agreement_with_gold": annotator.agreement,
                "temperature": annotator.temperature,
            }
            for annotator in annotators
        ],
    )


def raise_unless_complete(job: LabelJob, report: Report) -> None:
    """Raise the error of a run that did not label every row; its output is already written."""
    out, stopped = job.out, report.stopped
    wrote = f"{report.labelled:,} rows are labelled in {out}"
    if stopped == "BUDGET":
        raise SomeRowsFailed(
            f"the budget of {dollars(job.budget or 0)} is reached: {wrote}; run the same"
            " command with a larger --budget to go on, what is paid for is kept",
            reason="BUDGET_REACHED",
        )
    if stopped == "INTERRUPTED":
        raise SomeRowsFailed(
            f"interrupted: {wrote}; run the same command to go on", reason="INTERRUPTED"
        )
    if stopped in ("HTTP_401", "HTTP_402", "HTTP_403", "HTTP_404", "HTTP_405", "HTTP_429"):
        raise UsageError(
            f"the endpoint refuses every call ({stopped}): check key, credit, model and"
            f" --base-url; {wrote}",
            reason="TEACHER_REFUSES",
        )
    if stopped is not None:
        raise UnavailableError(
            f"the endpoint no longer answers ({stopped}): {wrote}; run the same command to go"
            " on, what is paid for is kept",
            reason="TEACHER_UNAVAILABLE",
        )
    if report.failed:
        raise SomeRowsFailed(
            f"{sum(report.failed.values()):,} of {report.rows:,} rows have no label, see"
            f" {failed_path(out)}; run the same command to try them again",
            reason="ROWS_FAILED",
        )
