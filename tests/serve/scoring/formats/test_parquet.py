"""Parquet in, the same file with columns appended out."""

from __future__ import annotations

import io
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scoring_jobs import SMALL_WINDOW_BYTES, job, score
from sentimill.errors import TableError, TextError
from sentimill.scoring.answer_columns import AnswerSchema
from sentimill.scoring.formats.table import Layout, Position
from sentimill.scoring.planning import open_table
from sentimill.scoring.scorers import LocalScorer

FILES = {"source": "in.parquet", "target": "out.parquet"}
LABELS = {"good": "positive", "bad": "negative", "the": "neutral"}


def parquet(table: pa.Table, **options: object) -> bytes:
    """Return *table* as a file."""
    out = io.BytesIO()
    pq.write_table(table, out, **options)
    return out.getvalue()


def scored(
    folder: Path, scorer: LocalScorer, data: bytes, layout: Layout | None = None
) -> pq.ParquetFile:
    """Score the file *data* and open the output."""
    _, out = score(folder, scorer, data, layout=layout or Layout(), **FILES)
    return pq.ParquetFile(io.BytesIO(out))


def reviews(rows: int) -> pa.Table:
    """Return a table of many types, with metadata of its own."""
    words = list(LABELS)
    schema = pa.schema(
        [
            pa.field("id", pa.int64(), nullable=False, metadata={"unit": "none"}),
            pa.field("text", pa.string()),
            pa.field("tags", pa.list_(pa.struct([("name", pa.string()), ("n", pa.int8())]))),
            pa.field("seen", pa.map_(pa.string(), pa.timestamp("us", tz="UTC"))),
            pa.field("price", pa.decimal128(9, 2)),
            pa.field("shop", pa.dictionary(pa.int32(), pa.string())),
        ],
        metadata={"made by": "us"},
    )
    return pa.table(
        {
            "id": range(rows),
            "text": [words[i % 3] for i in range(rows)],
            "tags": [[{"name": "a", "n": i % 5}] * (i % 3) for i in range(rows)],
            "seen": [[("x", i)] for i in range(rows)],
            "price": [Decimal(i) / 100 for i in range(rows)],
            "shop": pa.array(["one", "two"] * (rows // 2)).dictionary_encode(),
        },
        schema=schema,
    )


def test_every_other_column_is_untouched(tmp_path: Path, scorer: LocalScorer) -> None:
    """Values, types, nullability, metadata, row groups and codecs are those of the input."""
    data = parquet(reviews(100), row_group_size=30, compression="zstd", write_page_index=True)
    table = pq.read_table(io.BytesIO(data))
    out = scored(tmp_path, scorer, data, Layout(window_bytes=SMALL_WINDOW_BYTES))
    found, metadata = out.read(), out.metadata

    assert found.select(table.column_names).equals(table, check_metadata=True)
    assert found["sentiment_label"].to_pylist() == [LABELS[t] for t in table["text"].to_pylist()]
    groups = [metadata.row_group(k) for k in range(metadata.num_row_groups)]
    assert [group.num_rows for group in groups] == [30, 30, 30, 10]
    assert {groups[0].column(k).compression for k in range(metadata.num_columns)} == {"ZSTD"}
    assert groups[0].column(0).has_column_index


@pytest.mark.parametrize(
    "kind",
    [
        pa.large_string(),
        pa.string_view(),
        pa.binary(),
        pa.binary_view(),
        pa.dictionary(pa.int16(), pa.string()),
    ],
)
def test_text_may_be_stored_in_many_ways(
    tmp_path: Path, scorer: LocalScorer, kind: pa.DataType
) -> None:
    """As large strings, views, dictionaries, or bytes that nobody called text."""
    table = pa.table({"text": pa.array(["good", None, "bad"]).cast(kind)})
    found = scored(tmp_path, scorer, parquet(table)).read()

    assert found["sentiment_label"].to_pylist() == ["positive", None, "negative"]
    assert found["sentiment_error"].to_pylist() == [None, "MISSING_TEXT", None]
    assert found["text"].to_pylist() == table["text"].to_pylist()


@pytest.mark.parametrize("encoding", [None, "DELTA_LENGTH_BYTE_ARRAY", "DELTA_BYTE_ARRAY"])
def test_a_text_that_is_stored_once_is_held_once(tmp_path: Path, encoding: str | None) -> None:
    """Thousands of rows with one long text cost the memory of one, where Parquet stores one."""
    options = {"use_dictionary": encoding is None, "column_encoding": encoding}
    table = pa.table({"text": ["good " * 1000] * 2000 + [None]})
    (tmp_path / "in.parquet").write_bytes(parquet(table, **options))
    (unit,) = job(tmp_path / "in.parquet", tmp_path / "out.parquet", Layout()).plan()
    with open_table(unit, Layout(), AnswerSchema(("a", "b"), None, "x_", with_probs=False)) as read:
        windows = [window.texts for window in read.windows(Position())]
    texts = [text for window in windows for text in window]

    assert texts[:-1] == table["text"].to_pylist()[:-1]
    assert isinstance(texts[-1], TextError)
    assert len(windows) > 2
    assert len({id(text) for text in texts[:-1]}) == 1 or encoding is not None


def test_a_row_group_is_read_in_bounded_memory(tmp_path: Path) -> None:
    """Its writer gave up its dictionary, and Arrow must not go on to collect all texts in one."""
    texts = ["good " * 400] * 500 + [f"{i} bad " * 200 for i in range(20_000)]
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"text": texts}), path, row_group_size=len(texts))
    (unit,) = job(path, tmp_path / "out.parquet").plan()
    layout = Layout(window_bytes=1 << 20)
    before = pa.total_allocated_bytes()
    most = 0
    found: list[object] = []
    with open_table(unit, layout, AnswerSchema(("a", "b"), None, "x_", with_probs=False)) as read:
        for window in read.windows(Position()):
            most = max(most, pa.total_allocated_bytes() - before)
            found += window.texts

    assert found == texts
    assert most < 24 << 20 < sum(map(len, texts))


