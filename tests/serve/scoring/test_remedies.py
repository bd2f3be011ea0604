"""Every remedy that an error of `score` recommends works: the command is run with it."""

from __future__ import annotations

import gzip
import io
import json
import re
import shlex
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cli_in_process import Run, Sentimill

OPTION = re.compile(r"--[a-z-]+(?: (?:'[^']*'|[^\s,:;()]+))?")
FLAGS = {"--overwrite", "--restart", "--where-missing"}


def parquet(table: pa.Table) -> bytes:
    """Return *table* as a file."""
    out = io.BytesIO()
    pq.write_table(table, out)
    return out.getvalue()


def options_in(message: str) -> list[list[str]]:
    """Return the options that *message* recommends, each as arguments."""
    found = []
    for option in OPTION.findall(message):
        name, *value = shlex.split(option)
        found.append([name] if name in FLAGS else [name, *value])
    return found


CSV = b"id,text\n1,good\n2,bad\n"
ARRAY = json.dumps([{"text": "good"}, {"text": "bad"}], indent=2).encode()
ZSTD = pa.Codec("zstd").compress(CSV, asbytes=True)


@pytest.mark.parametrize(
    ("source", "target", "data", "says"),
    [
        ("in.csv", "out.csv", "id,text\n1,good\n2,bad\n".encode("utf-16-le"), "UTF-16 without"),
        ("in.csv", "out.csv", "id,text\n1,good\n2,bad\n".encode("utf-16-be"), "UTF-16 without"),
        ("in.csv", "out.csv", "id,text\n1,good\n2,bad\n".encode("utf-16"), "byte-order mark says"),
        ("in.csv", "out.csv", "id,text,naïve\n1,good,\n2,bad,\n".encode("cp1252"), "not utf-8"),
        ("in.csv", "out.csv", gzip.compress(CSV, mtime=0), "compressed with gzip"),
        ("in.csv", "out.csv", ZSTD, "compressed with zstd"),
        ("in.csv.gz", "out.csv", CSV, "not compressed with gzip"),
        ("in.csv.zst", "out.csv", CSV, "not compressed with zstd"),
        ("in.csv", "out.parquet", parquet(pa.table({"text": ["good", "bad"]})), "a Parquet file"),
        ("in.jsonl", "out.jsonl", ARRAY, "one JSON array"),
        ("in.json", "out.json", b'{"text":"good"}\n{"text":"bad"}\n', "not a JSON array"),
        ("in.csv", "out.csv", b"id,text,sentiment_label\n1,good,\n2,bad,\n", "another --prefix"),
        ("in.data", "out.csv", CSV, "is unknown"),
    ],
)
def test_the_option_that_a_message_names_reads_the_file(
    sentimill: Sentimill,
    bundle: Path,
    tmp_path: Path,
    source: str,
    target: str,
    data: bytes,
    says: str,
) -> None:
    """The first option in the message, with a value where the message leaves it to the user."""
    (tmp_path / source).write_bytes(data)
    command = ["score", str(tmp_path / source), str(tmp_path / target), "--bundle", str(bundle)]

    refused = sentimill(*command)
    name, *value = options_in(refused.error)[0]
    if name == "--prefix":
        value = ["mood_"]
    if name == "--format" and value == ["or"]:
        value = ["csv"]
    if target == "out.jsonl":
        command[2] = str(tmp_path / "out.json")
    if source == "in.json":
        command[2] = str(tmp_path / "out.jsonl")
    done = sentimill(*command, name, *value)

    assert says in refused.error
    assert refused.code in (2, 4)
    assert done.code == 0, done.err
    assert "2 rows in" in done.err


@pytest.mark.parametrize(
    ("data", "header", "rows"),
    [
        (
            b'"2","Great CD","My lovely Pat has a great voice"\n"1","Bad","bad"\n',
            b"n,title,text",
            2,
        ),
        (b"5;good phone, really\n1;bad\n", b"stars;text", 2),
        (b"I got a text which was good and so on.\nbad\n", b"text", 2),
        (b'5\tgood phone\n1\t"bad\nphone"\n', b"stars\ttext", 2),
        (b"Reviews of May\t2026\nstars\ttext\n5\tgood\n", None, 1),
    ],
)
def test_a_missing_header_is_told_and_one_that_is_put_there_reads_the_file(
    sentimill: Sentimill, bundle: Path, tmp_path: Path, data: bytes, header: bytes | None, rows: int
) -> None:
    """The first line may be a row, or a title above the header."""
    source = tmp_path / "in.csv"
    source.write_bytes(data)
    command = ["score", str(source), str(tmp_path / "out.csv"), "--bundle", str(bundle)]

    refused = sentimill(*command)
    source.write_bytes(data.partition(b"\n")[2] if header is None else header + b"\n" + data)
    done = sentimill(*command)

    assert "the first row, not a header, add a line above it with column names" in refused.error
    assert "if it is a title, delete the lines above the header" in refused.error
    assert "--delimiter" not in refused.error
    assert re.match(rf"{rows} rows in .*, 0 with an error", done.err)


