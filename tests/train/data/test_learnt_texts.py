"""A file that was trained on is known by its rows."""

from __future__ import annotations

import random

import pytest

from sentimill_train.data.learnt_texts import share_learnt, text_sketch
from sentimill_train.data.splits import text_key


def texts(first: int, count: int) -> list[str]:
    """Return different texts."""
    return [f"review number {n} of a kettle" for n in range(first, first + count)]


def keys_of(found: list[str]) -> list[int]:
    """Return the keys of texts."""
    return [text_key(text) for text in found]


@pytest.mark.parametrize("count", [50, 20_000])
def test_the_same_rows_are_known_in_any_order_and_form(count: int) -> None:
    """Small files exactly, large ones by a sample."""
    learnt = texts(0, count)
    shuffled = [text.upper() for text in random.Random(0).sample(learnt, count)]
    sketch = text_sketch(keys_of(learnt))

    assert share_learnt(sketch, keys_of(shuffled)) == 1.0
    assert share_learnt(sketch, keys_of(texts(count, count))) == 0.0
    mixed = keys_of(shuffled + texts(count, count))
    assert share_learnt(sketch, mixed) == pytest.approx(0.5, abs=0.03)
    assert len(sketch) < 22_000


def test_without_a_sketch_nothing_is_known() -> None:
    """Bundles from before have none."""
    assert share_learnt("", keys_of(texts(0, 10))) == 0.0
