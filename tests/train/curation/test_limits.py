"""Caps of classes and domains."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sentimill_train.curation.pipeline import class_limits, domain_limits

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
