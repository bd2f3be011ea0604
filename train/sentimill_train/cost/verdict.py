"""The article's two claims against a plan, model by model: a hundredth of the cost, paid back soon.

The claims as this project's README states them: a small fine-tuned model costs a hundredth of a
large generic one or less, and pays back between 100 thousand and a million queries.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from sentimill_train.cost.plan import Large, Plan, Swing, sensitivity
from sentimill_train.cost.rates import Rates

__all__ = ["VOLUMES", "Line", "PaysBack", "Study", "choose", "study"]

PaysBack = Literal["sooner", "as claimed", "later", "never"]

_CLAIMED_RATIO: Final = 100.0
_CLAIMED_VOLUMES: Final = (100_000.0, 1_000_000.0)

VOLUMES: Final = tuple(float(10**n) for n in range(3, 10))
"""A thousand to a billion reviews: where the lines are compared and drawn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One large model against the student.

    usd_million: for a million reviews by the large model. ratio: that over the student's machine
    time alone; ratio_all: totals at the plan's volume, everything included. break_even: reviews;
    None where the student never pays. fixed_allowed_usd: what the student's fixed costs may be for
    a break-even at the claim's upper end.
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
    pays_back: PaysBack
    totals_usd: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """Everything that `sentimill cost` prints. totals_usd go with `volumes`, in reviews."""

    plan: Plan
    volume: float
    student_usd_million: float
    student_all_usd_million: float
    fixed_usd: dict[str, float]
    volumes: tuple[float, ...]
    student_totals_usd: tuple[float, ...]
    lines: tuple[Line, ...]
    swings_against: str
    swings: tuple[Swing, ...]
    notes: tuple[str, ...]


def choose(rates: Rates, models: tuple[str, ...]) -> list[Large]:
    """Return the named models, else the default of every tier, online and by batch."""
    names = models or tuple(names[0] for names in rates.tiers.values())
    found: list[Large] = []
    for name in names:
        row = rates.model(name)
        tier = rates.tier_of(name)
        found.append(Large(name=name, tier=tier, usd_in=row.usd_in, usd_out=row.usd_out))
        if name not in rates.no_batch_price:
            part = rates.batch_factor
            found.append(
                Large(
                    name=name,
                    tier=tier,
                    usd_in=row.usd_in * part,
                    usd_out=row.usd_out * part,
                    batch=True,
                )
            )
    return found


def study(plan: Plan, larges: list[Large], volume: float, notes: tuple[str, ...]) -> Study:
    """Cost every large model against the student; the tornado is drawn against the first."""
    total = plan.student_total(volume)
    return Study(
        plan=plan,
        volume=volume,
        student_usd_million=plan.student_usd() * 1e6,
        student_all_usd_million=total / volume * 1e6,
        fixed_usd={**plan.once_usd(), **plan.standing_usd()},
        volumes=VOLUMES,
        student_totals_usd=tuple(plan.student_total(v) for v in VOLUMES),
        lines=tuple(_line(plan, large, volume) for large in larges),
        swings_against=larges[0].name,
        swings=tuple(sensitivity(plan, larges[0])),
        notes=notes,
    )


def _line(plan: Plan, large: Large, volume: float) -> Line:
    each = plan.large_usd(large)
    ratio = plan.ratio(large)
    even = plan.break_even(large)
    upper = _CLAIMED_VOLUMES[1]
    return Line(
        model=large.name,
        tier=large.tier,
        batch=large.batch,
        usd_million=each * 1e6,
        ratio=ratio,
        ratio_all=volume * each / plan.student_total(volume),
        break_even=None if even == float("inf") else even,
        fixed_allowed_usd=max(0.0, upper * each - max(0.0, _variable(plan, upper))),
        hundredth=ratio >= _CLAIMED_RATIO,
        pays_back=_pays_back(even),
        totals_usd=tuple(v * each for v in VOLUMES),
    )


def _variable(plan: Plan, volume: float) -> float:
    return plan.student_total(volume) - plan.fixed_usd()


def _pays_back(volume: float) -> PaysBack:
    low, high = _CLAIMED_VOLUMES
    if volume == float("inf"):
        return "never"
    if volume < low:
        return "sooner"
    return "as claimed" if volume <= high else "later"
