"""Every labelled text is in one split, and a split that is too small is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from sentimill.errors import TableError
from sentimill_train.data.examples import read_examples
from sentimill_train.data.schema import Example, Split
from sentimill_train.data.splits import normalise, part, sample_rows, split_of
from train_parts import TWO, reviews


def made(text: str, split: Split | None = None, label: str | None = "positive") -> Example:
    """Return an example."""
    return Example(id=text, text=text, label=label, split=split, source="made")


def given(counts: dict[Split, int]) -> list[Example]:
    """Return different reviews with the splits that a file gives them."""
    examples = iter(reviews(sum(counts.values())))
    return [
        Example(id=e.id, text=e.text, label=e.label, split=split, source="made")
        for split, count in counts.items()
        for e in [next(examples) for _ in range(count)]
    ]


def refusal(examples: Sequence[Example]) -> TableError:
    """Return the error for *examples*."""
    with pytest.raises(TableError) as caught:
        part(examples, TWO)
    return caught.value


def test_without_a_split_the_text_decides() -> None:
    """The same rule for every file."""
    parted = part(reviews(300), TWO)

    assert len(parted.train) + len(parted.validation) + len(parted.test) == 300
    for split in ("train", "validation", "test"):
        assert {split_of(e.text) for e in getattr(parted, split)} == {split}
        assert {e.split for e in getattr(parted, split)} == {split}


def test_the_split_of_the_file_is_kept() -> None:
    """Who has an official test split wants figures on it."""
    parted = part(given({"train": 30, "validation": 6, "test": 7}), TWO)

    assert (len(parted.train), len(parted.validation), len(parted.test)) == (30, 6, 7)


def test_a_split_that_the_file_lacks_is_taken_out_of_train() -> None:
    """Train and test alone are common; the test split is not touched."""
    parted = part(given({"train": 300, "test": 50}), TWO)

    assert len(parted.test) == 50
    assert 15 <= len(parted.validation) <= 45
    assert len(parted.train) + len(parted.validation) == 300


def test_a_text_is_in_one_split_only() -> None:
    """Whatever its case and blanks; the copy in the later split stays."""
    base = given({"train": 30, "validation": 6, "test": 6})
    copies = [
        made(base[-1].text.upper(), "train"),
        made(f" {base[-1].text}\n", "validation"),
        made(base[32].text, "train"),
    ]

    parted = part([*base, *copies], TWO)

    texts = [
        {normalise(e.text) for e in getattr(parted, s)} for s in ("train", "validation", "test")
    ]
    assert parted.repeated == 3
    assert not (texts[0] & texts[1] | texts[0] & texts[2] | texts[1] & texts[2])


def test_unlabelled_rows_are_left_out_and_counted() -> None:
    """They are for a teacher."""
    parted = part([*reviews(300), made("x", label=None)], TWO)

    assert parted.unlabelled == 1


def test_no_label_at_all_is_told_with_the_remedy() -> None:
    """Most likely the column has another name."""
    error = refusal([made(str(i), label=None) for i in range(50)])

    assert error.reason == "NO_LABELS"
    assert "--label-column" in str(error)


def test_stars_that_make_no_label_are_not_advised(tmp_path: Path) -> None:
    """With two labels nobody knows which one three stars are: rows stay without, and are told."""
    path = tmp_path / "r.csv"
    path.write_text("text,stars\n" + "".join(f"item {i},{i % 5 + 1}\n" for i in range(50)))

    error = refusal(read_examples(str(path), labels=TWO))

    assert error.reason == "NO_LABELS"
    assert "only with the labels negative, neutral, positive" in str(error)


@pytest.mark.parametrize(
    ("counts", "says"),
    [
        ({"train": 19, "validation": 5, "test": 5}, "19 labelled rows for train, at least 20"),
        ({"train": 50, "validation": 4, "test": 5}, "4 labelled rows for validation, at least 5"),
        ({"train": 50, "validation": 5, "test": 4}, "4 labelled rows for test, at least 5"),
        ({"validation": 50, "test": 50}, "0 labelled rows for train, at least 20"),
    ],
)
def test_too_few_rows_are_refused_with_the_minimum(counts: dict[Split, int], says: str) -> None:
    """Before anything is trained."""
    error = refusal(given(counts))

    assert error.reason == "TOO_FEW_ROWS"
    assert says in str(error)


def test_one_label_alone_cannot_be_learnt() -> None:
    """Nor would anybody want the result."""
    error = refusal([made(f"text {i}") for i in range(300)])

    assert error.reason == "ONE_LABEL"
    assert "'positive'" in str(error)


def test_unlabelled_rows_are_spare_where_they_are_asked_for() -> None:
    """But for those that the file keeps for validation or test, and texts that are judged on."""
    examples = given({"train": 30, "validation": 6, "test": 7})
    judged = examples[-1].text.upper()
    bare = [made("new", None, None), made("also", "train", None), made("kept", "test", None)]
    bare.append(made(judged, None, None))

    asked, not_asked = (part([*examples, *bare], TWO, spare=spare) for spare in (True, False))

    assert [e.text for e in asked.spare] == ["new", "also"]
    assert (asked.unlabelled, not_asked.unlabelled, not_asked.spare) == (2, 4, ())
    assert asked.train == not_asked.train


def test_a_label_without_train_rows_is_refused() -> None:
    """It could never be answered, and its figures would be of nothing."""
    rows = given({"train": 100, "validation": 20, "test": 20})
    rare = [made("a rare one", "test", "neutral"), made("another", "validation", "neutral")]

    error = refusal([*rows, *rare])

    assert error.reason == "LABEL_NOT_IN_TRAIN"
    assert "all 2 rows labelled 'neutral' are for validation and test" in str(error)


def test_texts_with_conflicting_labels_are_counted() -> None:
    """One text under two labels, and one that comes three times."""
    rows = reviews(300)
    again = [made(rows[i].text.upper(), None, "neutral") for i in (0, 0, 1)]

    assert part(rows, TWO).conflicting == 0
    assert part([*rows, *again, made("n", "train", "neutral")], TWO).conflicting == 2


def test_the_split_is_that_of_the_cleaned_text() -> None:
    """Entities, break tags and control characters make no second text for a model."""
    text = "Tom & Jerry's are great value, not just good"

    raw = "Tom &amp; Jerry&#39;s are<br/>great value,\u200b not just good"

    assert normalise(raw) == normalise(text)
    assert split_of(f"{text}😍") == split_of(f"{text}\u200b😍")


def test_a_sample_of_rows_is_the_same_in_any_order() -> None:
    """And of few rows it is all of them."""
    rows = reviews(50)

    found = sample_rows(rows, 20)

    assert len(found) == 20
    assert sample_rows(rows[::-1], 20) == found
    assert sample_rows(rows, 50) == rows


def test_rows_that_a_teacher_answers_need_no_label() -> None:
    """With a teacher, all rows of train may lack one; those that are judged on may not."""
    bare = [made(f"text {i}", "train", None) for i in range(30)]
    held = [replace(e, split="test" if i % 2 else "validation") for i, e in enumerate(reviews(20))]

    parted = part([*bare, *held], TWO, spare=True)

    assert (len(parted.train), len(parted.spare)) == (0, 30)
    assert refusal([*bare, *held]).reason == "TOO_FEW_ROWS"
