"""Parquet files of many writers: every column comes out as it went in, by a second reader.

What is scored is compared by DuckDB or Polars, not by the library that wrote the output.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import fastparquet
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scoring_jobs import SMALL_WINDOW_BYTES, job
from sentimill.errors import SentimillError
from sentimill.scoring.answer_columns import COLUMNS
from sentimill.scoring.formats import parquet_writer
from sentimill.scoring.formats.table import Layout
from sentimill.scoring.scorers import LocalScorer

ADDED = [f"sentiment_{name}" for name in COLUMNS]
WORDS = ["good", "bad", "the", ""]
ROWS = 5000
SMALL = Layout(window_bytes=SMALL_WINDOW_BYTES * 100)
Write = Callable[[Path], None]


def texts(rows: int = ROWS) -> list[str]:
    """Return *rows* texts."""
    return [WORDS[i % 4] for i in range(rows)]


def read(query: str) -> duckdb.DuckDBPyRelation:
    """Run *query* in DuckDB."""
    found = duckdb.sql(query)
    assert found is not None
    return found


def with_int96(path: Path) -> None:
    """Write INT96 timestamps far outside of what nanoseconds in 64 bits can hold, as Hive does."""
    days = [dt.datetime(9999, 12, 31), dt.datetime(1, 1, 1), dt.datetime(2020, 2, 29, 1, 2, 3, 4)]
    seen = pa.array([days[i % 3] for i in range(ROWS)], pa.timestamp("us"))
    table = pa.table({"seen": seen, "text": texts()})
    pq.write_table(table, path, use_deprecated_int96_timestamps=True, store_schema=False)


def with_polars(path: Path) -> None:
    """Write what Polars has; its footers say version 1.0."""
    frame = pl.DataFrame(
        {
            "text": texts(),
            "ns": pl.Series(range(ROWS)).cast(pl.Datetime("ns", "Europe/Berlin")),
            "u32": pl.Series(range(ROWS), dtype=pl.UInt32),
            "list": [[i, None] for i in range(ROWS)],
            "category": pl.Series(texts(), dtype=pl.Categorical),
            "time": pl.Series([dt.time(1, 2, i % 60, i) for i in range(ROWS)]),
            "duration": pl.Series(range(ROWS)).cast(pl.Duration("us")),
            "decimal": pl.Series([Decimal(i) / 8 for i in range(ROWS)], dtype=pl.Decimal(20, 3)),
            "bytes": [b"\xff" * (i % 3) for i in range(ROWS)],
        },
        schema_overrides={"list": pl.List(pl.UInt32)},
    )
    frame.write_parquet(path, row_group_size=700)


def with_duckdb(path: Path) -> None:
    """Write what DuckDB has: intervals, unsigned numbers, nested nanoseconds, bloom filters."""
    duckdb.execute(
        f"""copy (select ['good', 'bad', 'the', ''][1 + i % 4] as text,
        to_months((i % 5)::int) + to_days((i % 7)::int) as interval_,
        uuid() as uuid_, i::uinteger as u32,
        [i::uinteger, null] as list_, make_timestamp_ns(i) as ns,
        {{'a': i::utinyint, 'b': 'x'}} as struct_,
        map(['k'], [make_timestamp_ns(i)]) as map_, (i / 4)::decimal(18, 3) as decimal_,
        (i % 9)::varchar as repeated, time '12:00:01' as time_, (i || '')::json as json_
        from range(200) t(i)) to '{path}' (format parquet, row_group_size 2048)"""
    )


def with_fastparquet(path: Path) -> None:
    """Write a pandas frame through fastparquet, with INT96 and categories."""
    frame = pd.DataFrame(
        {
            "text": texts(),
            "seen": pd.date_range("2020", periods=ROWS, freq="min").as_unit("ns"),
            "number": pd.array([None, 1, 2, 3] * (ROWS // 4), dtype="Int16"),
            "kind": pd.Categorical(texts()),
        }
    )
    fastparquet.write(str(path), frame, times="int96", compression="GZIP", row_group_offsets=1500)


def with_pandas(path: Path) -> None:
    """Write a frame with an index, through pandas."""
    frame = pd.DataFrame({"text": texts(), "x": range(ROWS)}, index=range(7, 7 + ROWS))
    frame.index.name = "number"
    frame.to_parquet(path)


def with_arrow(path: Path) -> None:
    """Write rare encodings, pages of version 2, sorted, with a page index and a bloom filter."""
    table = pa.table(
        {
            "id": pa.array(range(ROWS), pa.uint32()),
            "text": pa.array(texts(), pa.large_string()),
            "x": pa.array([i / 3 for i in range(ROWS)], pa.float16()),
            "nothing": pa.nulls(ROWS),
            "delta": pa.array(range(ROWS), pa.duration("ns")),
        },
        schema=pa.schema(
            [
                pa.field("id", pa.uint32(), nullable=False, metadata={"PARQUET:field_id": "7"}),
                pa.field("text", pa.large_string(), metadata={"a": "b"}),
                pa.field("x", pa.float16()),
                pa.field("nothing", pa.null()),
                pa.field("delta", pa.duration("ns")),
            ],
            metadata={"made by": "us"},
        ),
    )
    pq.write_table(
        table,
        path,
        version="1.0",
        data_page_version="2.0",
        use_dictionary=False,
        column_encoding={"id": "DELTA_BINARY_PACKED", "text": "DELTA_BYTE_ARRAY"},
        sorting_columns=[pq.SortingColumn(0)],
        write_page_index=True,
        write_page_checksum=True,
        row_group_size=1100,
        compression="lz4",
    )


def with_rare_types(path: Path) -> None:
    """Write INT96 in a list, 256-bit decimals, time zones, views, and row groups without rows."""
    table = pa.table(
        {
            "a.b": pa.array(range(4), pa.uint64()),
            "text": pa.array(["good", "bad", None, "the"], pa.string_view()),
            "a": pa.array([{"b": [dt.datetime(9999, 12, 31)]}] * 4),
            "text.x": pa.array(
                [Decimal("1e70"), None, Decimal(1), Decimal(-3)], pa.decimal256(76, 2)
            ),
            "zone": pa.array(range(4), pa.timestamp("us", "Asia/Kathmandu")),
            "bytes": pa.array([b"\xff", None, b"", b"a"], pa.binary_view()),
            "ns": pa.array(range(4), pa.time64("ns")),
            "n" * 70_000: pa.array([True, None, False, True]),
        }
    )
    options: dict[str, Any] = {"use_deprecated_int96_timestamps": True, "compression": "brotli"}
    with pq.ParquetWriter(path, table.schema, **options) as writer:
        for rows in (0, 4, 0, 0, 3, 0):
            writer.write_table(table.slice(0, rows))


def with_one_name_twice(path: Path) -> None:
    """Write two columns of one name, as joins make them."""
    arrays = [pa.array(texts(40)), pa.array(range(40)), pa.array(range(40, 80))]
    pq.write_table(pa.Table.from_arrays(arrays, ["text", "x", "x"]), path)


WRITERS = [with_int96, with_polars, with_duckdb, with_fastparquet, with_pandas, with_arrow]
EVERY = [*WRITERS, with_rare_types, with_one_name_twice]


def chunks(path: Path, columns: int) -> list[dict[str, Any]]:
    """Return what the footer says of the first *columns* leaves of every row group."""
    metadata = pq.ParquetFile(path).metadata
    return [
        metadata.row_group(group).column(k).to_dict()
        for group in range(metadata.num_row_groups)
        for k in range(columns)
    ]


@pytest.mark.parametrize("write", EVERY, ids=lambda write: write.__name__)
def test_every_column_comes_out_as_it_went_in(
    tmp_path: Path, scorer: LocalScorer, write: Write
) -> None:
    """Schema, footer and bytes of the input's columns are the same, whatever wrote them."""
    source, target = tmp_path / "in.parquet", tmp_path / "out.parquet"
    write(source)
    job(source, target, SMALL).run(scorer)
    before, after = pq.ParquetFile(source), pq.ParquetFile(target)
    leaves = before.metadata.num_columns
    kept = pa.schema(list(after.schema_arrow)[: -len(ADDED)], after.schema_arrow.metadata)

    assert kept.equals(before.schema_arrow, check_metadata=True)
    assert after.schema_arrow.names[-len(ADDED) :] == ADDED
    assert chunks(target, leaves) == chunks(source, leaves)
    for k in range(leaves):
        assert after.schema.column(k) == before.schema.column(k)
    end = source.stat().st_size - 8 - before.metadata.serialized_size
    assert target.read_bytes()[:end] == source.read_bytes()[:end]
    assert after.metadata.created_by == before.metadata.created_by


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
def test_a_second_reader_finds_the_same_values(
    tmp_path: Path, scorer: LocalScorer, write: Write
) -> None:
    """DuckDB reads every input column with equal types and values, and the answers."""
    source, target = tmp_path / "in.parquet", tmp_path / "out.parquet"
    write(source)
    job(source, target, SMALL).run(scorer)
    found = read(f"select * exclude ({', '.join(ADDED)}) from '{target}'")
    expected = read(f"select * from '{source}'")

    assert (found.columns, found.types) == (expected.columns, expected.types)
    assert found.fetchall() == expected.fetchall()
    answers = read(f"select text, sentiment_label from '{target}'").fetchall()
    known = {"good": "positive", "bad": "negative", "the": "neutral"}
    assert all(label == known.get(text) for text, label in answers)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_polars_and_fastparquet_read_the_output(tmp_path: Path, scorer: LocalScorer) -> None:
    """So do the libraries that wrote the input; fastparquet leaves its files open."""
    with_polars(tmp_path / "p.parquet")
    with_fastparquet(tmp_path / "f.parquet")
    job(f"{tmp_path}/*.parquet", f"{tmp_path}/out/", SMALL).run(scorer)

    polars = pl.read_parquet(tmp_path / "out/p.parquet")
    assert polars.drop(ADDED).equals(pl.read_parquet(tmp_path / "p.parquet"))
    assert polars["sentiment_label"][:2].to_list() == ["positive", "negative"]
    pandas = fastparquet.ParquetFile(str(tmp_path / "out/f.parquet")).to_pandas()
    before = fastparquet.ParquetFile(str(tmp_path / "f.parquet")).to_pandas()
    pd.testing.assert_frame_equal(pandas.drop(columns=ADDED), before)


