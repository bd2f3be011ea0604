"""The gate of a precision: it must be close to fp32 on real rows, and independent of the batch."""

from __future__ import annotations

from typing import Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from sentimill.errors import InputError
from sentimill.text.tokenizer import pad
from sentimill_train.data.tokenized import NO_LABEL, Rows
from sentimill_train.export.onnx import Run
from sentimill_train.metrics.classification import Answers, Floats, ece, macro_f1
from sentimill_train.metrics.intervals import Figure, error_bound, figures

FEWEST_ROWS: Final = 300
"""Rows that the gate needs, with or without labels. With fewer, even full agreement would not prove
`SURE_AGREEMENT`: 0.99 ** 299 is just below 5 %."""

MANY_LABELS: Final = 2000
"""From this many labelled rows on, the measured changes of F1 and ECE decide. With fewer rows the
sampling error is larger than the limits, so the intervals of the changes decide."""

AGREEMENT: Final = 0.995
SURE_AGREEMENT: Final = 0.99
F1_DROP: Final = 0.002
ECE_CHANGE: Final = 0.01

_SURENESS: Final = 0.95
_BATCH_ROWS: Final = 32
_INVARIANCE_TEXTS: Final = 16


class PrecisionCheck(msgspec.Struct, frozen=True, kw_only=True):
    """A precision compared with fp32 on the same rows.

    agreement: share of the rows with the same label. sure_agreement: the lower end of its one-sided
    95 % interval (Clopper and Pearson 1934). macro_f1_drop: of fp32 minus that of the precision;
    ece_change: of the precision minus that of fp32; both with 95 % intervals on the labelled rows,
    None without any. invariant: from `is_invariant`. golden: the probs of the golden texts are
    close enough for the bundle to load. max_logit_difference: the largest over all rows and labels.
    engine: the one that ran the precision. temperature: fitted on `fitted_on` other rows; that of
    fp32 if `fitted_on` is 0. threshold: chosen on the same rows; None keeps that of the bundle.
    """

    precision: str
    engine: str
    rows: int
    agreement: float
    sure_agreement: float
    macro_f1_drop: Figure | None
    ece_change: Figure | None
    invariant: bool
    golden: bool
    max_logit_difference: float
    temperature: float
    fitted_on: int
    threshold: float | None = None

    @property
    def passed(self) -> bool:
        """Whether the precision may be in a bundle."""
        return (
            self.agreement >= AGREEMENT
            and self.sure_agreement >= SURE_AGREEMENT
            and _within(self.macro_f1_drop, -1.0, F1_DROP)
            and _within(self.ece_change, -ECE_CHANGE, ECE_CHANGE)
            and self.invariant
            and self.golden
        )

    def sentence(self) -> str:
        """Return the outcome in one sentence, with every figure and its limit."""
        calibrated = (
            f"its temperature {self.temperature:.4f} fitted on {self.fitted_on:,} validation rows"
            if self.fitted_on
            else f"fp32's temperature {self.temperature:.4f}"
        )
        if self.threshold is not None:
            calibrated += f" and the threshold {self.threshold:.4f} chosen on them"
        return (
            f"{self.precision} {'passes' if self.passed else 'does not pass'} its gate on"
            f" {self.rows:,} rows in {self.engine}, with {calibrated}:"
            f" {self.agreement:.2%} of the labels are those of fp32 (at least {AGREEMENT:.1%}),"
            f" with a lower bound of {self.sure_agreement:.2%} (at least {SURE_AGREEMENT:.1%}),"
            f"{self._labelled()} a text gets"
            f" {'the same bits' if self.invariant else 'other bits'} in other batches, and the"
            f" golden texts get {'the same' if self.golden else 'other'} probs."
        )

    def _labelled(self) -> str:
        """Return the part of the sentence on the labelled rows."""
        f1, ece_ = self.macro_f1_drop, self.ece_change
        if f1 is None or ece_ is None:
            return " no row has a label to compare F1 and calibration by,"
        few = "" if f1.rows >= MANY_LABELS else f" on {f1.rows:,} labelled rows, by the intervals,"
        return (
            f"{few} macro-F1 drops by {f1.value * 100:.2f} points ({f1.low * 100:.2f} to"
            f" {f1.high * 100:.2f}, at most {F1_DROP * 100:.1f}), ECE changes by"
            f" {ece_.value:+.4f} ({ece_.low:+.4f} to {ece_.high:+.4f}, at most {ECE_CHANGE}),"
        )


