"""Rows become examples, or an error that names file, row and remedy."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentimill.errors import TableError
from sentimill_train.data.examples import read_examples, write_examples
from sentimill_train.data.row_parser import RowParser
from sentimill_train.data.schema import SENTIMENTS, Columns, Example, label_set
from sentimill_train.data.splits import normalise, split_of


def read(folder: Path, data: str, name: str = "r.csv") -> list[Example]:
    """Return what *data* holds, read from a file."""
    path = folder / name
    path.write_bytes(data.encode())
    return read_examples(str(path))


def refusal(folder: Path, data: str, name: str = "r.csv") -> tuple[str, str]:
    """Return reason and message of the error for *data*."""
    with pytest.raises(TableError) as caught:
        read(folder, data, name)
    return caught.value.reason, str(caught.value).replace(str(folder / name), "FILE")


def test_every_column_is_read(tmp_path: Path) -> None:
    """All that an example holds can come from a file."""
    data = (
        '{"id": "x", "text": "Fine.", "label": "neutral", "probs": [0.125, 0.75, 0.125],'
        ' "stars": 3, "domain": "food", "split": "dev"}\n'
    )

    assert read(tmp_path, data, "r.jsonl") == [
        Example(
            id="x",
            text="Fine.",
            label="neutral",
            probs=(0.125, 0.75, 0.125),
            stars=3,
            domain="food",
            split="validation",
            source=str(tmp_path / "r.jsonl"),
        )
    ]


def test_a_row_says_how_it_is_to_be_learnt(tmp_path: Path) -> None:
    """With the labels that were allowed, a person's own label, and a weight from a named column."""
    path = tmp_path / "r.csv"
    path.write_text(
        "text,label,given,labels_allowed,importance\n"
        'Fine.,negative,Positive,"pos, negative",2.5\n'
        "Good.,positive,five kilos,,\n"
    )

    first, second = read_examples(str(path), columns=Columns(weight="importance"))

    assert (first.given, first.labels_allowed, first.weight) == (
        "positive",
        ("negative", "positive"),
        2.5,
    )
    assert (second.given, second.labels_allowed, second.weight) == (None, None, 1.0)
    assert [row.weight for row in read_examples(str(path))] == [1.0, 1.0]


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ("neutral,pos|neg,1", "UNKNOWN_LABEL"),
        ('neutral,"positive,negative",1', "UNKNOWN_LABEL"),
        ('neutral,"neutral,postive",1', "UNKNOWN_LABEL"),
        ("neutral,,-1", "BAD_WEIGHT"),
        ("neutral,,much", "BAD_WEIGHT"),
        ("neutral,,inf", "BAD_WEIGHT"),
    ],
)
def test_what_cannot_say_how_to_learn_a_row_is_refused(
    tmp_path: Path, cells: str, reason: str
) -> None:
    """Instead of a row that counts for nothing, or against its own label."""
    path = tmp_path / "r.csv"
    path.write_text(f"text,label,labels_allowed,importance\nFine.,{cells}\n")

    with pytest.raises(TableError) as caught:
        read_examples(str(path), columns=Columns(weight="importance"))

    assert caught.value.reason == reason


@pytest.mark.parametrize("allowed", [1, 0.5, True, [], {}, "[]", ["negative", "neutral"]])
def test_allowed_labels_are_a_list_that_has_the_label_a_person_gave(allowed: object) -> None:
    """The error names the value, and how to write it."""
    parser = RowParser("r", ("text", "given", "labels_allowed"), Columns(), SENTIMENTS)

    with pytest.raises(TableError, match="write a list, or names with commas") as caught:
        parser.parse({"text": "a", "given": "positive", "labels_allowed": allowed})

    assert caught.value.reason == "UNKNOWN_LABEL"


def test_allowed_labels_need_not_have_that_of_a_teacher() -> None:
    """Beside shares it is not learnt, and the teacher may choose from all labels."""
    names = ("text", "label", "probs", "teacher", "labels_allowed")
    values = ("a", "neutral", [0.1, 0.8, 0.1], "m", ["negative", "positive"])
    parser = RowParser("r", names, Columns(), SENTIMENTS)

    found = parser.parse(dict(zip(names, values, strict=True)))

    assert found.labels_allowed == ("negative", "positive")


def test_probs_by_number_are_those_of_labels_that_are_numbers() -> None:
    """A MAP of Parquet may have integer keys."""
    row = {"text": "a", "probs": [(2, 0.75), (1, 0.25)]}
    columns = ("text", "probs")

    found = RowParser("r", columns, Columns(), ("1", "2")).parse(row)
    with pytest.raises(TableError, match="probs names '2', which is none of negative") as caught:
        RowParser("r", columns, Columns(), SENTIMENTS).parse(row)

    assert (found.label, found.probs) == ("2", (0.25, 0.75))
    assert caught.value.reason == "BAD_PROBS"


