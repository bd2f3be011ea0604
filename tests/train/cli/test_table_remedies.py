"""What a message says about a table helps in every command that reads one; `sample` stands for all.

`train`, `evaluate`, `label`, `curate` and `drift` open tables by the same reader and options.
"""

from __future__ import annotations

import gzip
import io
import re
import shlex
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cli_in_process import Run, Sentimill

CSV = b"id,text\n1,good\n2,bad\n"
TWO_COLUMNS = ("--text-column", "title", "--text-column", "re view")
PARQUET = io.BytesIO()
pq.write_table(pa.table({"text": ["good", "bad"]}), PARQUET)


def sample(sentimill: Sentimill, bundle: Path, source: Path, *options: str) -> Run:
    """Run `sample` on *source*."""
    out = source.with_name("out.jsonl")
    out.unlink(missing_ok=True)
    return sentimill("sample", source, "--bundle", bundle, "--out", out, *options)


@pytest.mark.parametrize(
    ("name", "data", "remedy"),
    [
        ("r.csv", CSV.decode().encode("utf-16-le"), "--encoding utf-16-le"),
        ("r.csv", CSV.decode().encode("utf-16"), "--encoding utf-16"),
        ("r.csv", CSV.decode().encode("utf-32-be"), "--encoding utf-32-be"),
        ("r.csv", "text,naïve\ngood,1\nbad,2\n".encode("cp1252"), "--encoding cp1252"),
        ("r.csv", b"id~text\n1~good\n2~bad\n", "--delimiter '~'"),
        ("r.csv", b"id,review\n1,good\n2,bad\n", "--text-column"),
        ("r.csv", b'id,text\n1,"good" they say\n2,bad\n', "--quote none"),
        ("r.csv", b'id,text\n1,"good \\"yes\\" so"\n2,bad\n', "--escape '\\'"),
        ("r.csv", gzip.compress(CSV, mtime=0), ".csv.gz"),
        ("r.csv.gz", CSV, ".csv"),
        ("r.csv", PARQUET.getvalue(), ".parquet"),
    ],
)
def test_what_a_message_says_reads_the_file(
    sentimill: Sentimill, bundle: Path, tmp_path: Path, name: str, data: bytes, remedy: str
) -> None:
    """An option, or an end of the name."""
    source = tmp_path / name
    source.write_bytes(data)

    refused = sample(sentimill, bundle, source)
    options = [] if remedy.startswith(".") else remedy.replace("'", "").split()
    if remedy == "--text-column":
        options.append("review")
    if not options:
        assert f"let its name end in {remedy}," in refused.error
        source = source.rename(tmp_path / f"r{remedy}")
    done = sample(sentimill, bundle, source, *options)

    assert refused.code == 4
    assert remedy in refused.error
    assert done.code == 0, done.err
    assert "2 of 2 rows looked at" in done.err


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"id,text\n1,good\n2\n", r"row 2: .* 1 fields and the header 2: give each column a field"),
        (b"id,text\n1,good\n2,a,b\n", r"row 2: .*: put quotes around a text that contains ','"),
        (b"id,text\n1,good\nid,text\n", r"row 2: the row repeats the header, .*: delete the row"),
    ],
)
def test_a_row_that_stops_the_reading_says_what_to_do(
    sentimill: Sentimill, bundle: Path, tmp_path: Path, data: bytes, says: str
) -> None:
    """The row is named, from 1, and so is the remedy."""
    (tmp_path / "r.csv").write_bytes(data)

    found = sample(sentimill, bundle, tmp_path / "r.csv")

    assert found.code == 4
    assert re.search(says, found.error)


def test_texts_that_are_stored_as_bytes_are_read(
    sentimill: Sentimill, bundle: Path, tmp_path: Path
) -> None:
    """As `score` reads them."""
    pq.write_table(pa.table({"text": [b"good", b"bad"]}), tmp_path / "r.parquet")

    assert sample(sentimill, bundle, tmp_path / "r.parquet").code == 0


@pytest.mark.parametrize(
    ("data", "options", "hints"),
    [
        (CSV, [], 1),
        (CSV + b"3\n", [], 0),
        (CSV, ["--only-columns", "id"], 0),
        (b"id;title;re view\n1;good;the\n2;bad;the\n", ["--delimiter", ";", *TWO_COLUMNS], 1),
        (CSV.decode().encode("utf-16"), ["--encoding", "utf-16"], 1),
        ("id,text\n1,na\xefve\n2,bad\n".encode("cp1252"), ["--encoding", "cp1252"], 1),
        (b'id,text\n1,"good" they say\n2,bad\n', ["--quote", "none"], 1),
        (b"id,text\n1,'good, they'\n2,bad\n", ["--quote", "'"], 1),
        (b'id,text\n1,"good \\"yes\\""\n2,bad\n', ["--escape", "\\"], 1),
    ],
)
def test_the_next_command_that_score_names_works(
    sentimill: Sentimill, bundle: Path, tmp_path: Path, data: bytes, options: list[str], hints: int
) -> None:
    """It repeats the options of the table; none is named where a row or a column would stop it."""
    (tmp_path / "r.csv").write_bytes(data)
    source, target = tmp_path / "r.csv", tmp_path / "o.csv"
    scored = sentimill("score", source, target, *options, "--bundle", bundle)
    named = re.findall(r"next: sentimill (.*?)   ", scored.err)

    assert len(named) == hints
    for command in named:
        done = sentimill(*shlex.split(command), "--bundle", bundle)
        assert done.code == 0, done.err
        assert "2 of 2 rows looked at, 0 with a label, 0 unreadable" in done.err


@pytest.mark.parametrize(
    "command",
    [
        ["curate", "r.csv", "."],
        ["curate", "r.csv", "o.jsonl", "--report", "."],
        ["drift", "--on", "r.csv", "--json", "."],
        ["evaluate", "--on", "r.csv", "--json", "."],
        ["evaluate", "--on", "r.csv", "--report", "."],
        ["label", "r.csv", "."],
        ["cost", "--report", "."],
    ],
)
def test_a_folder_in_place_of_an_output_is_refused_before_the_work(
    sentimill: Sentimill, command: list[str]
) -> None:
    """The input, which is not there, has not been looked for yet."""
    found = sentimill(*command)

    assert found.code == 2
    assert "is a directory" in found.err
