"""The price table."""

from __future__ import annotations

from pathlib import Path

import pytest

from sentimill.errors import UsageError
from sentimill_train.labelling.requests.budget import Price
from sentimill_train.labelling.token_prices import price_of


def test_dated_snapshot_costs_what_its_model_costs() -> None:
    """Providers name snapshots by date."""
    plain, dated = price_of("openai", "gpt-6-luna"), price_of("openai", "gpt-6-luna-2026-09-22")

    assert plain is not None
    assert plain == dated
    assert Price.of(0.10, 0.50, usd_cached_in=0.01, usd_cache_write=0.125) == plain.price


def test_batch_is_half_the_price_and_knows_the_full_one() -> None:
    """The first question of a batch run is asked live."""
    quote = price_of("anthropic", "claude-sonnet-5-5", batch=True)

    assert quote is not None
    assert quote.live.tokens_in == 2 * quote.price.tokens_in


def test_unknown_model_has_no_price() -> None:
    """A longer name that merely begins like a known one is another model."""
    assert price_of("openai", "gpt-6-luna-pro") is None
    assert price_of("anthropic", "gpt-6-luna") is None


def test_given_price_wins() -> None:
    """The caller knows better than the table."""
    quote = price_of("openai", "gpt-6-luna", given=(3.0, 4.0))

    assert quote is not None
    assert Price.of(3.0, 4.0) == quote.price


def test_broken_table_is_a_usage_error(tmp_path: Path) -> None:
    """Before anything is asked."""
    path = tmp_path / "prices.json"
    path.write_text("[]", encoding="utf-8")

    with pytest.raises(UsageError, match="not a price table"):
        price_of("openai", "m", table=path)
