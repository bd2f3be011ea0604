"""Dated prices of hosted models and of machines, and the measured rate of the student.

The model prices are those of `label`, so labelling and serving are compared at the same prices.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from sentimill.errors import UsageError
from sentimill_train.labelling.token_prices import PRICES, Listed, read_table

_MARKET: Final = Path(__file__).parents[1] / "resources" / "large_model_prices.json"
MEASURED: Final = Path(__file__).parents[1] / "resources" / "measured_rates.json"


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """A rented machine, or one of its GPUs with a share of the cores. assumed: has no source."""

    name: str
    kind: str
    cores: int
    usd_hour: float
    source: str
    assumed: bool = False


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """Reviews a second of the student on a machine, from `make bench`. assumed: not measured."""

    reviews_per_second: float
    machine: str
    source: str
    assumed: bool = False


class _Market(msgspec.Struct, frozen=True):
    checked: str
    machines: tuple[Machine, ...]
    tiers: dict[str, tuple[str, ...]]
    no_batch_price: tuple[str, ...]


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """All prices and rates. batch_factor: the price of a batch, as a share of the online price.

    checked, machines_checked: when the prices were read, ISO dates. tiers: the example models of
    each tier, the default first.
    """

    checked: str
    machines_checked: str
    models: dict[str, Listed]
    machines: dict[str, Machine]
    tiers: dict[str, tuple[str, ...]]
    measured: Measured
    batch_factor: float
    no_batch_price: tuple[str, ...]

    def model(self, name: str) -> Listed:
        """Return the price of a model. Raises UsageError MODEL_UNKNOWN."""
        if name not in self.models:
            raise UsageError(
                f"no price for {name!r}: the table has {', '.join(self.models)}; add it to a copy "
                f"of {PRICES} and give that with --prices",
                reason="MODEL_UNKNOWN",
            )
        return self.models[name]

    def machine(self, name: str) -> Machine:
        """Return a machine. Raises UsageError UNKNOWN_MACHINE."""
        if name not in self.machines:
            raise UsageError(
                f"no price for the machine {name!r}: the table has {', '.join(self.machines)}; "
                "for another, leave out --machine, and give --machine-price and --student-rate",
                reason="UNKNOWN_MACHINE",
            )
        return self.machines[name]

    def tier_of(self, name: str) -> str:
        """Return the tier of a model, `other` if it has none."""
        return next((tier for tier, names in self.tiers.items() if name in names), "other")


def load_rates(prices: Path = PRICES) -> Rates:
    """Read the tables; *prices*: the table of models. Raises UsageError for a bad file."""
    table = read_table(prices)
    market = msgspec.json.decode(_MARKET.read_bytes(), type=_Market)
    return Rates(
        checked=table.checked,
        machines_checked=market.checked,
        models={row.name: row for row in table.models},
        machines={row.name: row for row in market.machines},
        tiers=market.tiers,
        measured=msgspec.json.decode(MEASURED.read_bytes(), type=Measured),
        batch_factor=table.batch_factor,
        no_batch_price=market.no_batch_price,
    )
