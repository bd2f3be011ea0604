"""Files of every format are read as they are meant; a broken one is told where it is broken."""

from __future__ import annotations

import gzip
import hashlib
import logging
from pathlib import Path

import pytest
from datasets import Dataset

from sentimill.errors import TableError
from sentimill_train.data.readers import digest_of, files_of, is_hub, open_table
from sentimill_train.data.schema import Columns

LATIN = Columns(encoding="latin-1")


def rows(path: Path, *columns: str) -> list[dict[str, object]]:
    """Return *columns* of every row."""
    return list(open_table(str(path)).rows(columns))


def texts(folder: Path, data: bytes, name: str = "r.csv") -> list[object]:
    """Return the column `text` of a file with *data*."""
    (folder / name).write_bytes(data)
    return [row.get("text") for row in rows(folder / name, "text")]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"text,n\na,1\nb,2\n", ["a", "b"]),
        (b"text,n\na,1\nb,2", ["a", "b"]),
        (b"text,n\r\na,1\r\nb,2\r\n", ["a", "b"]),
        (b"\xef\xbb\xbftext,n\na,1\n", ["a"]),
        (b'text,n\n"a\r\n b, ""c""",1\n', ['a\r\n b, "c"']),
        (b"text,n\n\na,1\n\n", ["a"]),
        (b"text,n\nNA,1\nnull,2\n,3\n007,4\n", ["NA", "null", "", "007"]),
        ("text,n\na\u2028b\x85c\x0b,1\n".encode(), ["a\u2028b\x85c\x0b"]),
        ("text,n\n😍 \u202e\u05e9\u05dc,1\n".encode(), ["😍 \u202e\u05e9\u05dc"]),
        (b"text,n\na\x00b,1\n", ["a\x00b"]),
        (b"text,n\n" + b"x" * 300_000 + b",1\n", ["x" * 300_000]),
    ],
)
def test_csv_keeps_what_is_in_its_cells(tmp_path: Path, data: bytes, expected: list[str]) -> None:
    """Nothing is taken for a number, a gap or the end of a line that is none."""
    assert texts(tmp_path, data) == expected


@pytest.mark.parametrize(
    ("name", "data", "csv"),
    [
        ("r.csv", "text;n\nan old café, closed;1\n".encode(), Columns()),
        (
            "r.csv",
            "text;n\nan old café, closed;1\n".encode("latin-1"),
            Columns(encoding="latin-1"),
        ),
        ("r.csv", "text|n\nan old café, closed|1\n".encode(), Columns(delimiter="|")),
        ("r.csv", "n;text\n1;'an old café, closed'\n".encode(), Columns(quote="'")),
        (
            "r.csv.gz",
            gzip.compress('text,n\n"an old café, closed",1\n'.encode(), mtime=0),
            Columns(),
        ),
        (
            "r.jsonl.gz",
            gzip.compress('{"text": "an old café, closed"}\n'.encode(), mtime=0),
            Columns(),
        ),
        ("r.tab", "text\tn\nan old café, closed\t1\n".encode(), Columns()),
    ],
    ids=["semicolons", "latin-1", "bars", "single quotes", "csv.gz", "jsonl.gz", "tab"],
)
def test_tables_are_read_as_score_reads_them(
    tmp_path: Path, name: str, data: bytes, csv: Columns
) -> None:
    """Delimiter, encoding, quotes and compression alike, by their signs or by the options."""
    (tmp_path / name).write_bytes(data)

    found = open_table(str(tmp_path / name), csv).rows(["text"])

    assert [row["text"] for row in found] == ["an old café, closed"]


def test_tsv_is_split_at_tabs(tmp_path: Path) -> None:
    """A comma is a character there."""
    assert texts(tmp_path, b"text\tn\na, b\t1\n", "r.tsv") == ["a, b"]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'{"text": "a"}\n{"text": "b"}', ["a", "b"]),
        (b'\xef\xbb\xbf{"text": "a"}\r\n\r\n{"text": "b"}\r\n', ["a", "b"]),
        ('{"text": "a\u2028b\\u2028"}\n'.encode(), ["a\u2028b\u2028"]),
        (b'{"text": "a", "x": {"y": 1}}\n{"x": null}\n{"text": "c", "z": [1]}\n', ["a", None, "c"]),
        (b'{"text": null}\n' * 3 + b'{"text": "late"}\n', [None, None, None, "late"]),
    ],
)
def test_json_lines_need_not_have_the_same_keys(
    tmp_path: Path, data: bytes, expected: list[str | None]
) -> None:
    """A key that comes late or is null at first is a column like any other."""
    assert texts(tmp_path, data, "r.jsonl") == expected


def test_parquet_is_read_with_its_kinds(tmp_path: Path) -> None:
    """Lists, numbers and gaps come as they are."""
    made = Dataset.from_dict({"text": ["a", None], "stars": [5, None], "probs": [[0.5, 0.5], None]})
    made.to_parquet(tmp_path / "r.parquet")

    assert rows(tmp_path / "r.parquet", "text", "stars", "probs") == [
        {"text": "a", "stars": 5, "probs": [0.5, 0.5]},
        {"text": None, "stars": None, "probs": None},
    ]


