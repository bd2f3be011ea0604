"""The summary of a job as JSON, and the estimate of a dry run."""

from __future__ import annotations

import time
from typing import Final

import msgspec
import numpy as np

from sentimill.scoring.answer_columns import Answers, AnswerSchema
from sentimill.scoring.checkpoint import RowCounts
from sentimill.scoring.formats.table import Position, Window
from sentimill.scoring.job import Score, Summary
from sentimill.scoring.output_format import OutputFormat
from sentimill.scoring.planning import open_table
from sentimill.scoring.scorers import Scorer
from sentimill.scoring.storage import STANDARD, identity

_TRIAL_ROWS: Final = 100


def useful_share(counts: RowCounts) -> float:
    """Return useful tokens over padded ones, 0 to 1; 1 where nothing was computed."""
    return counts.useful_tokens / counts.padded_tokens if counts.padded_tokens else 1.0


def as_json(done: Summary) -> dict[str, object]:
    """Return *done* as a JSON object."""
    return {
        **msgspec.to_builtins(done.counts),
        "useful_share": useful_share(done.counts),
        "resumed_rows": done.resumed_rows,
        "seconds": done.seconds,
        "outputs": list(done.outputs),
        "errors": list(done.errors),
    }


def try_out(job: Score, scorer: Scorer) -> dict[str, object]:
    """Score the first 100 rows of the first input, write nothing, and estimate the rest.

    The rows are also formatted as output, which is dropped, so that errors of the format are found.
    The estimate assumes that rows and bytes of the stored inputs are proportional.
    """
    units = job.plan()
    model = scorer.model()
    columns = job.columns(model)
    with open_table(units[0], job.layout, columns) as table:
        form = OutputFormat(units[0], table, job.layout, columns)
        form.head()
        window = next(table.windows(Position()), None)
        texts = window.texts[:_TRIAL_ROWS] if window is not None else []
        scorer.prepare(texts[:8])()  # the first call allocates memory
        began = time.monotonic()
        answers = scorer.prepare(texts)()
        seconds = time.monotonic() - began
        if window is not None:
            _write_nowhere(form, window, answers, columns)
    found: dict[str, object] = {
        "rows": len(texts),
        "failed": len(answers.errors),
        "errors": sorted({error.reason for error in answers.errors.values()}),
        "seconds": seconds,
        "added_columns": list(columns.names),
        "outputs": [unit.target for unit in units],
    }
    if window is not None and texts and units[0].source != STANDARD:
        size = sum(identity(unit.source, sample=False).size_bytes for unit in units)
        rows = round(len(window.texts) * size / max(1, window.consumed))
        found["estimated_rows"] = rows
        found["estimated_seconds"] = rows * seconds / len(texts)
    return found


def _write_nowhere(
    form: OutputFormat, window: Window, answers: Answers, columns: AnswerSchema
) -> None:
    """Format a window whose first rows have *answers*, and drop the output."""
    probs = np.full((len(window.texts), len(columns.labels)), np.nan, dtype=np.float32)
    probs[: len(answers.probs)] = answers.probs
    form.render(window, columns.add(Answers(probs, answers.errors)))
