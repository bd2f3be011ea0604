"""Caps and quotas."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentimill_train.curation.balancing import (
    class_limits,
    domain_limits,
    keep_best,
    over_limit,
    quotas,
)
from sentimill_train.curation.row_store import Spool, SpoolWriter
from sentimill_train.data.jsonl_stream import Labelled

COUNTS = st.lists(st.integers(0, 500), min_size=1, max_size=8).map(
    lambda found: np.array(found, dtype=np.int64)
)


@given(counts=COUNTS, ratio=st.floats(1, 10))
def test_no_class_is_more_than_the_ratio_larger(counts: np.ndarray, ratio: float) -> None:
    """The smallest class that occurs is never cut."""
    limits = class_limits(counts, ratio)
    present = counts[counts > 0]

    assert (limits <= counts).all()
    if len(present) > 1:
        assert limits.max() <= ratio * present.min()
        assert limits[counts > 0].min() == present.min()


@given(counts=COUNTS, share=st.floats(0.05, 1))
def test_no_domain_is_more_than_its_share(counts: np.ndarray, share: float) -> None:
    """As many rows as the share allows; untouched where no choice could meet it."""
    limits = domain_limits(counts, share)

    assert (limits <= counts).all()
    if (counts > 0).sum() * share < 1:
        assert (limits == counts).all()
    else:
        assert limits.max(initial=0) <= share * limits.sum() + 1e-9


@given(counts=COUNTS, total=st.integers(0, 5000))
def test_quotas_are_even_and_complete(counts: np.ndarray, total: int) -> None:
    """They sum to what is to be kept, and a class is short only because it has no more."""
    found = quotas(counts, total)

    assert found.sum() == min(total, counts.sum())
    assert (found <= counts).all()
    short = found < counts
    if short.any():
        assert found[short].max() - found[short].min() <= 1
        assert found.max() <= found[short].max() + 1


def test_worst_rows_go_over_the_limit() -> None:
    """By quality, and by order where that is equal."""
    groups = np.array([0, 0, 0, 1, 0], dtype=np.int64)
    quality = np.array([0.9, 0.1, 0.5, 0.0, 0.5])

    assert over_limit(groups, np.array([2, 1], dtype=np.int64), quality).tolist() == [1, 4]


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    """Ninety praises of a phone and ten of hotels, lamps and soup."""
    writer = SpoolWriter(tmp_path / "rows.jsonl")
    for n in range(90):
        writer.append(Labelled(id=str(n), text=f"great phone with bright screen and battery {n}"))
    for n, thing in enumerate(["quiet hotel room", "warm lamp light", "spicy ramen soup"] * 3):
        writer.append(Labelled(id=str(90 + n), text=f"{thing} {thing} lovely {n}"))
    found = writer.done()
    yield found
    found.close()


def test_kept_rows_are_various(spool: Spool) -> None:
    """Rare subjects are among the first kept, though there are better rows of the common one."""
    rows = np.arange(len(spool), dtype=np.int64)
    quality = np.where(rows < 90, 0.9, 0.6)
    kept = keep_best(spool, rows, np.zeros(len(rows), dtype=np.int64), quality, 30, seed=0)

    assert len(kept) == 30
    assert (kept >= 90).sum() >= 3
    assert kept.tolist() == sorted(set(kept.tolist()))


def test_kept_rows_do_not_depend_on_chance(spool: Spool) -> None:
    """The same seed keeps the same rows."""
    rows = np.arange(len(spool), dtype=np.int64)
    labels, quality = rows % 3, np.ones(len(rows))
    first, second = (keep_best(spool, rows, labels, quality, 40, seed=5) for _ in range(2))

    assert first.tolist() == second.tolist()
