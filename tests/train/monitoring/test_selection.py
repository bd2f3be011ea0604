"""Which rows are worth a label: the unsure, the disputed, the different, and none twice."""

from __future__ import annotations

import numpy as np
import pytest

from sentimill_train.monitoring.selection import choose, disagreement, uncertainty

SURE, UNSURE, OTHER = (0.98, 0.01, 0.01), (0.34, 0.33, 0.33), (0.01, 0.01, 0.98)


def points(rows: int, seed: int = 0) -> np.typing.NDArray[np.float64]:
    """Return embeddings that are all different."""
    return np.random.default_rng(seed).normal(size=(rows, 16))


def test_uncertainty_is_entropy_from_0_to_1() -> None:
    """Of the mean of the models."""
    probs = np.array([[(1, 0, 0), (1 / 3, 1 / 3, 1 / 3), (1, 0, 0)], [(1, 0, 0)] * 2 + [(0, 1, 0)]])

    found = uncertainty(probs)

    assert found[0] == pytest.approx(0)
    assert 0 < found[1] < 1
    assert found[2] == pytest.approx(np.log(2) / np.log(3))


def test_disagreement_is_0_for_one_model_and_1_for_two_that_cannot_both_be_right() -> None:
    """And what both are unsure of is no disagreement."""
    apart = np.array([[(1, 0, 0), UNSURE], [(0, 1, 0), UNSURE]])

    assert disagreement(apart) == pytest.approx([1, 0])
    assert disagreement(apart[:1]) == pytest.approx([0, 0])


def test_unsure_rows_are_preferred() -> None:
    """A tenth of the rows is unsure, and gives most of the sample."""
    probs = np.array([[UNSURE if i % 10 == 0 else SURE for i in range(200)]])

    found = choose([f"text {i} of many" for i in range(200)], probs, points(200), 15, seed=1)

    assert len({choice.row for choice in found}) == 15
    assert sum(choice.row % 10 == 0 for choice in found) >= 13
    assert {choice.reason for choice in found if choice.row % 10 == 0} == {"uncertain"}


def test_disputed_rows_are_preferred_and_named() -> None:
    """Two models that are sure of different labels dispute."""
    other = [OTHER if i % 10 == 0 else SURE for i in range(200)]
    probs = np.array([[SURE] * 200, other])

    found = choose([f"text {i} of many" for i in range(200)], probs, points(200), 15, seed=1)

    disputed = [choice for choice in found if "disputed" in choice.reason]
    assert {choice.row % 10 for choice in disputed} == {0}
    assert len(disputed) >= 13


def test_every_kind_of_text_is_seen() -> None:
    """Of two kinds, one nineteen times as frequent, both are in a small sample."""
    kinds = np.eye(2)[[1 if i % 20 == 0 else 0 for i in range(200)]]
    spread = np.concatenate([kinds, np.zeros((200, 1))], axis=1) + points(200)[:, :3] * 0.01

    found = choose(
        [f"text {i} of many" for i in range(200)], np.array([[UNSURE] * 200]), spread, 2, seed=3
    )

    assert {choice.row % 20 == 0 for choice in found} == {True, False}


def test_no_text_comes_twice() -> None:
    """Neither letter by letter, nor with a word more; what is left is a sample that is smaller."""
    base = [f"the {word} of my phone broke after a week or so" for word in ("screen", "strap")]
    texts = [*base, base[0].upper(), f"{base[0]} again", "!!!", "!!!"]

    found = choose(texts, np.array([[UNSURE] * 6]), points(6), 6, seed=0)

    assert len({texts[choice.row].lower()[:12] for choice in found}) == len(found) == 3


def test_a_small_sample_begins_a_larger_one() -> None:
    """Labelling may stop anywhere; and another seed draws other rows."""
    texts = [f"text {i} of many" for i in range(100)]
    probs = np.random.default_rng(0).dirichlet((1, 1, 1), size=(2, 100))

    small, large, other = (
        [choice.row for choice in choose(texts, probs, points(100), size, seed=seed)]
        for size, seed in ((10, 1), (40, 1), (40, 2))
    )

    assert large[:10] == small
    assert large != other
