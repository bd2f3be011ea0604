"""The same row means the same to every command, however it is written."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sentimill.errors import TableError
from sentimill_train.data.examples import (
    encode_example,
    read_examples,
    stream_examples,
    stream_texts,
)
from sentimill_train.data.schema import SENTIMENTS, Columns, Example
from sentimill_train.data.splits import part


def lines(folder: Path, *rows: dict[str, Any]) -> str:
    """Write rows as JSON lines, as Python writes them: NaN is a word there."""
    path = folder / "r.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def parquet(folder: Path, table: pa.Table) -> str:
    """Write a Parquet file of small row groups."""
    pq.write_table(table, folder / "r.parquet", row_group_size=2)
    return str(folder / "r.parquet")


def refusal(source: str, **options: Any) -> tuple[str, str]:
    """Return reason and message of the error."""
    with pytest.raises(TableError) as caught:
        read_examples(source, **options)
    return caught.value.reason, str(caught.value)


def test_numbers_for_ids_and_gaps_for_texts_are_read(tmp_path: Path) -> None:
    """As people's databases write them."""
    (row,) = read_examples(
        lines(tmp_path, {"id": 17, "text": None, "label": "Positive", "split": "dev"})
    )

    assert (row.id, row.text, row.label, row.split) == ("17", "", "positive", "validation")


@pytest.mark.parametrize("missing", [float("nan"), None, "", "nan", "N/A", "null"])
def test_a_missing_label_is_no_label(tmp_path: Path, missing: object) -> None:
    """As missing stars are no stars."""
    source = lines(tmp_path, {"text": "a", "label": missing, "stars": missing, "split": missing})

    (row,) = read_examples(source)

    assert (row.label, row.stars, row.split) == (None, None, None)


def test_a_label_set_may_have_a_label_that_means_missing(tmp_path: Path) -> None:
    """`none` is a label where the set says so."""
    source = lines(tmp_path, {"text": "a", "label": "None"})

    assert read_examples(source, labels=("none", "some"))[0].label == "none"


@pytest.mark.parametrize("written", [4, 4.0, "4", "4.0"])
def test_a_number_among_classes_is_that_class(tmp_path: Path, written: object) -> None:
    """A data frame with a gap makes floats of five stars."""
    source = lines(tmp_path, {"text": "a", "label": written})

    assert read_examples(source, labels=("1", "2", "3", "4", "5"))[0].label == "4"


def test_nine_stars_are_refused(tmp_path: Path) -> None:
    """With or without a label beside them."""
    source = lines(tmp_path, {"text": "a", "label": "positive", "stars": 9})

    assert refusal(source)[0] == "BAD_STARS"


@pytest.mark.parametrize(
    "shares",
    [
        {"probs": {"positive": 0.7, "negative": 0.1, "neutral": 0.2}},
        {"probs": {"pos": 0.7, "NEG": 0.1, "neu": 0.2}},
        {"probs": '{"positive": 0.7, "negative": 0.1, "neutral": 0.2}'},
        {"probs_positive": 0.7, "probs_negative": 0.1, "probs_neutral": 0.2},
        {"prob_positive": "0.7", "prob_negative": "0.1", "prob_neutral": "0.2"},
    ],
)
def test_shares_have_names(tmp_path: Path, shares: dict[str, object]) -> None:
    """So no order can be mistaken."""
    (row,) = read_examples(lines(tmp_path, {"text": "a", **shares}))

    assert row.probs == pytest.approx((0.1, 0.2, 0.7))
    assert row.label == "positive"


def test_shares_of_a_label_that_is_none_are_refused(tmp_path: Path) -> None:
    """The message names it."""
    source = lines(tmp_path, {"text": "a", "probs": {"happy": 1.0}})

    assert "'happy', which is none of" in refusal(source)[1]


def test_shares_in_another_order_than_the_labels_are_refused(tmp_path: Path) -> None:
    """Swapped classes would be learnt in silence; a teacher that errs at times is none."""
    wrong, right = [0.9, 0.05, 0.05], [0, 0, 1]
    rows = [{"text": f"t{i}", "label": "positive"} for i in range(30)]
    swapped = [row | {"probs": wrong} for row in rows]
    erring = [row | {"probs": wrong if i % 3 == 0 else right} for i, row in enumerate(rows)]

    reason, said = refusal(lines(tmp_path, *swapped))

    assert reason == "PROBS_DISAGREE"
    assert "in 100% of 30 rows" in said and "--labels in the order of the probs" in said
    assert len(read_examples(lines(tmp_path, *erring))) == 30


def test_several_text_columns_are_joined_in_their_order(tmp_path: Path) -> None:
    """The title first; a part that is missing is left out."""
    source = lines(
        tmp_path,
        {"title": "Broken", "body": "After a week."},
        {"title": float("nan"), "body": "Fine."},
        {"title": None, "body": None},
    )
    columns = Columns(texts=("title", "body"))

    found = [text for text, _ in stream_texts(source, columns)]

    assert found == ["Broken. After a week.", "Fine.", ""]
    assert [e.text for e in read_examples(source, columns=columns)] == found