@pytest.mark.parametrize(
    ("data", "option"),
    [
        (b'id,text\n1,"good" they say\n2,"bad" too\n', "--quote none"),
        (b'id,text\n1,"good \\"yes\\" so"\n2,bad\n', "--escape '\\'"),
        (b'id,text\n1,good\n2,"bad\n', "--quote none"),
    ],
)
def test_the_option_that_a_bad_row_names_reads_the_row(
    sentimill: Sentimill, bundle: Path, tmp_path: Path, data: bytes, option: str
) -> None:
    """The message stands in the errors file."""
    (tmp_path / "in.csv").write_bytes(data)
    command = ["score", str(tmp_path / "in.csv"), str(tmp_path / "out.csv"), "--overwrite"]

    first = sentimill(*command, "--bundle", bundle)
    listed = (tmp_path / "out.csv.errors.jsonl").read_text().splitlines()
    again = sentimill(*command, "--bundle", bundle, *shlex.split(option))

    assert first.code == 3
    assert all(option in json.loads(line)["message"] for line in listed)
    assert again.code == 0, again.err
    assert "2 rows in" in again.err


def test_the_rest_of_the_remedies(sentimill: Sentimill, bundle: Path, tmp_path: Path) -> None:
    """Columns, delimiters, outputs that exist, several inputs, gaps."""

    def run(*args: str | Path) -> Run:
        return sentimill("score", *args, "--bundle", bundle)

    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_bytes(b"id~text\n1~good\n")
    assert "--delimiter '~'" in run(source, target).error
    assert run(source, target, "--delimiter", "~").code == 0
    target.unlink()
    source.write_bytes(b"id~review\n1~good\n")
    assert "--delimiter" not in run(source, target).error
    source.write_bytes(b"id,review\n1,good\n")
    assert "name one with --text-column" in run(source, target).error
    assert run(source, target, "--text-column", "review").code == 0
    assert "add --overwrite" in run(source, target, "--text-column", "review").error
    assert run(source, target, "--text-column", "review", "--overwrite").code == 0
    taken = run(target, tmp_path / "two.csv", "--text-column", "review")
    assert "--where-missing" in taken.error
    gaps = run(target, tmp_path / "two.csv", "--text-column", "review", "--where-missing")
    assert gaps.code == 0
    both = run(source, target, tmp_path / "three.csv", "--text-column", "review")
    assert "ending in /" in both.error
    folder = f"{tmp_path}/made/"
    assert run(source, target, folder, "--text-column", "review", "--where-missing").code == 0


def test_a_folder_and_an_archive_are_told_with_what_reads_them(
    sentimill: Sentimill, bundle: Path, tmp_path: Path
) -> None:
    """A format would not help either; it does where a table has the name of an archive."""
    folder, wrong, target = tmp_path / "my reviews", tmp_path / "in.xls", tmp_path / "out/"
    folder.mkdir()
    (folder / "a.csv").write_bytes(CSV)
    wrong.write_bytes(CSV)
    model: list[str | Path] = ["--bundle", bundle]

    of_folder = sentimill("score", folder, f"{target}/", *model)
    pattern = re.search(r"is a folder: name files in it, such as (.*)$", of_folder.error)
    assert pattern
    done = sentimill("score", *shlex.split(pattern[1]), f"{target}/", *model)
    of_archive = sentimill("score", wrong, f"{target}/", *model)
    named = sentimill("score", wrong, tmp_path / "o.csv", "--format", "csv", *model)

    assert (of_folder.code, of_archive.code) == (4, 4)
    assert re.match("2 rows in", done.err)
    assert "has a format that score does not read: unpack it, or convert it" in of_archive.error
    assert "if only its name is wrong, name the format with --format" in of_archive.error
    assert named.code == 0
