"""Tests two claims against a plan: a hundredth of the cost, and an early break-even.

The claims (docs/proof.md) are: a small fine-tuned model costs at most a hundredth of a large
generic one, and pays back between 100 thousand and a million queries.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from sentimill_train.cost.break_even import Large, Plan, Swing, sensitivity
from sentimill_train.cost.prices import Rates

PaysBack = Literal["sooner", "as claimed", "later", "never"]

_CLAIMED_RATIO: Final = 100.0
CLAIMED_VOLUMES: Final = (100_000.0, 1_000_000.0)
"""The claimed range of the break-even."""

VOLUMES: Final = tuple(float(10**n) for n in range(3, 10))
"""A thousand to a billion reviews: the volumes of the table and the chart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One large model against the student.

    usd_million: for a million reviews by the large model. ratio: that divided by the cost of the
    student's machine time; ratio_all: the same for the totals at the plan's volume. break_even: in
    reviews; None if there is none. fixed_allowed_usd: the fixed costs of the student for which the
    break-even is at the upper end of the claim. hundredth: ratio is at least 100. hundredth_all:
    reviews from which this holds with all costs included; None if it never does.
    """

    model: str
    tier: str
    batch: bool
    usd_million: float
    ratio: float
    ratio_all: float
    break_even: float | None
    fixed_allowed_usd: float
    hundredth: bool
    hundredth_all: float | None
    pays_back: PaysBack
    totals_usd: tuple[float, ...]

    @property
    def name(self) -> str:
        """The name of the model, with `batch` for prices of the batch API."""
        return self.model + (" batch" if self.batch else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """Everything that `sentimill cost` prints. The totals are for `volumes`, in reviews.

    findings: where the claims hold, in sentences. swings_at: the break-even of the plan itself;
    infinite if there is none.
    """

    plan: Plan
    volume: float
    student_usd_million: float
    student_all_usd_million: float
    fixed_usd: dict[str, float]
    volumes: tuple[float, ...]
    student_totals_usd: tuple[float, ...]
    lines: tuple[Line, ...]
    findings: tuple[str, ...]
    swings_against: str
    swings_at: float
    swings: tuple[Swing, ...]
    notes: tuple[str, ...]


def choose(rates: Rates, models: tuple[str, ...]) -> list[Large]:
    """Return the named models, else the default of every tier, online and by batch."""
    found: list[Large] = []
    for name in models or tuple(names[0] for names in rates.tiers.values()):
        row = rates.model(name)
        online = Large(name=name, tier=rates.tier_of(name), usd_in=row.usd_in, usd_out=row.usd_out)
        found.append(online)
        if name not in rates.no_batch_price:
            found.append(replace(online.times(rates.batch_factor), batch=True))
    return found


def study(plan: Plan, larges: list[Large], volume: float, notes: tuple[str, ...]) -> Study:
    """Compare every large model with the student. The tornado chart is for the first one."""
    total = plan.student_total(volume)
    lines = tuple(_line(plan, large, volume) for large in larges)
    return Study(
        plan=plan,
        volume=volume,
        student_usd_million=plan.student_usd() * 1e6,
        student_all_usd_million=total / volume * 1e6,
        fixed_usd={**plan.once_usd(), **plan.standing_usd()},
        volumes=VOLUMES,
        student_totals_usd=tuple(plan.student_total(v) for v in VOLUMES),
        lines=lines,
        findings=tuple(_findings(lines)),
        swings_against=larges[0].name,
        swings_at=plan.break_even(larges[0]),
        swings=tuple(sensitivity(plan, larges[0])),
        notes=notes,
    )


def _line(plan: Plan, large: Large, volume: float) -> Line:
    each = plan.large_usd(large)
    ratio = plan.ratio(large)
    even = plan.break_even(large)
    low, high = CLAIMED_VOLUMES
    pays_back: PaysBack = "sooner" if even < low else "as claimed" if even <= high else "later"
    variable_usd = plan.student_total(high) - plan.fixed_usd()
    return Line(
        model=large.name,
        tier=large.tier,
        batch=large.batch,
        usd_million=each * 1e6,
        ratio=ratio,
        ratio_all=volume * each / plan.student_total(volume),
        break_even=_finite(even),
        fixed_allowed_usd=max(0.0, high * each - max(0.0, variable_usd)),
        hundredth=ratio >= _CLAIMED_RATIO,
        hundredth_all=_finite(plan.break_even(large.times(1 / _CLAIMED_RATIO))),
        pays_back="never" if math.isinf(even) else pays_back,
        totals_usd=tuple(v * each for v in VOLUMES),
    )


def _finite(volume: float) -> float | None:
    return None if math.isinf(volume) else volume


def _findings(lines: Sequence[Line]) -> Iterator[str]:
    """Yield a sentence for each claim and outcome, with the models for which it holds or fails."""
    for held, words in ((True, "holds"), (False, "does not hold")):
        if names := [line.name for line in lines if line.hundredth is held]:
            yield f"a hundredth of the cost, machine time alone: {words} against {', '.join(names)}"
    told = {
        "sooner": "sooner than claimed",
        "as claimed": "as claimed, between 100 K and 1 M reviews",
        "later": "later than claimed",
        "never": "never",
    }
    for pays_back, words in told.items():
        if names := [line.name for line in lines if line.pays_back == pays_back]:
            yield f"pays back {words}: against {', '.join(names)}"
