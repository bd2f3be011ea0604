"""The cap holds whatever the order of events."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentimill_train.labelling.requests.budget import Budget, Price, dollars
from sentimill_train.labelling.requests.messages import Usage


@given(
    cap=st.integers(0, 500),
    calls=st.lists(st.tuples(st.integers(1, 60), st.floats(0, 1)), max_size=60),
    workers=st.integers(1, 20),
)
def test_spending_never_passes_the_cap(
    cap: int, calls: list[tuple[int, float]], workers: int
) -> None:
    """Many workers, any costs up to what was reserved: spent and reserved stay within the cap."""

    async def scenario() -> None:
        budget = Budget(cap)
        todo = iter(calls)

        async def work() -> None:
            for worst, share in todo:
                reserved = await budget.reserve(worst)
                assert budget.spent + budget.at_risk + budget.reserved <= cap
                if reserved is None:
                    return
                await asyncio.sleep(0)
                await budget.settle(reserved, spent=int(worst * share))

        await asyncio.gather(*(work() for _ in range(workers)))

        assert budget.reserved == 0
        assert budget.spent <= cap

    asyncio.run(scenario())


def test_waits_for_calls_under_way_before_giving_up() -> None:
    """What the worst case holds back comes free when calls settle for less."""

    async def scenario() -> tuple[int | None, bool]:
        budget = Budget(100)
        first = await budget.reserve(80)
        assert first is not None
        waiting = asyncio.create_task(budget.reserve(50))
        await asyncio.sleep(0)
        assert not waiting.done()
        await budget.settle(first, spent=10)
        return await waiting, budget.reached

    assert asyncio.run(scenario()) == (50, False)


def test_bill_above_its_bound_raises_later_reservations() -> None:
    """An endpoint that adds text of its own is believed from then on."""

    async def scenario() -> int | None:
        budget = Budget(1000)
        reserved = await budget.reserve(10)
        assert reserved is not None
        await budget.settle(reserved, spent=25)
        return await budget.reserve(10)

    assert asyncio.run(scenario()) == 25


def test_no_cap_never_ends() -> None:
    """`--budget none` reserves anything."""
    assert asyncio.run(Budget(None).reserve(10**18)) == 10**18


def test_cost_counts_cached_and_written_tokens_at_their_price() -> None:
    """Cached tokens are a part of the tokens in, at another price."""
    price = Price.of(1.0, 4.0, usd_cached_in=0.1, usd_cache_write=1.25)
    usage = Usage(tokens_in=100, tokens_out=10, cached_in=40, cache_written=20)

    assert price.cost(usage) == (40 * 1.0 + 40 * 0.1 + 20 * 1.25 + 10 * 4.0) * 1e6


@pytest.mark.parametrize(
    ("pico", "text"), [(0, "$0.00"), (1_234_000_000_000, "$1.23"), (1_200_000_000, "$0.0012")]
)
def test_small_amounts_keep_their_digits(pico: int, text: str) -> None:
    """A tenth of a cent must not read as nothing."""
    assert text == dollars(pico)