def test_a_column_keeps_its_dictionary_where_another_gave_it_up(tmp_path: Path) -> None:
    """Titles that never repeat beside a few long bodies, of which each row would be a copy."""
    titles, bodies = [f"title {i} {'x' * 60}" for i in range(30_000)], ["good " * 1600] * 30_000
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"title": titles, "text": bodies}), path, row_group_size=len(titles))
    (unit,) = job(path, tmp_path / "out.parquet").plan()
    before, most, rows = pa.total_allocated_bytes(), 0, 0
    schema = AnswerSchema(("a", "b"), None, "x_", with_probs=False)
    layout = Layout(window_bytes=1 << 20, text_columns=("title", "text"))
    with open_table(unit, layout, schema) as read:
        for window in read.windows(Position()):
            most = max(most, pa.total_allocated_bytes() - before)
            expected = zip(titles[rows : rows + len(window.texts)], window.texts, strict=True)
            assert all(str(text).startswith(title) for title, text in expected)
            rows += len(window.texts)

    assert rows == len(titles)
    assert most < 24 << 20


def test_bytes_that_are_no_text_are_a_bad_row(tmp_path: Path, scorer: LocalScorer) -> None:
    """Parquet does not promise that text is UTF-8."""
    column = pa.array([b"good", b"\xff", b"bad"]).view(pa.string())
    found = scored(tmp_path, scorer, parquet(pa.table({"text": column}))).read()

    assert found["sentiment_error"].to_pylist() == [None, "UNDECODABLE_ROW", None]


def test_old_timestamps_stay_old(tmp_path: Path, scorer: LocalScorer) -> None:
    """A file of Spark's INT96 timestamps is written with them again."""
    table = pa.table({"text": ["good"], "at": pa.array([1], pa.timestamp("ns"))})
    out = scored(tmp_path, scorer, parquet(table, use_deprecated_int96_timestamps=True))

    assert out.metadata.row_group(0).column(1).physical_type == "INT96"
    assert out.read()["at"].cast(pa.int64()).to_pylist() == [1]