@pytest.mark.parametrize(
    ("name", "data", "reason", "says"),
    [
        ("r.csv", b"", "EMPTY_FILE", "r.csv is empty: give"),
        ("r.csv", b"\n", "EMPTY_FILE", "r.csv is empty: it needs a header row"),
        (
            "r.csv",
            b"text,n\na,1\nb\n",
            "RAGGED_ROW",
            "row 2: the row has 1 fields",
        ),
        (
            "r.csv",
            b"text,n\na,1,2\n",
            "RAGGED_ROW",
            "row 1: the row has 3 fields",
        ),
        ("r.csv", b"text,text\na,b\n", "DUPLICATE_COLUMN", "two columns 'text': rename one"),
        (
            "r.csv",
            b'text,n\na,1\n"b,2\n',
            "UNCLOSED_QUOTE",
            "row 2: .*--quote none",
        ),
        ("r.csv", b"text\na\n\xff\n", "UNDECODABLE_ROW", "row 2: the row is not valid utf-8: save"),
        ("r.csv", "text\na\n".encode("utf-16"), "NOT_UTF8", "add --encoding utf-16"),
        ("r.jsonl", b"\n", "EMPTY_FILE", "r.jsonl has no rows: give"),
        ("r.jsonl", b'{"text": "a"}\n{"text": "\xff"}\n', "BAD_ENCODING", "row 2: not UTF-8; save"),
        (
            "r.jsonl",
            b'{"text": "a"}\n\n{"text": "\n',
            "BAD_FILE",
            "row 2: .*; write one JSON object",
        ),
        ("r.jsonl", b'{"text": "\\ud800"}\n', "BAD_FILE", "row 1: .*; write one JSON object"),
        ("r.jsonl", b'[{"text": "a"}]\n', "BAD_FILE", "row 1: .*; write one JSON object"),
        ("r.parquet", b"PAR1 and no more", "BAD_FILE", "r.parquet cannot be read .*: write it"),
        ("r.xlsx", b"x", "UNSUPPORTED_FORMAT", "r.xlsx is not supported: save it as .csv,"),
        ("r.json", b"[]", "UNSUPPORTED_FORMAT", "r.json is not supported: save it as .csv,"),
    ],
)
def test_a_broken_file_is_told_where_it_is_broken(
    tmp_path: Path, name: str, data: bytes, reason: str, says: str
) -> None:
    """File, row and remedy are in the message, the reason is stable."""
    with pytest.raises(TableError, match=says) as caught:
        texts(tmp_path, data, name)

    assert caught.value.reason == reason
    assert name in str(caught.value)


def test_an_absent_file_is_said_to_be_absent(tmp_path: Path) -> None:
    """And nothing is looked for on the network instead."""
    with pytest.raises(TableError, match=r"there is no file .*none.csv: check") as caught:
        rows(tmp_path / "none.csv", "text")

    assert caught.value.reason == "FILE_NOT_FOUND"


def test_a_folder_is_said_to_be_one(tmp_path: Path) -> None:
    """It is there, so to check its path would not help."""
    with pytest.raises(TableError, match=r" is a folder: name a file in it$") as caught:
        rows(tmp_path, "text")

    assert caught.value.reason == "FOLDER_AS_INPUT"


def test_reading_leaves_no_cache_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither in the library's cache folder nor among temporary files, nor a word in the log."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))

    with caplog.at_level(logging.DEBUG, logger="datasets"):
        assert texts(tmp_path, b"text\na\n") == ["a"]

    assert [path.name for path in tmp_path.iterdir()] == ["r.csv"]
    assert caplog.records == []


def test_a_hub_data_set_gives_class_names_and_splits(tmp_path: Path) -> None:
    """Its class numbers come as names, -1 as no label, and its splits as a column.

    A folder stands for the hub: the library reads both alike.
    """
    from datasets import ClassLabel, DatasetDict, Features, Value

    features = Features({"text": Value("string"), "label": ClassLabel(names=["neg", "pos"])})
    split = {
        "train": Dataset.from_dict({"text": ["a", "b"], "label": [1, -1]}, features=features),
        "test": Dataset.from_dict({"text": ["c"], "label": [0]}, features=features),
    }
    for name, part in DatasetDict(split).items():
        part.to_parquet(tmp_path / "data" / f"{name}-0.parquet")

    table = open_table(f"hub:{tmp_path}")
    found = list(table.rows(["text", "label", "split"]))

    assert "split" in table.columns
    assert sorted((str(row["text"]), row["label"], row["split"]) for row in found) == [
        ("a", "pos", "train"),
        ("b", None, "train"),
        ("c", "neg", "test"),
    ]


def test_a_hub_data_set_may_declare_nothing_and_have_a_column_split(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody can rename a column there; the splits of the data set count."""
    import datasets

    found = [{"text": "a", "split": "odd"}, {"text": "b", "split": "odd"}]
    bare = datasets.IterableDataset.from_generator(lambda: iter(found))
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **options: {"test": bare})

    table = open_table("hub:a/b")

    assert bare.features is None
    assert table.columns == ("text", "split")
    assert list(table.rows(["text", "split"])) == [
        {"split": "test", "text": "a"},
        {"split": "test", "text": "b"},
    ]


def test_a_hub_that_is_not_reached_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to do instead."""
    import datasets

    def unreachable(*args: object, **options: object) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)

    with pytest.raises(TableError, match=r"hub:a/b .*no route.*download the files") as caught:
        rows(Path("hub:a") / "b", "text")

    assert caught.value.reason == "HUB_UNREACHABLE"


def test_only_a_hub_name_is_a_hub_name() -> None:
    """A path that looks like owner/name stays a path."""
    assert is_hub("hub:owner/name@main")
    assert not is_hub("owner/name")
    assert files_of("owner/name") == (Path("owner/name"),)


def test_the_digest_is_that_of_the_bytes(tmp_path: Path) -> None:
    """So that anybody can check it with sha256sum."""
    (tmp_path / "r.csv").write_bytes(b"text\na\n")

    assert digest_of(str(tmp_path / "r.csv")) == hashlib.sha256(b"text\na\n").hexdigest()
