"""The report of a labelling run: its results, its cost, and how it ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec

from sentimill.errors import SomeRowsFailed, UnavailableError, UsageError
from sentimill_train.labelling.annotator import Annotator
from sentimill_train.labelling.job import LabelJob, failed_path
from sentimill_train.labelling.requests.budget import PICO, dollars
from sentimill_train.labelling.requests.response_cache import Totals


class Report(msgspec.Struct, kw_only=True):
    """The report of a run. The dollars include all runs with the same store.

    kept: rows that kept their label. failed: rows without a label, by reason.
    """

    rows: int
    labelled: int = 0
    kept: int = 0
    failed: Counter[str] = msgspec.field(default_factory=Counter)
    stopped: str | None = None
    spent_usd: float = 0.0
    at_risk_usd: float = 0.0
    expected_usd: float | None = None
    tokens_in: int = 0
    tokens_out: int = 0
    calls: int = 0
    faults: Counter[str] = msgspec.field(default_factory=Counter)
    seconds: float = 0.0
    teachers: list[dict[str, object]] = []

    def add_annotators(self, annotators: Sequence[Annotator], totals: Totals) -> None:
        """Add the counts of the annotators and their cost."""
        self.spent_usd, self.at_risk_usd = totals.spent / PICO, totals.at_risk / PICO
        for annotator in annotators:
            tally = annotator.tally
            self.stopped = self.stopped or tally.stopped
            self.tokens_in += tally.tokens_in
            self.tokens_out += tally.tokens_out
            self.calls += tally.calls
            self.faults += tally.faults
            self.teachers.append(
                {
                    "teacher": annotator.teacher.name,
                    "prompt": annotator.prompt.version,
                    "soft": annotator.prompt.mode,
                    "votes": annotator.votes,
                    "gold_rows": annotator.gold_rows,
                    "agreement_with_gold": annotator.agreement,
                    "temperature": annotator.temperature,
                }
            )


def raise_unless_complete(job: LabelJob, report: Report) -> None:
    """Raise the error of a run that did not label every row; its output is already written."""
    out, stopped = job.out, report.stopped
    wrote = f"{report.labelled:,} rows are labelled in {out}"
    if stopped == "BUDGET":
        raise SomeRowsFailed(
            f"the budget of {dollars(job.budget or 0)} is reached: {wrote}; run the same"
            " command with a larger --budget to continue, all paid answers are kept",
            reason="BUDGET_REACHED",
        )
    if stopped == "INTERRUPTED":
        raise SomeRowsFailed(
            f"interrupted: {wrote}; run the same command to continue", reason="INTERRUPTED"
        )
    if stopped in ("HTTP_401", "HTTP_402", "HTTP_403", "HTTP_404", "HTTP_405", "HTTP_429"):
        raise UsageError(
            f"the endpoint refuses every call ({stopped}): check key, credit, model and"
            f" --base-url; {wrote}",
            reason="TEACHER_REFUSES",
        )
    if stopped is not None:
        raise UnavailableError(
            f"the endpoint no longer answers ({stopped}): {wrote}; run the same command to"
            " continue, all paid answers are kept",
            reason="TEACHER_UNAVAILABLE",
        )
    if report.failed:
        raise SomeRowsFailed(
            f"{sum(report.failed.values()):,} of {report.rows:,} rows have no label, see"
            f" {failed_path(out)}; run the same command to try them again",
            reason="ROWS_FAILED",
        )
