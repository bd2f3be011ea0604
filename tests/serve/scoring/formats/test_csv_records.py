"""The rows of delimited files, as every command reads them."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from sentimill.errors import TableError
from sentimill.scoring.formats.csv_records import open_rows


def test_rows_come_with_their_lines_and_errors(tmp_path: Path) -> None:
    """Every row has its number, its first line, its fields, and what is wrong with it."""
    path = tmp_path / "in.csv"
    path.write_bytes(
        b'id,text\n1,"two\nlines"\n\n2\n3,"good" x\nid,text\n4,caf\xe9\n5,bad\n6,"open\n'
    )

    with open_rows(path) as rows:
        found = list(rows)

    assert rows.columns == ("id", "text")
    assert [(row.number, row.line) for row in found] == [
        (1, 2), (2, 5), (3, 6), (4, 7), (5, 8), (6, 9), (7, 10),
    ]  # fmt: skip
    assert [row.error and row.error.reason for row in found] == [
        None,
        "RAGGED_ROW",
        "BAD_QUOTES",
        "REPEATED_HEADER",
        "UNDECODABLE_ROW",
        None,
        "UNCLOSED_QUOTE",
    ]
    assert found[0].fields == ["1", "two\nlines"]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("in.tsv", b"label\ttext\nx\tgood, yes\n"),
        ("in.csv", b"label;text\nx;good, yes\n"),
        ("in.csv", b"\xef\xbb\xbfsep=|\nlabel|text\nx|good, yes\n"),
        ("in.csv.gz", gzip.compress(b"label;text\nx;good, yes\n", mtime=0) + bytes(512)),
    ],
)
def test_the_file_says_how_it_is_read(tmp_path: Path, name: str, data: bytes) -> None:
    """Delimiter, byte-order mark and compression need no option."""
    (tmp_path / name).write_bytes(data)

    with open_rows(tmp_path / name, wanted=("text",)) as rows:
        assert [dict(zip(rows.columns, row.fields, strict=True)) for row in rows] == [
            {"label": "x", "text": "good, yes"}
        ]


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("in.csv", b"", "EMPTY_FILE"),
        ("in.csv", "text\ngood\n".encode("utf-16-le"), "NOT_UTF8"),
        ("in.csv", gzip.compress(b"text\ngood\n", mtime=0), "BAD_COMPRESSION"),
        ("in.csv.gz", b"text\ngood\n", "BAD_COMPRESSION"),
        ("in.csv.gz", gzip.compress(b"text\n" + b"good\n" * 9, mtime=0)[:-9], "TRUNCATED"),
        ("in.parquet", b"PAR1", "UNKNOWN_FORMAT"),
        ("absent.csv", None, "FILE_NOT_FOUND"),
    ],
)
def test_a_file_that_is_no_table_is_refused(
    tmp_path: Path, name: str, data: bytes | None, reason: str
) -> None:
    """With one error for the whole file, wherever it shows."""
    if data is not None:
        (tmp_path / name).write_bytes(data)

    with pytest.raises(TableError) as caught, open_rows(tmp_path / name) as rows:
        list(rows)

    assert caught.value.reason == reason
