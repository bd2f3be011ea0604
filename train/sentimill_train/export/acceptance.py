"""The gate of a precision: near enough to fp32 on real rows, and the same in any company."""

from __future__ import annotations

from typing import Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from sentimill.errors import InputError
from sentimill.text.tokenizer import pad
from sentimill_train.data.tokenized import Rows
from sentimill_train.export.onnx import Run
from sentimill_train.metrics.classification import Answers, ece, macro_f1

__all__ = [
    "FEWEST_ROWS",
    "NotJudged",
    "Outcome",
    "PrecisionCheck",
    "check_precision",
    "is_invariant",
]

FEWEST_ROWS: Final = 2000
"""Held-out rows that the gate needs: at 99.5 % agreement that is 10 rows that may differ."""

AGREEMENT: Final = 0.995
F1_DROP: Final = 0.002
ECE_CHANGE: Final = 0.01

_COMPANY: Final = 32


class PrecisionCheck(msgspec.Struct, frozen=True, kw_only=True):
    """A precision beside fp32 on the same rows.

    agreement: share of rows with the same label. macro_f1_drop: fp32's minus its own. ece_change:
    its own minus fp32's. invariant: from `is_invariant`. golden: the bundle's golden texts come out
    near enough for it to load. max_logit_difference: the largest over all rows and labels. engine:
    what computed it. temperature: its own, which it was judged with, fitted on `fitted_on` rows
    that are none of these; fp32's where that is 0.
    """

    precision: str
    engine: str
    rows: int
    agreement: float
    macro_f1_drop: float
    ece_change: float
    invariant: bool
    golden: bool
    max_logit_difference: float
    temperature: float
    fitted_on: int

    @property
    def passed(self) -> bool:
        """Whether the precision may be in a bundle."""
        return (
            self.agreement >= AGREEMENT
            and self.macro_f1_drop <= F1_DROP
            and abs(self.ece_change) <= ECE_CHANGE
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
        return (
            f"{self.precision} {'passes' if self.passed else 'does not pass'} its gate on"
            f" {self.rows:,} rows in {self.engine}, with {calibrated}:"
            f" {self.agreement:.2%} of the labels are those of fp32 (at least {AGREEMENT:.1%}),"
            f" macro-F1 drops by {self.macro_f1_drop * 100:.2f} points (at most"
            f" {F1_DROP * 100:.1f}), ECE changes by {self.ece_change:+.4f} (at most {ECE_CHANGE}),"
            f" a text {'gets the same bits' if self.invariant else 'gets other bits'} in other"
            f" company, and the golden texts {'come out' if self.golden else 'do not come out'}."
        )


class NotJudged(msgspec.Struct, frozen=True, kw_only=True):
    """A precision that this machine cannot run, and *why*, in words that go behind a colon."""

    precision: str
    why: str
    passed: Literal[False] = False

    def sentence(self) -> str:
        """Return the outcome in one sentence."""
        return f"{self.precision} was not judged, and so is not in the bundle: {self.why}."


Outcome = PrecisionCheck | NotJudged
"""What is said of a precision that was tried."""


def check_precision(
    precision: str,
    reference: Answers,
    found: Answers,
    *,
    invariant: bool,
    golden: bool,
    max_logit_difference: float,
    engine: str,
    temperature: float,
    fitted_on: int = 0,
) -> PrecisionCheck:
    """Compare the answers of *precision* with those of fp32 to the same held-out rows.

    Raises:
        InputError: TOO_FEW_ROWS.
    """
    rows = len(reference.gold)
    if rows < FEWEST_ROWS:
        raise InputError(
            f"the gate of {precision} needs {FEWEST_ROWS:,} labelled held-out rows and was given"
            f" {rows:,}: give more with --on",
            reason="TOO_FEW_ROWS",
        )
    one = np.ones((1, rows))
    return PrecisionCheck(
        precision=precision,
        engine=engine,
        rows=rows,
        agreement=float((reference.predicted == found.predicted).mean()),
        macro_f1_drop=float((macro_f1(reference, one) - macro_f1(found, one))[0]),
        ece_change=float((ece(found, one) - ece(reference, one))[0]),
        invariant=invariant,
        golden=golden,
        max_logit_difference=max_logit_difference,
        temperature=temperature,
        fitted_on=fitted_on,
    )


def is_invariant(run: Run, rows: Rows, pad_id: int, *, seed: int = 0, texts: int = 16) -> bool:
    """Whether a text gets the same bits alone and among others, in any order, at any padding.

    Some of the others are the oddest rows there can be: random ids, and one id over and over, whose
    states are far from those of reviews. The first text is in the largest batch of the longest
    rows, the others among a random number of them padded to a random length: an engine may add in
    another order by either. One long text is cut to every length, for where an engine works in
    blocks, a text may leave one token over for the last.
    """
    draw = np.random.default_rng(seed)
    bounds = zip(rows.starts[:-1], rows.starts[1:], strict=True)
    every = [rows.ids[start:end].astype(np.int64) for start, end in bounds]
    longest = max(len(ids) for ids in every)
    most = int(max(ids.max() for ids in every)) + 1
    for number, i in enumerate(draw.permutation(len(every))[:texts].tolist()):
        width, company = longest, _COMPANY
        if number:
            width = int(draw.integers(len(every[i]), longest, endpoint=True))
            company = int(draw.integers(3, _COMPANY, endpoint=True))
        alone = run(*pad([every[i]], pad_id))[0]
        hostile = [draw.integers(0, most, width), np.full(width, every[0][0], dtype=np.int64)]
        mates = [every[k][:width] for k in draw.integers(0, len(every), company - 3).tolist()]
        batch = [every[i], *hostile, *mates]
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