def test_far_dates_stay_as_they_are(tmp_path: Path, scorer: LocalScorer) -> None:
    """The sentinels of Hive and Spark are INT96 before and after."""
    source, target = tmp_path / "in.parquet", tmp_path / "out.parquet"
    with_int96(source)
    job(source, target).run(scorer)

    found = read(f"select min(seen), max(seen) from '{target}'").fetchall()
    assert found == [(dt.datetime(1, 1, 1), dt.datetime(9999, 12, 31))]
    assert pq.ParquetFile(target).metadata.row_group(0).column(0).physical_type == "INT96"


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
def test_only_columns_copies_the_named_ones(
    tmp_path: Path, scorer: LocalScorer, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their values are equal, the others' bytes are gone, and large row groups take pieces."""
    monkeypatch.setattr(parquet_writer, "_PIECE_ROWS", 333)
    source, target = tmp_path / "in.parquet", tmp_path / "out.parquet"
    write(source)
    (*_, last) = (name for name in pq.read_schema(source).names if name != "text")
    job(source, target, Layout(keep=(last, "text"))).run(scorer)
    found = read(f"select * exclude ({', '.join(ADDED)}) from '{target}'")

    assert found.fetchall() == read(f"select {last}, text from '{source}'").fetchall()
    assert pq.read_table(target, columns=ADDED).num_rows == found.shape[0]
    assert pl.read_parquet(target, columns=ADDED).height == found.shape[0]


@pytest.mark.parametrize(
    "kind",
    [
        pa.string(),
        pa.large_string(),
        pa.string_view(),
        pa.binary(),
        pa.dictionary(pa.int8(), pa.string()),
    ],
)
def test_gaps_are_filled_in_any_type_of_text(
    tmp_path: Path, scorer: LocalScorer, kind: pa.DataType
) -> None:
    """An empty or blank label is missing, as it is in CSV and JSON Lines; the others stay."""
    source, target = tmp_path / "in.parquet", tmp_path / "out.parquet"
    table = pa.table({"text": ["good"] * 5, "seen": pa.array(range(5), pa.timestamp("ns"))})
    pq.write_table(table, source, version="1.0", use_deprecated_int96_timestamps=True)
    job(source, target).run(scorer)
    scored = pq.read_table(target)
    labels = pa.array(["mine", None, "", " ", "yours"]).cast(kind)
    scored = scored.set_column(2, "sentiment_label", labels)
    scored = scored.set_column(3, "sentiment_score", pa.array([0.25, None, None, None, 0.5]))
    pq.write_table(scored, source, use_deprecated_int96_timestamps=True)

    job(source, target, Layout(update=True), overwrite=True).run(scorer)

    found = read(f"select sentiment_label, sentiment_score, seen from '{target}'").fetchall()
    expected = ["mine", "positive", "positive", "positive", "yours"]
    labels = [row[0].decode() if isinstance(row[0], bytes) else row[0] for row in found]
    assert labels == expected
    assert [row[1] for row in found] == [0.25, *[pytest.approx(0.8017847)] * 3, 0.5]
    assert pq.ParquetFile(target).schema_arrow.field("sentiment_label").type == kind
    assert (
        read(f"select seen from '{target}'").fetchall()
        == read(f"select seen from '{source}'").fetchall()
    )


@pytest.mark.parametrize(
    ("change", "layout", "reason"),
    [
        ({"sentiment_label": pa.array([1])}, Layout(update=True), "COLUMN_COLLISION"),
        ({"sentiment_score": pa.array([[1.0]])}, Layout(update=True), "COLUMN_COLLISION"),
        ({}, Layout(), "COLUMN_COLLISION"),
        ({"sentiment_error": None}, Layout(update=True), "COLUMN_COLLISION"),
    ],
)
def test_columns_that_answers_do_not_fit_are_refused_first(
    tmp_path: Path, scorer: LocalScorer, change: dict[str, Any], layout: Layout, reason: str
) -> None:
    """Before a model is loaded, and not after the last row."""
    source, target = tmp_path / "in.parquet", tmp_path / "out.parquet"
    pq.write_table(pa.table({"text": ["good"]}), source)
    job(source, target).run(scorer)
    table = pq.read_table(target)
    for name, values in change.items():
        place = table.column_names.index(name)
        table = table.remove_column(place)
        if values is not None:
            table = table.add_column(place, name, values)
    pq.write_table(table, source)

    with pytest.raises(SentimillError) as caught:
        job(source, tmp_path / "new.parquet", layout).plan()

    assert caught.value.reason == reason


def test_a_table_without_row_groups_gets_its_columns(tmp_path: Path, scorer: LocalScorer) -> None:
    """Such as a part file of Spark that received no rows."""
    source, target = tmp_path / "in.parquet", tmp_path / "out.parquet"
    pq.ParquetWriter(source, pa.schema([("text", pa.string())])).close()
    job(source, target).run(scorer)

    assert read(f"select * from '{target}'").columns == ["text", *ADDED]
