"""Defines `Judgement`, the complete evaluation of a bundle. It holds no text of reviews."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import msgspec
import numpy as np

from sentimill.errors import InputError
from sentimill_train.calibration.abstention import Point, augrc, aurc, risk_coverage
from sentimill_train.evaluation.behaviour import Result
from sentimill_train.evaluation.labelled_set import Answered
from sentimill_train.evaluation.slices import Slice, slice_by_kind
from sentimill_train.metrics.classification import (
    Answers,
    Bin,
    Floats,
    accuracy,
    brier,
    cells,
    ece,
    label_kappa,
    label_mae,
    label_values,
    macro_f1,
    neutral_share,
    nll,
    quadratic_kappa,
    reliability,
    star_mae,
    two_class_accuracy,
)
from sentimill_train.metrics.intervals import DRAWS, Figure, figures, share
from sentimill_train.metrics.significance import Comparison, compare

Measure = Callable[[Answers, Floats], Floats]


class LabelResult(msgspec.Struct, frozen=True, kw_only=True):
    """One label on one set. rows: how many rows have it as gold label."""

    label: str
    rows: int
    precision: Figure
    recall: Figure
    f1: Figure


class SetResult(msgspec.Struct, frozen=True, kw_only=True):
    """One set.

    rows: evaluated rows. unlabelled, failed, learnt: rows left out because they had no label, could
    not be classified, or had a text of the training rows. abstained: share of rows below the
    bundle's threshold. answered_error: share of wrong answers among the others; None if there are
    no others. confusion: gold down, predicted across.
    """

    name: str
    sha256: str
    part: str
    rows: int
    unlabelled: int
    failed: int
    learnt: int
    abstained: float
    figures: dict[str, Figure]
    labels: tuple[LabelResult, ...]
    confusion: tuple[tuple[int, ...], ...]
    reliability: tuple[Bin, ...]
    curve: tuple[Point, ...]
    slices: tuple[Slice, ...]
    answered_error: Figure | None = None

    def weak_slices(self) -> list[Slice]:
        """Return the `weak` slices, the worst first."""
        return sorted((s for s in self.slices if s.weak), key=lambda s: s.accuracy.high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """Another model for the same rows.

    probs: texts to (rows, labels) in the bundle's order; NaN for a text that the model refuses.
    """

    name: str
    kind: str
    note: str
    probs: Callable[[Sequence[str]], Floats]


class RivalResult(msgspec.Struct, frozen=True, kw_only=True):
    """A rival on one set; `comparison` is this bundle (second) against the rival (first).

    refused: how many rows the rival cannot read; they are left out for both.
    """

    name: str
    figures: dict[str, Figure]
    comparison: Comparison
    refused: int = 0


class Rival(msgspec.Struct, frozen=True, kw_only=True):
    """Another model on the same rows. note: how it was made.

    kind: `baseline`, `bundle`, or `base`, which is the model that training started from.
    """

    name: str
    kind: str
    note: str
    sets: tuple[RivalResult, ...]

    def sentence(self) -> str:
        """Say where this bundle beats the rival; for the base, give the figures of both."""
        said = [self._verdict()]
        said += [
            f"{self.name} cannot read {on.refused} rows of {on.name}, which are left out for both."
            for on in self.sets
            if on.refused
        ]
        return " ".join(said)

    def _verdict(self) -> str:
        if self.kind == "base":
            return " ".join(self._before_and_after(on) for on in self.sets)
        beaten = [s.name for s in self.sets if s.comparison.verdict == "better"]
        if len(beaten) == len(self.sets):
            return f"The bundle beats {self.name} on every set (McNemar, 5 %)."
        losing = [s.name for s in self.sets if s.comparison.verdict == "worse"]
        even = [s.name for s in self.sets if s.comparison.verdict == "no clear difference"]
        parts = [f"is worse than it on {', '.join(losing)}"] if losing else []
        parts += [f"shows no clear difference on {', '.join(even)}"] if even else []
        return (
            f"The bundle does not beat {self.name} on every set: it {' and '.join(parts)}"
            " (McNemar, 5 %)."
        )

    def _before_and_after(self, on: RivalResult) -> str:
        before = [on.figures[name].value for name in ("accuracy", "macro_f1")]
        gained = (on.comparison.accuracy.value, on.comparison.macro_f1.value)
        after = [value + gain for value, gain in zip(before, gained, strict=True)]
        return (
            f"On {on.name}, the base {self.name} has an accuracy of {before[0]:.1%} and a macro-F1"
            f" of {before[1]:.1%}; the bundle has {after[0]:.1%} and {after[1]:.1%}"
            f" ({on.comparison.verdict})."
        )


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """Which bundle was evaluated, and how. graph_sha256: of the graph that answered."""

    name: str
    version: str
    graph_sha256: str
    precision: str
    created: str
    labels: tuple[str, ...]
    threshold: float | None


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """The content of `metrics.json`. created: UTC in ISO 8601. draws, seed: of the bootstrap."""

    bundle: Judged
    created: str
    draws: int
    seed: int
    sets: tuple[SetResult, ...]
    behaviour: tuple[Result, ...] = ()
    rivals: tuple[Rival, ...] = ()

    def failed_tests(self) -> list[Result]:
        """Return the behaviour tests that have a failure, the worst first."""
        failed = [test for test in self.behaviour if test.failures]
        return sorted(failed, key=lambda test: -test.rate.low)


_MEASURES: Final[dict[str, Measure]] = {
    "accuracy": accuracy,
    "macro_f1": macro_f1,
    "ece": ece,
    "brier": brier,
    "nll": nll,
    "aurc": aurc,
    "augrc": augrc,
}


def _measures(answers: Answers) -> dict[str, Measure]:
    """Return the measures that apply to *answers*, in the order of the report."""
    found = dict(_MEASURES)
    labels = answers.labels
    if {"negative", "positive"} <= set(labels):
        if _polar(answers):
            found["two_class_accuracy"] = two_class_accuracy
        if "neutral" in labels:
            found["neutral_share"] = neutral_share
        if answers.stars is not None:
            found |= {"quadratic_kappa": quadratic_kappa, "star_mae": star_mae}
    if label_values(labels) is not None:
        found |= {"label_kappa": label_kappa, "label_mae": label_mae}
    return found


def measured(answers: Answers) -> dict[str, float]:
    """Return every figure that applies to *answers*, without intervals."""
    one = np.ones((1, len(answers.gold)))
    return {name: float(found(answers, one)[0]) for name, found in _measures(answers).items()}


def judge_set(answered: Answered, *, draws: int = DRAWS, seed: int = 0) -> SetResult:
    """Return every figure of one answered set, with intervals."""
    answers = answered.answers
    rows, size = len(answers.gold), len(answers.labels)
    statistics = {label: partial(_f1, answers, i) for i, label in enumerate(answers.labels)}
    f1 = figures(rows, statistics, draws=draws, seed=seed)
    given = np.array([not prediction.abstained for prediction in answered.predictions])
    wrong = int((given & ~answers.correct).sum())
    confusion = cells(answers.gold, answers.predicted, size, np.ones((1, rows)))[0]
    return SetResult(
        name=answered.sample.name,
        sha256=answered.sample.sha256,
        part=answered.sample.part,
        rows=rows,
        unlabelled=answered.sample.unlabelled,
        failed=answered.failed,
        learnt=answered.sample.learnt,
        abstained=float((~given).mean()),
        answered_error=share(wrong, int(given.sum())) if given.any() else None,
        figures=_figures(answers, draws=draws, seed=seed),
        labels=tuple(
            _label_result(answers, place, f1[label]) for place, label in enumerate(answers.labels)
        ),
        confusion=tuple(tuple(int(cell) for cell in row) for row in confusion),
        reliability=tuple(reliability(answers)),
        curve=tuple(risk_coverage(answers)),
        slices=tuple(slice_by_kind(answered.examples, answers)),
    )


def _figures(answers: Answers, *, draws: int, seed: int) -> dict[str, Figure]:
    """Return every figure that applies to *answers*; shares of rows get Wilson's interval.

    If every row is right, the interval of a bootstrap would have no width.
    """
    rows = len(answers.gold)
    shares = {"accuracy": rows, "neutral_share": rows, "two_class_accuracy": _polar(answers)}
    statistics = {name: partial(measure, answers) for name, measure in _measures(answers).items()}
    return {
        name: share(round(found.value * shares[name]), shares[name]) if name in shares else found
        for name, found in figures(rows, statistics, draws=draws, seed=seed).items()
    }


def _polar(answers: Answers) -> int:
    """Return how many rows are negative or positive."""
    polar = [i for i, label in enumerate(answers.labels) if label in ("negative", "positive")]
    return int(np.isin(answers.gold, polar).sum())


def _label_result(answers: Answers, place: int, f1: Figure) -> LabelResult:
    """Return the figures of one label; a figure without rows is 0."""
    gold, said = answers.gold == place, answers.predicted == place
    hits, either = int((gold & said).sum()), int((gold | said).sum())
    return LabelResult(
        label=answers.labels[place],
        rows=int(gold.sum()),
        precision=share(hits, int(said.sum())),
        recall=share(hits, int(gold.sum())),
        f1=msgspec.structs.replace(f1, rows=either) if either else share(0, 0),
    )


def _f1(answers: Answers, place: int, weights: Floats) -> Floats:
    gold = (answers.gold == place).astype(np.float64)
    said = (answers.predicted == place).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((weights @ (gold * said)) / (weights @ ((gold + said) / 2)))


def judge_rival(
    contender: Contender, answered: Sequence[Answered], *, draws: int = DRAWS, seed: int = 0
) -> Rival:
    """Return the figures of *contender* on the same rows, and its comparison with the bundle.

    Raises:
        InputError: NOTHING_CLASSIFIED if it refuses every text of a set.
    """
    sets = []
    for one in answered:
        probs = contender.probs([example.text for example in one.examples])
        read = np.isfinite(probs[:, 0])
        if not read.any():
            raise InputError(
                f"{contender.name} cannot read any text of {one.sample.name}: compare with another",
                reason="NOTHING_CLASSIFIED",
            )
        ours = one.answers.take(read)
        rival = replace(ours, probs=probs[read])
        sets.append(
            RivalResult(
                name=one.sample.name,
                figures=_figures(rival, draws=draws, seed=seed),
                comparison=compare(
                    ours.gold,
                    rival.predicted,
                    ours.predicted,
                    labels=len(ours.labels),
                    draws=draws,
                    seed=seed,
                ),
                refused=int((~read).sum()),
            )
        )
    return Rival(name=contender.name, kind=contender.kind, note=contender.note, sets=tuple(sets))