def test_a_row_without_an_id_is_named_after_its_file_and_place(tmp_path: Path) -> None:
    """Two rows of a file never share an id."""
    assert [e.id for e in read(tmp_path, "text\na\nb\n")] == ["r-1", "r-2"]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("positive", "positive"),
        ("Positive", "positive"),
        (" NEG ", "negative"),
        ("pos", "positive"),
        ("neu", "neutral"),
        ("5", "positive"),
        ("4.0", "positive"),
        ("", None),
    ],
)
def test_labels_are_read_as_people_write_them(
    tmp_path: Path, written: str, expected: str | None
) -> None:
    """Case, the usual three letters, and stars are all labels."""
    assert read(tmp_path, f"text,label\nx,{written}\ny,5\n")[0].label == expected


@pytest.mark.parametrize(
    ("stars", "expected"),
    [(1, "negative"), (2, "negative"), (3, "neutral"), (4, "positive"), (5, "positive")],
)
def test_stars_give_the_label_where_there_is_none(
    tmp_path: Path, stars: int, expected: str
) -> None:
    """1-2 negative, 3 neutral, 4-5 positive."""
    (example,) = read(tmp_path, f"text,stars\nx,{stars}\n")

    assert (example.label, example.stars) == (expected, stars)


def test_numbers_in_the_label_column_are_stars(tmp_path: Path) -> None:
    """A column of stars under the name `label` is understood, and kept as stars."""
    found = read(tmp_path, "text,label\nx,5\ny,1\n")

    assert [(e.label, e.stars) for e in found] == [("positive", 5), ("negative", 1)]


def test_the_largest_share_is_the_label_where_there_is_none(tmp_path: Path) -> None:
    """A file that only a teacher has seen can be trained on; a CSV cell holds a JSON list."""
    (example,) = read(tmp_path, 'text,probs,stars\nx,"[0.2, 0.7, 0.1]",5\n')

    assert example.label == "neutral"