def test_an_empty_table_is_a_table(tmp_path: Path, scorer: LocalScorer) -> None:
    """No rows are no error, and the columns are there."""
    out = scored(tmp_path, scorer, parquet(pa.table({"text": pa.array([], pa.string())})))

    assert (out.metadata.num_rows, out.schema_arrow.names[1]) == (0, "sentiment_label")


def test_only_columns_keeps_the_named_ones(tmp_path: Path, scorer: LocalScorer) -> None:
    """Nested ones too."""
    out = scored(tmp_path, scorer, parquet(reviews(10)), Layout(keep=("tags", "id")))

    assert out.schema_arrow.names[:3] == ["tags", "id", "sentiment_label"]
    assert out.read()["tags"].to_pylist() == reviews(10)["tags"].to_pylist()


def test_where_missing_scores_only_the_gaps(tmp_path: Path, scorer: LocalScorer) -> None:
    """Rows that have an answer keep it, the others get one, and columns stay in their places."""
    first = scored(tmp_path, scorer, parquet(reviews(10))).read()
    labels = pa.array([None if i % 2 else "mine" for i in range(10)], pa.string())
    place = first.schema.get_field_index("sentiment_label")
    edited = first.set_column(place, "sentiment_label", labels)

    found = scored(tmp_path, scorer, parquet(edited), Layout(update=True)).read()

    expected = [LABELS[list(LABELS)[i % 3]] if i % 2 else "mine" for i in range(10)]
    assert found["sentiment_label"].to_pylist() == expected
    assert found.schema.names == first.schema.names
    assert found.drop(["sentiment_label"]).equals(first.drop(["sentiment_label"]))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"PAR1 and no more", "UNREADABLE"),
        (b"", "UNREADABLE"),
        (parquet(pa.table({"review": ["a"]})), "MISSING_COLUMN"),
        (parquet(pa.table({"text": [1]})), "NOT_TEXT"),
        (parquet(pa.table({"text": ["a"], "sentiment_error": [1]})), "COLUMN_COLLISION"),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path: Path, data: bytes, reason: str) -> None:
    """Before a model is loaded."""
    (tmp_path / "in.parquet").write_bytes(data)

    with pytest.raises(TableError, match=r"in\.parquet") as caught:
        job(tmp_path / "in.parquet", tmp_path / "out.parquet", Layout()).plan()

    assert caught.value.reason == reason


def test_csv_becomes_parquet_and_loses_nothing(tmp_path: Path, scorer: LocalScorer) -> None:
    """Cells are text; the bytes of a row that is not as the header says have a column."""
    data = b'id,text,x\n1,"good, so",a\n2,bad\n3,the,\xff\n4,good,a,b\n'
    _, out = score(tmp_path, scorer, data, target="out.parquet")
    found = pq.read_table(io.BytesIO(out)).to_pylist()

    assert [row["id"] for row in found] == ["1", "2", "3", "4"]
    assert [row["text"] for row in found] == ["good, so", "bad", "the", "good"]
    assert [row["sentiment_error"] for row in found] == [None, "RAGGED_ROW", None, "RAGGED_ROW"]
    sources = [row["sentiment_source"] for row in found]
    assert sources == [None, b"2,bad", b"3,the,\xff", b"4,good,a,b"]


def test_a_file_without_columns_has_no_text(tmp_path: Path) -> None:
    """It is told as any file that lacks the column."""
    (tmp_path / "in.parquet").write_bytes(parquet(pa.table({})))

    with pytest.raises(TableError, match=r"no column 'text'; it has no columns") as caught:
        job(tmp_path / "in.parquet", tmp_path / "out.parquet", Layout()).plan()

    assert caught.value.reason == "MISSING_COLUMN"
