"""Labelled files to judge on."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from sentimill.bundle.manifest import Source
from sentimill.classifier import Classifier
from sentimill.errors import InputError, TableError
from sentimill_train.data.learnt_texts import text_sketch
from sentimill_train.data.schema import Columns, Example
from sentimill_train.data.splits import split_of, text_key
from sentimill_train.evaluation.evaluate import bundle_contender
from sentimill_train.evaluation.labelled_set import Sample, answer, read_sample, with_unique_names

LABELS = ("negative", "neutral", "positive")


def write(path: Path, rows: list[dict[str, object]]) -> str:
    """Write JSON lines and return the path as a string."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_a_file_with_splits_gives_its_test_rows(tmp_path: Path) -> None:
    """`auto` is the test split; rows without a label are counted and left out."""
    rows: list[dict[str, object]] = [
        {"text": "good", "label": "positive", "split": "train"},
        {"text": "bad", "label": "negative", "split": "test"},
        {"text": "hm", "split": "test"},
    ]
    sample = read_sample(write(tmp_path / "a.jsonl", rows), LABELS)
    assert [e.text for e in sample.examples] == ["bad"]
    assert (sample.name, sample.part, sample.unlabelled) == ("a", "test", 1)
    assert read_sample(str(tmp_path / "a.jsonl"), LABELS, part="train").part == "train"


def test_a_file_without_splits_is_taken_whole_unless_it_was_trained_on(tmp_path: Path) -> None:
    """Rows that training used never count as test rows."""
    rows: list[dict[str, object]] = [
        {"text": f"text {i}", "label": ("neutral", "positive")[i % 2]} for i in range(100)
    ]
    source = write(tmp_path / "b.jsonl", rows)
    assert len(read_sample(source, LABELS).examples) == 100
    digest = hashlib.sha256(Path(source).read_bytes()).hexdigest()
    trained_on = [(Source(name="b.jsonl", sha256=digest, rows=70),)]
    held_out = read_sample(source, LABELS, trained_on=trained_on)
    assert held_out.part == "test"
    assert 0 < len(held_out.examples) < 40
    assert {split_of(e.text) for e in held_out.examples} == {"test"}


def test_a_file_of_held_out_rows_needs_none_of_train(tmp_path: Path) -> None:
    """It was given to training beside others, and says itself which rows are which."""
    rows: list[dict[str, object]] = [
        {"text": "good", "label": "positive", "split": "validation"},
        {"text": "bad", "label": "negative", "split": "test"},
    ]
    source = write(tmp_path / "held-out.jsonl", rows)
    digest = hashlib.sha256(Path(source).read_bytes()).hexdigest()

    found = read_sample(source, LABELS, trained_on=[(Source(name="h", sha256=digest, rows=2),)])

    assert [e.text for e in found.examples] == ["bad"]


def test_a_file_of_train_rows_alone_is_parted_as_training_parted_it(tmp_path: Path) -> None:
    """By hash, where it was the whole set; beside another file, which had the test rows, never."""
    rows: list[dict[str, object]] = [
        {"text": f"text {i}", "label": ("neutral", "positive")[i % 2], "split": "train"}
        for i in range(100)
    ]
    source = write(tmp_path / "train.jsonl", rows)
    digest = hashlib.sha256(Path(source).read_bytes()).hexdigest()
    alone = (Source(name="train.jsonl", sha256=digest, rows=100),)
    beside = (*alone, Source(name="held-out.jsonl", sha256="0", rows=10))

    found = read_sample(source, LABELS, trained_on=[alone, ()])

    assert 0 < len(found.examples) < 40
    assert {split_of(e.text) for e in found.examples} == {"test"}
    for trained_on in ([beside], [alone, beside]):
        with pytest.raises(TableError) as caught:
            read_sample(source, LABELS, trained_on=trained_on)
        assert caught.value.reason == "NO_LABELLED_ROWS"


def test_a_file_is_known_by_its_rows(tmp_path: Path) -> None:
    """In another order and format, and with some rows more; one of other rows stays unknown."""
    texts = [f"text {i}" for i in range(100)]
    learnt = Source(name="r.csv", sha256="0", rows=100, texts=text_sketch(map(text_key, texts)))
    labels = ("neutral", "positive")
    again = write(
        tmp_path / "again.jsonl",
        [{"text": text, "label": labels[i % 2]} for i, text in enumerate(reversed(texts))],
    )
    other = write(tmp_path / "other.jsonl", [{"text": f"x {t}", "label": "neutral"} for t in texts])

    found = read_sample(again, LABELS, trained_on=[(learnt,)])

    assert (found.part, {split_of(e.text) for e in found.examples}) == ("test", {"test"})
    assert read_sample(other, LABELS, trained_on=[(learnt,)]).part == "all"


