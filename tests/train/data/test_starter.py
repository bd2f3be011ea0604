"""The reviews in the package, starter and hard kinds, are what their notes say."""

from __future__ import annotations

import csv
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from sentimill_train.data.examples import read_examples
from sentimill_train.data.readers import HARD_KINDS, STARTER, digest_of
from sentimill_train.data.schema import SENTIMENTS, Example
from sentimill_train.data.splits import normalise, split_of
from sentimill_train.data.starter import write_test_csv

_NEAR = 0.5
"""Jaccard index of two texts' three-word runs, above which one is the other in other words."""


@pytest.fixture(scope="module")
def starter() -> list[Example]:
    """Return all of them."""
    return read_examples("starter")


def test_there_are_1800_in_even_thirds(starter: list[Example]) -> None:
    """600 of each label."""
    assert Counter(example.label for example in starter) == dict.fromkeys(SENTIMENTS, 600)


def test_every_row_has_a_text_and_a_domain_of_its_own(starter: list[Example]) -> None:
    """No text comes twice, whatever its case and blanks."""
    assert len({normalise(example.text) for example in starter}) == 1800
    assert all(example.domain for example in starter)


def test_shares_sum_to_one_and_the_largest_is_the_label(starter: list[Example]) -> None:
    """The label is what most of the panel would say."""
    shares = np.array([example.probs for example in starter])

    assert shares.shape == (1800, 3)
    assert np.abs(shares.sum(1) - 1).max() < 1e-9
    assert [SENTIMENTS[i] for i in shares.argmax(1)] == [example.label for example in starter]


def test_the_split_is_70_10_20_and_balanced(starter: list[Example]) -> None:
    """Counted, because it is the same for ever."""
    found = Counter((split_of(example.text), example.label) for example in starter)

    assert found == {
        ("train", "negative"): 410,
        ("train", "neutral"): 438,
        ("train", "positive"): 433,
        ("validation", "negative"): 53,
        ("validation", "neutral"): 54,
        ("validation", "positive"): 51,
        ("test", "negative"): 137,
        ("test", "neutral"): 108,
        ("test", "positive"): 116,
    }


@pytest.mark.slow
@pytest.mark.parametrize("width", [1, 3], ids=["words", "three-word runs"])
def test_no_near_duplicate_crosses_the_split(starter: list[Example], width: int) -> None:
    """A test text is none of the train texts with a word changed."""
    overlap = jaccard([example.text for example in starter], width)
    splits = np.array([split_of(example.text) for example in starter])
    crossing = splits[:, None] != splits[None, :]

    assert float(np.where(crossing, overlap, 0).max()) <= _NEAR


def test_the_measure_finds_a_near_duplicate() -> None:
    """The test above would pass with a measure that finds nothing."""
    first = "The battery died in a week and nobody answers the phone."
    second = "The battery died in a week, and nobody ever answers the phone!"
    other = "It is a kettle."

    overlap = jaccard([first, second, other], 3)

    assert overlap[0, 1] > _NEAR
    assert overlap[0, 2] == 0


def test_the_note_is_beside_the_reviews() -> None:
    """Who gets the reviews gets how they were written."""
    assert (
        "written and labelled by a frontier language model"
        in (STARTER.parent / "README.md").read_text()
    )


def test_the_hard_kinds_are_4307_reviews_in_ten_files() -> None:
    """One name reads them all, in the order of the file names, each with shares and a domain."""
    found = read_examples("hard-kinds")

    assert len(HARD_KINDS) == 10
    assert len(found) == 4307 == len({example.id for example in found})
    assert all(e.probs and e.domain and e.label in SENTIMENTS for e in found)
    first = read_examples(str(HARD_KINDS[0]))
    assert [e.text for e in found[: len(first)]] == [e.text for e in first]
    largest = [SENTIMENTS[max(range(3), key=(e.probs or ()).__getitem__)] for e in found]
    assert largest == [example.label for example in found]
    assert (HARD_KINDS[0].parent / "README.md").is_file()
    assert len(digest_of("hard-kinds")) == 64 and digest_of("hard-kinds") != digest_of("starter")


def test_the_test_split_can_be_written_as_csv(tmp_path: Path) -> None:
    """For `score` to have something that no training saw."""
    rows = write_test_csv(tmp_path / "r.csv")

    with (tmp_path / "r.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    assert rows == len(found) == 361
    assert {split_of(row["text"]) for row in found} == {"test"}


def jaccard(texts: list[str], width: int) -> NDArray[np.float32]:
    """Return the overlap (texts, texts) of the texts' sets of *width* words in a row, 0 to 1."""
    runs = []
    for text in texts:
        words = re.findall(r"\w+", normalise(text))
        runs.append({tuple(words[i : i + width]) for i in range(max(1, len(words) - width + 1))})
    index = {run: i for i, run in enumerate(sorted(set().union(*runs)))}
    held = np.zeros((len(texts), len(index)), dtype=np.float32)
    for i, found in enumerate(runs):
        held[i, [index[run] for run in found]] = 1
    both = held @ held.T
    sizes = held.sum(1)
    overlap: NDArray[np.float32] = both / (sizes[:, None] + sizes[None, :] - both)
    np.fill_diagonal(overlap, 0)
    return overlap