def _within(change: Figure | None, least: float, most: float) -> bool:
    """Whether *change*, or with few labels a part of its interval, is within the limits."""
    if change is None:
        return True
    if change.rows >= MANY_LABELS:
        return least <= change.value <= most
    return change.high >= least and change.low <= most


class NotJudged(msgspec.Struct, frozen=True, kw_only=True):
    """A precision that this machine cannot run. why: the reason, as the end of a sentence."""

    precision: str
    why: str
    passed: Literal[False] = False

    def sentence(self) -> str:
        """Return the outcome in one sentence."""
        return f"{self.precision} was not judged, and so is not in the bundle: {self.why}."


Outcome = PrecisionCheck | NotJudged
"""The result for a precision that was tried."""


def check_row_count(rows: int) -> None:
    """Raise InputError TOO_FEW_ROWS if the gate cannot decide. Call it before any graph runs."""
    if rows < FEWEST_ROWS:
        raise InputError(
            f"the gate needs {FEWEST_ROWS:,} held-out rows but got {rows:,}: give more with"
            " --on; they need no labels",
            reason="TOO_FEW_ROWS",
        )


def compare_answers(
    reference: Answers, found: Answers
) -> tuple[float, float, Figure | None, Figure | None]:
    """Return `agreement`, `sure_agreement`, `macro_f1_drop` and `ece_change` of a `PrecisionCheck`.

    reference, found: the answers of fp32 and of the other precision to the same held-out rows. The
    gold of a row without a label is NO_LABEL.
    """
    rows, other = len(reference.gold), int((reference.predicted != found.predicted).sum())
    bound = float(error_bound(other, rows, 1 - _SURENESS))
    return 1 - other / rows, 1 - bound, *_changes(reference, found)


def _changes(reference: Answers, found: Answers) -> tuple[Figure | None, Figure | None]:
    """Return the drop of macro-F1 and the change of ECE on the labelled rows; None without any."""
    labelled = reference.gold != NO_LABEL
    if not labelled.any():
        return None, None
    before, after = reference.take(labelled), found.take(labelled)

    def drop(weights: Floats) -> Floats:
        return macro_f1(before, weights) - macro_f1(after, weights)

    def change(weights: Floats) -> Floats:
        return ece(after, weights) - ece(before, weights)

    changes = figures(int(labelled.sum()), {"drop": drop, "change": change})
    return changes["drop"], changes["change"]


def is_invariant(run: Run, rows: Rows, pad_id: int) -> bool:
    """Whether a text gets the same bits alone and in a batch, in any order, at any padding.

    Each batch has two extreme rows, random ids and one repeated id, whose states are far from those
    of reviews. The first text is tested in the largest batch of the longest rows. The others are
    tested in batches of random size and padding, since either may change the order in which an
    engine adds. One long text is cut to every length: if an engine works in blocks, one token may
    be left for the last block.
    """
    draw = np.random.default_rng(0)
    bounds = zip(rows.starts[:-1], rows.starts[1:], strict=True)
    every = [rows.ids[start:end].astype(np.int64) for start, end in bounds]
    longest = max(len(ids) for ids in every)
    most = int(max(ids.max() for ids in every)) + 1
    for number, i in enumerate(draw.permutation(len(every))[:_INVARIANCE_TEXTS].tolist()):
        width, size = longest, _BATCH_ROWS
        if number:
            width = int(draw.integers(len(every[i]), longest, endpoint=True))
            size = int(draw.integers(3, _BATCH_ROWS, endpoint=True))
        alone = run(*pad([every[i]], pad_id))[0]
        odd = [draw.integers(0, most, width), np.full(width, every[0][0], dtype=np.int64)]
        mates = [every[k][:width] for k in draw.integers(0, len(every), size - 3).tolist()]
        batch = [every[i], *odd, *mates]
        order = draw.permutation(len(batch))
        among = run(*pad([batch[k] for k in order], pad_id))[int(np.argsort(order)[0])]
        if not _same(alone, among):
            return False
    long = max(every, key=len)
    for tokens in range(1, longest):
        alone = run(*pad([long[:tokens]], pad_id))[0]
        mate = draw.integers(0, most, draw.integers(tokens + 1, longest, endpoint=True))
        if not _same(alone, run(*pad([long[:tokens], mate], pad_id))[0]):
            return False
    return True


def _same(first: NDArray[np.float32], second: NDArray[np.float32]) -> bool:
    return first.tobytes() == second.tobytes()