def test_other_columns_are_kept_where_they_are_asked_for(tmp_path: Path) -> None:
    """With their values, also ones that JSON has no words for."""
    source = parquet(
        tmp_path,
        pa.table(
            {
                "body": ["a", "b"],
                "rating": [5, 1],
                "country": ["FR", None],
                "when": pa.array([1, 2], pa.timestamp("s")),
                "tags": pa.array([[("k", 1)], []], pa.map_(pa.string(), pa.int64())),
            }
        ),
    )
    columns = Columns(texts=("body",))

    first, _ = stream_examples(source, columns=columns, keep=True)

    assert first.extra is not None
    assert set(first.extra) == {"rating", "country", "when", "tags"}
    written = json.loads(encode_example(first, None))
    assert (written["text"], written["rating"], written["country"]) == ("a", 5, "FR")
    assert read_examples(source, columns=columns)[0].extra is None


def test_far_dates_and_small_fractions_are_kept(tmp_path: Path) -> None:
    """INT96 dates of Hive and Spark, what Python's dates do not reach, and nanoseconds."""
    far = pa.array([253_402_300_800, -62_135_596_801], pa.timestamp("s"))
    table = pa.table(
        {
            "text": ["a", "b"],
            "seen": pa.array([dt.datetime(9999, 12, 31), dt.datetime(1, 1, 1)], pa.timestamp("us")),
            "far": far,
            "ns": pa.array([1, 2], pa.timestamp("ns")),
        }
    )
    path = tmp_path / "r.parquet"
    pq.write_table(table.select(["text", "seen"]), path, use_deprecated_int96_timestamps=True)
    seen = [row["seen"] for _, row in stream_texts(str(path), keep=True)]
    pq.write_table(table.select(["text", "far", "ns"]), path)
    others = [(row["far"], row["ns"]) for _, row in stream_texts(str(path), keep=True)]

    assert seen == [dt.datetime(9999, 12, 31), dt.datetime(1, 1, 1)]
    assert others == [
        ("10000-01-01 00:00:00.000", "1970-01-01 00:00:00.000000001"),
        ("0000-12-31 23:59:59.000", "1970-01-01 00:00:00.000000002"),
    ]


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (pa.list_(pa.timestamp("ns")), [1], ["1970-01-01 00:00:00.000000001"]),
        (pa.large_list(pa.time64("ns")), [1], ["00:00:00.000000001"]),
        (pa.list_(pa.duration("ns"), 1), [1], ["1"]),
        (pa.map_(pa.string(), pa.timestamp("ns", "UTC")), [("k", 1)],
         [("k", "1970-01-01 00:00:00.000000001Z")]),
        (pa.struct({"at": pa.list_(pa.time64("ns")), "n": pa.int8()}), {"at": [1], "n": 2},
         {"at": ["00:00:00.000000001"], "n": 2}),
        (pa.list_(pa.timestamp("ms")), [253_402_300_800_000], ["10000-01-01 00:00:00.000"]),
        (pa.list_(pa.timestamp("us")), [1], [dt.datetime(1970, 1, 1, 0, 0, 0, 1)]),
    ],
    ids=str,
)  # fmt: skip
def test_small_fractions_inside_lists_are_kept(
    tmp_path: Path, kind: pa.DataType, value: object, expected: object
) -> None:
    """And in maps and structs; with pandas or without, a time lost its nanoseconds there."""
    path = tmp_path / "r.parquet"
    pq.write_table(pa.table({"text": ["a"], "when": pa.array([value], kind)}), path)

    assert [row["when"] for _, row in stream_texts(str(path), keep=True)] == [expected]


def test_columns_that_are_not_needed_stop_nothing(tmp_path: Path) -> None:
    """Maps, identifiers, duplicate names, numbers that are none, and an empty first row group."""
    table = pa.Table.from_arrays(
        [
            pa.array(["a", "b", "c"]),
            pa.array([[("k", 1)], [], None], pa.map_(pa.string(), pa.int64())),
            pa.array([b"0123456789abcdef"] * 3, pa.binary(16)).cast(pa.uuid()),
            pa.array([float("nan")] * 3),
            pa.array([1, 2, 3]),
            pa.array([1, 2, 3]),
        ],
        names=["text", "map", "uuid", "nan", "twice", "twice"],
    )
    path = tmp_path / "r.parquet"
    with pq.ParquetWriter(path, table.schema) as writer:
        writer.write_table(table.slice(0, 0))
        writer.write_table(table)

    assert [row.text for row in read_examples(str(path))] == ["a", "b", "c"]


def test_not_a_number_elsewhere_in_json_stops_nothing(tmp_path: Path) -> None:
    """Python writes NaN and Infinity, which JSON does not have."""
    source = lines(tmp_path, {"text": "a", "price": float("nan"), "x": float("inf")})

    assert [row.text for row in read_examples(source)] == ["a"]


def test_a_needed_column_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    """Nobody can know which of them is meant."""
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])

    assert refusal(parquet(tmp_path, table))[0] == "DUPLICATE_COLUMN"


