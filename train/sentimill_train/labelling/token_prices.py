"""The price table: a dated data file, and the lookup of a model in it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from sentimill.errors import UsageError
from sentimill_train.labelling.requests.budget import Price

PRICES: Final = Path(__file__).parents[1] / "resources" / "teacher_prices.json"

_SNAPSHOT: Final = re.compile(r"-(\d{4}-\d{2}-\d{2}|\d{8}|latest)$")


class Listed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A hosted model. usd_in, usd_out: US dollars a million tokens, online."""

    provider: str
    model: str
    usd_in: float = msgspec.field(name="in")
    usd_out: float = msgspec.field(name="out")
    source: str
    cached_in: float | None = None
    cache_write: float | None = None

    @property
    def name(self) -> str:
        """`provider/model`."""
        return f"{self.provider}/{self.model}"


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All prices of one day. checked: the day. batch_factor: the price in a batch as a factor."""

    checked: str
    models: list[Listed]
    unit: str = ""
    note: str = ""
    batch_factor: float = 0.5


@dataclass(frozen=True, slots=True)
class Quote:
    """The price of the calls of a run, the price outside the batch API, and their source."""

    price: Price
    live: Price
    origin: str


def read_table(path: Path = PRICES) -> Table:
    """Read a price table. Raises UsageError BAD_PRICES."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Table)
    except (OSError, msgspec.DecodeError) as error:
        raise UsageError(
            f"{path} is not a price table ({error}): copy {PRICES} and change the copy",
            reason="BAD_PRICES",
        ) from error


def price_of(
    provider: str,
    model: str,
    *,
    table: Path = PRICES,
    given: tuple[float, float] | None = None,
    batch: bool = False,
) -> Quote | None:
    """Return the price of a model, None if it is unknown.

    given: dollars a million tokens in and out, which override the table and are not reduced for
    batches. A dated snapshot of a model (`-2026-01-31`) has the price of the model.

    Raises:
        UsageError: the table cannot be read.
    """
    if given is not None:
        price = Price.of(*given)
        return Quote(price, price, "given by --price-in and --price-out")
    found = read_table(table)
    names = {model, _SNAPSHOT.sub("", model)}
    row = next((r for r in found.models if r.provider == provider and r.model in names), None)
    if row is None:
        return None
    live, half = (
        Price.of(
            row.usd_in,
            row.usd_out,
            usd_cached_in=row.cached_in,
            usd_cache_write=row.cache_write,
            factor=factor,
        )
        for factor in (1.0, found.batch_factor)
    )
    origin = f"{table.name} of {found.checked}, from {row.source}"
    return Quote(half if batch else live, live, origin)