def test_shares_that_were_rounded_sum_to_one_again(tmp_path: Path) -> None:
    """Two decimals can miss one by a little."""
    (example,) = read(tmp_path, '{"text": "x", "probs": [0.33, 0.33, 0.33]}\n', "r.jsonl")

    assert example.probs is not None
    assert sum(example.probs) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(
    ("data", "reason", "message"),
    [
        (
            "text,label\na,positive\nb,happy\n",
            "UNKNOWN_LABEL",
            "FILE, row 2: the label 'happy' is none of negative, neutral, positive; correct it, or"
            " give the set with --labels",
        ),
        (
            "text,label\na,0\n",
            "UNKNOWN_LABEL",
            "FILE, row 1: the label '0' is none of negative, neutral, positive; write"
            " negative, neutral or positive in place of numbers that are not 1 to 5 stars, or give"
            " the set with --labels",
        ),
        (
            "text,label\na,1\nb,2\n",
            "AMBIGUOUS_LABEL",
            "FILE: the labels are numbers up to 2, which may be classes or stars: write their"
            " names, or name the column `stars`",
        ),
        (
            "review,label\na,positive\n",
            "MISSING_COLUMN",
            "FILE has no column 'text'; it has review, label: name one with --text-column; if this"
            " is the first row, not a header, add a line above it with column names,"
            " 'text' among them; if it is a title, delete the lines above the header",
        ),
        (
            "text,stars\na,4.5\n",
            "BAD_STARS",
            "FILE, row 1: stars '4.5' is not a whole number from 1 to 5; correct it, or remove it;"
            " with another scale, rename the column, and write labels in words",
        ),
        (
            'text,probs\na,"[0.5, 0.6]"\n',
            "BAD_PROBS",
            "FILE, row 1: probs must be 3 numbers of at least 0 that sum to 1; correct or remove"
            " them",
        ),
        (
            "text,probs\na,many\n",
            "BAD_PROBS",
            "FILE, row 1: probs is not valid JSON; write [0.1, 0.2, ...]",
        ),
        (
            "text,split\na,later\n",
            "BAD_SPLIT",
            "FILE, row 1: the split 'later' is none of train, validation, test; correct it, or"
            " remove the column",
        ),
    ],
)
def test_what_cannot_be_used_is_named_with_its_place_and_remedy(
    tmp_path: Path, data: str, reason: str, message: str
) -> None:
    """The message alone is enough to mend the file."""
    assert refusal(tmp_path, data) == (reason, message)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ('{"text": 3}', "BAD_TEXT"),
        ('{"text": ["a"]}', "BAD_TEXT"),
        ('{"text": "a", "probs": [0.5, 0.5, null]}', "BAD_PROBS"),
        ('{"text": "a", "probs": [1.5, -0.5, 0.0]}', "BAD_PROBS"),
        ('{"text": "a", "stars": 9}', "BAD_STARS"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused(tmp_path: Path, record: str, reason: str) -> None:
    """JSON has kinds, and a wrong one is no text, share or star."""
    assert refusal(tmp_path, record + "\n", "r.jsonl")[0] == reason


def test_columns_may_have_other_names(tmp_path: Path) -> None:
    """--text-column and --label-column."""
    path = tmp_path / "r.csv"
    path.write_text("review,verdict\nx,pos\n")

    (example,) = read_examples(str(path), columns=Columns(texts=("review",), label="verdict"))

    assert (example.text, example.label) == ("x", "positive")


def test_a_label_column_that_was_named_must_be_there(tmp_path: Path) -> None:
    """The column that is absent by default may be; the one that was asked for may not."""
    path = tmp_path / "r.csv"
    path.write_text("text,stars\nx,5\n")

    with pytest.raises(TableError, match=r"no column 'verdict'.*--label-column") as caught:
        read_examples(str(path), columns=Columns(label="verdict"))

    assert caught.value.reason == "MISSING_COLUMN"


def test_any_closed_set_of_labels_works(tmp_path: Path) -> None:
    """Also one of numbers, in the order that was given."""
    path = tmp_path / "r.csv"
    path.write_text("text,label\nx,0\ny,1\n")

    assert [e.label for e in read_examples(str(path), labels=("1", "0"))] == ["0", "1"]


def test_the_labels_can_be_taken_as_they_are_found(tmp_path: Path) -> None:
    """With no set given, every label counts."""
    path = tmp_path / "r.csv"
    path.write_text("text,label\nx,late\ny,rude\nz,late\nw,\n")

    assert label_set(read_examples(str(path), labels=None)) == ("late", "rude")


def test_labels_that_are_numbers_are_found_in_their_order(tmp_path: Path) -> None:
    """So kappa and the mean error of ten marks count 10 as the highest, not as the second."""
    path = tmp_path / "r.csv"
    path.write_text("text,label\n" + "".join(f"x,{mark}\n" for mark in (10, 9, 2, 1, -1, 1)))

    assert label_set(read_examples(str(path), labels=None)) == ("-1", "1", "2", "9", "10")
    path.write_text("text,label\nx,level-10\nx,level-2\nx,level-1\n")
    assert label_set(read_examples(str(path), labels=None)) == ("level-1", "level-2", "level-10")


def test_an_empty_text_is_kept(tmp_path: Path) -> None:
    """What a model can read is not for the reader to say."""
    assert [e.text for e in read(tmp_path, '{"text": null}\n{"text": ""}\n', "r.jsonl")] == ["", ""]


def test_what_is_written_reads_back(tmp_path: Path) -> None:
    """JSONL holds line separators, emoji and quotes as they are."""
    path = tmp_path / "r.jsonl"
    examples = [
        Example(id="1", text='a\u2028b "c"\r\n\x85', label="positive", source=str(path)),
        Example(id="2", text="😍 \x00", probs=(0.25, 0.25, 0.5), split="test", source=str(path)),
    ]

    rows = write_examples(path, examples)
    found = read_examples(str(path))

    assert rows == 2
    assert [e.text for e in found] == [e.text for e in examples]
    assert found[1].probs == (0.25, 0.25, 0.5)
    assert [e.split for e in found] == [None, "test"]


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """No half file, and no temporary one."""

    def broken() -> object:
        yield Example(id="1", text="a", source="s")
        raise RuntimeError("disk")

    with pytest.raises(RuntimeError):
        write_examples(tmp_path / "r.jsonl", broken())  # type: ignore[arg-type] # a bad iterable

    assert list(tmp_path.iterdir()) == []


def test_the_split_of_a_text_never_changes() -> None:
    """These are promises to everybody who compares two models."""
    texts = ["The battery died.", "Lovely.", "It is a kettle.", "ok", "Never again", "great value"]

    assert [split_of(text) for text in texts] == [
        "train",
        "train",
        "test",
        "train",
        "train",
        "test",
    ]


def test_the_splits_have_their_shares() -> None:
    """70, 10 and 20 in a hundred."""
    splits = [split_of(f"review number {i}") for i in range(5000)]
    shares = [splits.count(name) / 5000 for name in ("train", "validation", "test")]

    assert shares == pytest.approx([0.7, 0.1, 0.2], abs=0.02)


@given(st.text())
def test_the_split_depends_on_the_normalised_text_alone(text: str) -> None:
    """Case, width and blanks make no second text."""
    assert split_of(f"  {text}\n") == split_of(text)
    assert split_of(normalise(text)) == split_of(unicodedata.normalize("NFKC", normalise(text)))