def test_stars_under_another_name_are_pointed_out(tmp_path: Path) -> None:
    """The message says which option takes them, also where some rows have none, and it works."""
    rows = [{"text": f"text {i}", "rating": float(1 + i % 5)} for i in range(300)]
    source = lines(tmp_path, {"text": "no stars", "rating": None}, *rows)

    with pytest.raises(
        TableError, match="if the column 'rating' holds stars, give --label-column rating"
    ) as caught:
        part(read_examples(source), SENTIMENTS)

    assert caught.value.reason == "NO_LABELS"
    assert part(read_examples(source, columns=Columns(label="rating")), SENTIMENTS).train


def test_labels_under_another_name_are_pointed_out(tmp_path: Path) -> None:
    """The file is read for the hint as it was read before: here `;`, Latin-1, and a title."""
    path = tmp_path / "r.csv"
    rows = "".join(
        f"{i % 5 + 1};caf\xe9 {i};{'Pos' if i % 3 else 'NEGATIVE'}\n" for i in range(300)
    )
    path.write_bytes(f"aisle;review;my verdict\n{rows}".encode("latin-1"))
    columns = Columns(texts=("review",), encoding="latin-1")

    with pytest.raises(TableError, match="give --label-column 'my verdict'") as caught:
        part(read_examples(str(path), columns=columns), SENTIMENTS, columns=columns)

    assert caught.value.reason == "NO_LABELS"
    named = replace(columns, label="my verdict")
    assert part(read_examples(str(path), columns=named), SENTIMENTS, columns=named).train


@pytest.mark.parametrize(
    ("names", "pointed_out"),
    [
        (("helpful", "sentiment"), "sentiment"),
        (("Is_Class", "recommended"), "Is_Class"),
        (("helpful", "recommended"), "helpful"),
    ],
)
def test_a_column_with_the_name_of_a_label_is_pointed_out_before_others(
    tmp_path: Path, names: tuple[str, str], pointed_out: str
) -> None:
    """Many columns hold 0 and 1, so the message says "if" of each."""
    rows = [{"text": f"text {i}"} | dict.fromkeys(names, i % 2) for i in range(50)]
    source = lines(tmp_path, *rows)

    with pytest.raises(TableError) as caught:
        part(read_examples(source, labels=("0", "1")), ("0", "1"))

    assert str(caught.value) == (
        f"none of the rows has a label: if the column '{pointed_out}' holds them, give"
        f" --label-column {pointed_out}"
    )


@pytest.mark.parametrize("value", ["4 stars", "4.0 out of 5 stars", "4/5", "4 Stars", "4"])
def test_stars_may_be_written_out(tmp_path: Path, value: str) -> None:
    """As shops and maps export them."""
    (row,) = read_examples(lines(tmp_path, {"text": "a", "stars": value}))
    (same,) = read_examples(
        lines(tmp_path, {"text": "a", "label": value}), labels=("1", "2", "3", "4", "5")
    )

    assert (row.label, row.stars, same.label) == ("positive", 4, "4")


def test_written_out_stars_are_no_classes_of_other_numbers(tmp_path: Path) -> None:
    """One of five is not the class 1 of 0 and 1; and 3 stars say that there are five."""
    with pytest.raises(TableError, match="is none of 0, 1") as caught:
        read_examples(lines(tmp_path, {"text": "a", "label": "1/5"}), labels=("0", "1"))
    (row,) = read_examples(lines(tmp_path, {"text": "a", "label": "3 stars"}))

    assert caught.value.reason == "UNKNOWN_LABEL"
    assert (row.label, row.stars) == ("neutral", 3)


def test_a_long_label_is_refused_at_once(tmp_path: Path) -> None:
    """Also one with blanks that could stand before "out of 5"."""
    found = refusal(lines(tmp_path, {"text": "a", "label": f"good{' ' * 10_000}bad"}))

    assert found[0] == "UNKNOWN_LABEL"


@pytest.mark.parametrize("value", ["4/10", "0 stars", "stars", "4.5 stars", "four stars"])
def test_what_is_no_number_of_five_stars_is_refused(tmp_path: Path, value: str) -> None:
    """Nobody should guess what half a star or ten of them mean."""
    assert refusal(lines(tmp_path, {"text": "a", "stars": value}))[0] == "BAD_STARS"


def test_what_is_written_reads_back_with_its_names(tmp_path: Path) -> None:
    """Shares by name, and the extra columns; a field wins over an extra column of its name."""
    example = Example(
        id="1",
        text="a",
        label="positive",
        probs=(0.25, 0.25, 0.5),
        given="neutral",
        teacher="openai:m",
        source="s",
        extra={"rating": 4, "text": "old"},
    )
    path = tmp_path / "r.jsonl"
    path.write_bytes(encode_example(example, SENTIMENTS))

    (found,) = stream_examples(str(path), keep=True)

    assert json.loads(path.read_bytes())["probs"] == {
        "negative": 0.25,
        "neutral": 0.25,
        "positive": 0.5,
    }
    assert found.extra == {"rating": 4}
    assert (found.text, found.probs) == ("a", (0.25, 0.25, 0.5))
    assert (found.given, found.teacher) == ("neutral", "openai:m")
