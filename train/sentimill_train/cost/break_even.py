"""The arithmetic of a plan: the cost of a large model and of a student, and their break-even.

::

    large(V)   = V x (tokens in x price in + tokens out x price out)
    student(V) = once + months x (serving + upkeep) + V x (machine price / reviews an hour)

A batch job pays for the machine only while it works. A service pays for it all month, even without
reviews, but then nothing for each review until its machines are full.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Final

HOURS_A_MONTH: Final = 730.0
"""8,760 hours a year divided by 12, as in the price calculators of the clouds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Large:
    """A large model's price. usd_in, usd_out: US dollars a million tokens, discounts applied."""

    name: str
    tier: str
    usd_in: float
    usd_out: float
    batch: bool = False

    def times(self, factor: float) -> Large:
        """Return the model at a multiple of its price."""
        return replace(self, usd_in=self.usd_in * factor, usd_out=self.usd_out * factor)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The assumptions of the comparison. Each field is an option of `sentimill cost`.

    Tokens are those of the large model. prompt_tokens: instruction and examples of one call;
    reviews_a_call: how many reviews share them. utilisation: the share of the measured rate that a
    real job reaches. replicas: machines that are always on; 0 means a batch job. months: how long
    the student serves before it is trained again. People label the gold_rows, and the large model
    the label_rows.
    """

    prompt_tokens: float = 120.0
    review_tokens: float = 110.0
    answer_tokens: float = 6.0
    reviews_a_call: float = 1.0
    reviews_per_second: float
    usd_machine_hour: float
    utilisation: float = 0.5
    replicas: int = 0
    months: float = 12.0
    label_rows: float = 5_000.0
    usd_label_in: float = 4.0
    usd_label_out: float = 20.0
    gold_rows: float = 500.0
    usd_gold: float = 0.10
    engineering_days: float = 5.0
    upkeep_days_a_month: float = 0.25
    usd_day: float = 600.0
    training_hours: float = 3.0

    def tokens_in(self) -> float:
        """Tokens that the large model reads for one review."""
        return self.prompt_tokens / self.reviews_a_call + self.review_tokens

    def large_usd(self, large: Large) -> float:
        """US dollars that the large model costs for one review."""
        return (self.tokens_in() * large.usd_in + self.answer_tokens * large.usd_out) / 1e6

    def student_usd(self) -> float:
        """US dollars of machine time that the student costs for one review, while it works."""
        return self.usd_machine_hour / 3600 / (self.reviews_per_second * self.utilisation)

    def once_usd(self) -> dict[str, float]:
        """US dollars before the first review: labels, gold, people, training."""
        label = self.tokens_in() * self.usd_label_in + self.answer_tokens * self.usd_label_out
        return {
            "labels by the large model": self.label_rows * label / 1e6,
            "gold labels by people": self.gold_rows * self.usd_gold,
            "engineering": self.engineering_days * self.usd_day,
            "training": self.training_hours * self.usd_machine_hour,
        }

    def standing_usd(self) -> dict[str, float]:
        """US dollars over all months, independent of the volume."""
        serving = self.replicas * HOURS_A_MONTH * self.usd_machine_hour
        return {
            "always-on machines": self.months * serving,
            "upkeep": self.months * self.upkeep_days_a_month * self.usd_day,
        }

    def fixed_usd(self) -> float:
        """US dollars that the student costs at volume 0."""
        return sum(self.once_usd().values()) + sum(self.standing_usd().values())

    def capacity(self) -> float:
        """Reviews that the always-on machines can answer over all months; infinite for a job."""
        if self.replicas == 0:
            return math.inf
        seconds = self.months * HOURS_A_MONTH * 3600
        return self.replicas * seconds * self.reviews_per_second * self.utilisation

    def student_total(self, volume: float) -> float:
        """US dollars for *volume* reviews by the student, all costs included."""
        beyond = volume if self.replicas == 0 else max(0.0, volume - self.capacity())
        return self.fixed_usd() + beyond * self.student_usd()

    def ratio(self, large: Large) -> float:
        """The large model's cost of one review, divided by the student's machine time for it."""
        return self.large_usd(large) / self.student_usd()

    def break_even(self, large: Large) -> float:
        """Volume over all months from which the student is cheaper; infinite if it never is."""
        each = self.large_usd(large)
        volume = self.fixed_usd() / each
        if self.replicas and volume <= self.capacity():
            return volume
        margin = each - self.student_usd()
        if margin <= 0:
            return math.inf
        free = 0.0 if self.replicas == 0 else self.capacity() * self.student_usd()
        return (self.fixed_usd() - free) / margin


@dataclass(frozen=True, slots=True, kw_only=True)
class Swing:
    """One bar of the tornado chart: an assumption at half and at double its value.

    Break-even volumes are in reviews; ratios are those of `Plan.ratio`. `low` and `high` refer to
    the value of the assumption, not to the result.
    """

    name: str
    low: float
    high: float
    break_even_low: float
    break_even_high: float
    ratio_low: float
    ratio_high: float

    @property
    def width(self) -> float:
        """The factor between the two break-even volumes, 1 or more."""
        pair = sorted((self.break_even_low, self.break_even_high))
        return math.inf if pair[0] == 0 or math.isinf(pair[1]) else pair[1] / pair[0]


_OF_LARGE: Final = ("usd_in", "usd_out")


def sensitivity(plan: Plan, large: Large) -> list[Swing]:
    """Halve and double each assumption, and return the swings, the widest break-even first."""
    swings: list[Swing] = []
    for name in (*Plan.__dataclass_fields__, *_OF_LARGE):
        value = float(getattr(large if name in _OF_LARGE else plan, name))
        if value == 0 or name == "replicas":
            continue
        low = max(1.0, value / 2) if name == "reviews_a_call" else value / 2
        high = min(1.0, value * 2) if name == "utilisation" else value * 2  # a share is 1 at most
        break_even_low, ratio_low = _changed(plan, large, name, low)
        break_even_high, ratio_high = _changed(plan, large, name, high)
        swings.append(
            Swing(
                name=f"large model's {name}" if name in _OF_LARGE else name,
                low=low,
                high=high,
                break_even_low=break_even_low,
                break_even_high=break_even_high,
                ratio_low=ratio_low,
                ratio_high=ratio_high,
            )
        )
    return sorted(swings, key=lambda swing: -swing.width)


def _changed(plan: Plan, large: Large, name: str, value: float) -> tuple[float, float]:
    """Return break-even and ratio with another value for one assumption."""
    if name in _OF_LARGE:
        large = Large(**{**asdict(large), name: value})
    else:
        plan = Plan(**{**asdict(plan), name: value})
    return plan.break_even(large), plan.ratio(large)