def test_one_of_several_files_need_not_be_a_whole_training_set(tmp_path: Path) -> None:
    """A few rows of one label were a part of it: no minimum counts here."""
    rows: list[dict[str, object]] = [{"text": f"text {i}", "label": "positive"} for i in range(15)]
    source = write(tmp_path / "few.jsonl", rows)
    digest = hashlib.sha256(Path(source).read_bytes()).hexdigest()
    files = (Source(name="few.jsonl", sha256=digest, rows=15), Source(name="b", sha256="0", rows=9))

    found = read_sample(source, LABELS, trained_on=[files])

    assert 0 < len(found.examples) < 15
    assert {split_of(e.text) for e in found.examples} == {"test"}


def test_a_sample_of_a_large_file_is_the_same_in_every_run(tmp_path: Path) -> None:
    """Whatever the order of its rows."""
    rows: list[dict[str, object]] = [{"text": f"text {i}", "label": "neutral"} for i in range(50)]
    first = read_sample(write(tmp_path / "a.jsonl", rows), LABELS, most=5)
    again = read_sample(write(tmp_path / "b.jsonl", rows[::-1]), LABELS, most=5)

    assert len(first.examples) == 5
    assert [e.text for e in first.examples] == [e.text for e in again.examples]


def test_a_file_with_nothing_to_judge_on_is_an_error(tmp_path: Path) -> None:
    """No labelled row of the wanted part: the message says which part."""
    labelled: dict[str, object] = {"text": "ok", "label": "neutral", "split": "train"}
    source = write(tmp_path / "c.jsonl", [{"text": "hm", "label": "", "split": "test"}, labelled])
    with pytest.raises(TableError, match="part 'test'") as caught:
        read_sample(source, LABELS)
    assert caught.value.reason == "NO_LABELLED_ROWS"


def test_a_file_without_any_label_is_told_so(tmp_path: Path) -> None:
    """Another part would not help. The column that may hold the labels is named, and does."""
    rows: list[dict[str, object]] = [{"text": f"text {i}", "tone": "neutral"} for i in range(9)]
    source = write(tmp_path / "c.jsonl", rows)

    with pytest.raises(TableError) as caught:
        read_sample(source, LABELS)
    found = read_sample(source, LABELS, columns=Columns(label="tone"))

    assert str(caught.value) == (
        "none of the rows has a label: if the column 'tone' holds them, give --label-column tone"
    )
    assert caught.value.reason == "NO_LABELLED_ROWS"
    assert len(found.examples) == 9


def test_answers_keep_rows_together_and_count_what_failed(bundle: Path) -> None:
    """A text that cannot be classified is in no figure; a rival's follow our labels."""
    examples = tuple(
        Example(id=text, text=text, label=label, stars=stars, source="made")
        for text, label, stars in [
            ("good", "positive", 5),
            (" ", "neutral", 3),
            ("bad", "negative", 1),
        ]
    )
    sample = Sample(name="s", sha256="", part="all", examples=examples)
    classifier = Classifier.load(bundle)
    found = answer(classifier, sample)
    assert found.failed == 1
    assert [e.id for e in found.examples] == ["good", "bad"]
    assert found.answers.gold.tolist() == [2, 0]
    assert found.answers.stars is not None
    assert found.answers.stars.tolist() == [5, 1]
    turned = bundle_contender(classifier, ("positive", "neutral", "negative"))
    assert np.array_equal(turned.probs(["good", "bad"]), found.answers.probs[:, ::-1])


def test_a_sample_of_empty_texts_is_an_error(bundle: Path) -> None:
    """There is nothing to judge."""
    empty = Example(id="1", text=" ", label="neutral", source="made")
    with pytest.raises(InputError, match="no text of s could be classified"):
        answer(Classifier.load(bundle), Sample(name="s", sha256="", part="all", examples=(empty,)))


def test_sets_of_one_name_are_with_unique_names() -> None:
    """The first keeps it, and no new name is one that another set has."""
    names = ("test", "x", "test", "x (2)", "x", "test")
    samples = [Sample(name=name, sha256="", part="all", examples=()) for name in names]

    found = [sample.name for sample in with_unique_names(samples)]

    assert found == ["test", "x", "test (2)", "x (2)", "x (3)", "test (3)"]


def test_texts_that_were_learnt_are_taken_out() -> None:
    """However they are spaced and cased; with nothing left there is nothing to judge on."""
    texts = ("Good  battery", "bad battery")
    examples = tuple(Example(id=t, text=t, label="neutral", source="made") for t in texts)
    sample = Sample(name="s", sha256="", part="all", examples=examples)
    good, bad = (Example(id="t", text=t, source="x") for t in ("GOOD battery", " bad battery"))

    left = sample.without([good])

    assert ([e.id for e in left.examples], left.learnt) == (["bad battery"], 1)
    with pytest.raises(TableError) as caught:
        left.without([bad])
    assert caught.value.reason == "NOTHING_HELD_OUT"
