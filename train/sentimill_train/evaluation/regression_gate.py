"""The gate of `train --gate`: a new bundle may not be significantly worse than the previous one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from sentimill_train.metrics.significance import Comparison, most_lost

LEVEL: Final = 0.05
"""Chance of refusing a bundle that is as good as the previous one, over all sets together."""


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One figure on one set. p: one-sided, for the null hypothesis that the new bundle is no worse.

    adjusted: p by Holm. lost: the largest loss that is possible at 97.5 % confidence; None if it is
    not known.
    """

    name: str
    measure: str
    difference: float
    lost: float | None
    p: float
    adjusted: float

    @property
    def worse(self) -> bool:
        """Whether the new bundle is significantly worse here."""
        return self.adjusted < LEVEL


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """The result of the gate. `checks` has accuracy and macro-F1 of each set, in order."""

    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether the bundle may be written."""
        return not any(check.worse for check in self.checks)

    def sentence(self) -> str:
        """Return the outcome in one sentence, with the largest loss that is still possible."""
        worse = [check for check in self.checks if check.worse]
        if worse:
            found = "; ".join(
                f"{check.measure} on {check.name} by {-check.difference * 100:.1f} points"
                f" (p {check.adjusted:.2g})"
                for check in worse
            )
            return f"significantly worse than the previous bundle: {found}"
        lost, least = max(
            ((check.lost, check) for check in self.checks if check.lost is not None),
            key=lambda found: found[0],
        )
        return (
            f"not significantly worse than the previous bundle on any of {len(self.checks) // 2}"
            f" sets; at most {math.ceil(lost * 1000) / 10:.1f} points of {least.measure} may have"
            f" been lost on {least.name}"
        )


def decide(comparisons: Mapping[str, Comparison]) -> Verdict:
    """Return the verdict on a new bundle (second) against the previous (first), by name of the set.

    The tests are one-sided and paired: McNemar's mid-p for accuracy, the paired bootstrap for
    macro-F1. Holm's correction (1979) keeps all of them together at 5 %. At 5 % each, an equally
    good bundle would be refused about every other time on eight sets.
    """
    found = [
        Check(name=name, measure=measure, difference=figure.value, lost=lost, p=p, adjusted=p)
        for name, c in comparisons.items()
        for measure, figure, lost, p in (
            ("accuracy", c.accuracy, _lost(c), c.p_worse),
            ("macro-F1", c.macro_f1, max(0.0, -c.macro_f1.low) or None, c.p_worse_macro_f1),
        )
    ]
    adjusted = zip(found, holm([check.p for check in found]), strict=True)
    return Verdict(checks=tuple(msgspec.structs.replace(each, adjusted=q) for each, q in adjusted))


def _lost(comparison: Comparison) -> float:
    """Return how much accuracy may be lost: more than 0 even if no bootstrap draw lost any."""
    if comparison.accuracy.low < 0:
        return -comparison.accuracy.low
    return most_lost(comparison.only_first, comparison.rows)


def holm(values: Sequence[float]) -> list[float]:
    """Return the p values adjusted for multiple tests, in the order given (Holm 1979)."""
    adjusted = [0.0] * len(values)
    highest = 0.0
    for rank, i in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        highest = max(highest, min(1.0, values[i] * (len(values) - rank)))
        adjusted[i] = highest
    return adjusted
