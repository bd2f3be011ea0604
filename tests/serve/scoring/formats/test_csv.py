"""CSV and TSV in, the same bytes with answers out."""

from __future__ import annotations

import bz2
import csv
import io
import json
import lzma
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from scoring_jobs import LAYOUT, SMALL_WINDOW_BYTES, job, score
from sentimill.errors import SentimillError, TableError
from sentimill.scoring.answer_columns import COLUMNS, Answers, AnswerSchema
from sentimill.scoring.formats import csv_records
from sentimill.scoring.formats.compression import Stream
from sentimill.scoring.formats.csv import DelimitedTable
from sentimill.scoring.formats.csv_dialect import Dialect
from sentimill.scoring.formats.kinds import Kind
from sentimill.scoring.formats.table import Layout, Position
from sentimill.scoring.scorers import LocalScorer

ADDED = [f"sentiment_{name}" for name in COLUMNS]


def table(data: bytes, encoding: str = "utf-8-sig", **dialect: str) -> list[list[str]]:
    """Return the cells of a CSV file."""
    text = data.decode(encoding, "replace")
    return list(csv.reader(io.StringIO(text, newline=""), delimiter=dialect.get("delimiter", ",")))


def outcomes(data: bytes) -> list[str]:
    """Return of each scored row its label, or the reason why it has none."""
    header, *rows = (row for row in table(data) if any(row))
    label, error = header.index("sentiment_label"), -1
    return [row[label] or row[error] for row in rows if row]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"id,text\n1,good\n2,bad\n", ["positive", "negative"]),
        (b"id,text\n1,good\n2,bad", ["positive", "negative"]),
        (b"id,text\r\n1,good\r\n2,bad\r\n", ["positive", "negative"]),
        (b"\xef\xbb\xbftext,id\ngood,1\n", ["positive"]),
        (b'\xef\xbb\xbf"text",id\ngood,1\n', ["positive"]),
        (b'"a\nb",text\n1,good\n', ["positive"]),
        (b'id,text\n1,"good, or so"\n', ["positive"]),
        (b'id,text\n1,"she said ""good"""\n', ["positive"]),
        (b'id,text\n1,"bad\nbad"\n2,good\n', ["negative", "positive"]),
        (b'id,text\r\n1,"bad\r\nbad"\r\n2,good\r\n', ["negative", "positive"]),
        (b'id,text\n1,5" good\n2,bad\n', ["positive", "negative"]),
        (b"text\ngood\n\nbad\n\n", ["positive", "negative"]),
        (b"id,text\r\r\n1,good\r\r\n2,bad\r", ["positive", "negative"]),
        (b"id,text\n1,\x00good\n", ["positive"]),
        ("id,text\n1,👍🏽 good رائع\n".encode(), ["positive"]),
        (b"id,text\n", []),
        (b"id,text", []),
        (b"text,x,x\ngood,1,2\n", ["positive"]),
        (b",,\nid,text,x\n1,good,2\n", ["positive"]),
        (b"id,text,x\n1,good,caf\xe9\n", ["positive"]),
    ],
)
def test_each_row_gets_its_answer(
    tmp_path: Path, scorer: LocalScorer, data: bytes, expected: list[str]
) -> None:
    """Quotes, line ends, byte-order mark and every script are read as CSV has them."""
    summary, out = score(tmp_path, scorer, data)

    assert outcomes(out) == expected
    assert (summary.rows, summary.failed) == (len(expected), 0)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b"lone", "RAGGED_ROW"),
        (b"1,good,more", "RAGGED_ROW"),
        (b"1,a\rb", "RAGGED_ROW"),
        (b"1,caf\xe9", "UNDECODABLE_ROW"),
        (b"1,\xed\xa0\x80", "UNDECODABLE_ROW"),
        (b"lone,", "EMPTY_TEXT"),
        (b"1," + b"x" * (2 << 20), "TEXT_TOO_LARGE"),
    ],
)
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_bad_row_costs_no_other_row(
    tmp_path: Path, scorer: LocalScorer, row: bytes, reason: str, end: bytes
) -> None:
    """It keeps its place and its bytes, and is listed with its line."""
    rows = [b"id,text", b'1,"good\n"', row, b"2,bad", b""]
    summary, out = score(tmp_path, scorer, end.join(rows))
    listed = (tmp_path / "out.csv.errors.jsonl").read_text().splitlines()

    places = [out.index(part) for part in (b"positive", row, reason.encode() + end, b"negative")]
    assert places == sorted(places)
    assert (summary.rows, summary.failed) == (3, 1)
    assert [json.loads(line)["error"] for line in listed] == [reason]
    assert [json.loads(line)["line"] for line in listed] == [4]


def test_a_quote_that_is_never_closed_is_a_bad_row(tmp_path: Path, scorer: LocalScorer) -> None:
    """Its answer stands behind a quote that closes it, and the errors say how much it holds."""
    _, out = score(tmp_path, scorer, b'id,text\n1,good\n2,"open\n3,bad\n')
    listed = (tmp_path / "out.csv.errors.jsonl").read_text()

    assert outcomes(out) == ["positive", "UNCLOSED_QUOTE"]
    assert table(out)[2][1] == "open\n3,bad"
    assert "holds the rest of the file (lines: 2)" in listed


def test_a_blank_makes_a_row_another_one_than_the_header(
    tmp_path: Path, scorer: LocalScorer
) -> None:
    """Without quotes too, and whatever the rows beside it are: an odd one, or none."""
    layout = Layout(quote=None)
    data = "text,b\n\ufeff good,1\n\ufeff text,b\n\ufefftext,b\n".encode()
    for odd in (b"", b"\n"):
        _, out = score(tmp_path, scorer, data + odd, layout=layout)
        assert outcomes(out) == ["positive", "neutral", "REPEATED_HEADER"]


def test_a_blank_before_a_quote_is_named(tmp_path: Path, scorer: LocalScorer) -> None:
    """What the message names writes a file of which every row has an answer."""
    data = b'id, text\n1, "good, really"\n2, "bad\nbad"\n'
    _, out = score(tmp_path, scorer, data, layout=Layout(text_columns=(" text",)))
    listed = (tmp_path / "out.csv.errors.jsonl").read_text()
    table = pd.read_csv(tmp_path / "in.csv", skipinitialspace=True)
    _, written = score(tmp_path, scorer, table.to_csv(index=False).encode())

    assert b"BAD_QUOTES" in out
    assert "a blank between a delimiter and a quote" in listed
    assert "read_csv(..., skipinitialspace=True)" in listed
    assert outcomes(written) == ["positive", "negative"]


@pytest.mark.parametrize(
    ("data", "expected", "line"),
    [
        (
            b'id,text\n1,"Great, really\n2,Broke in a day\n3,"It is good"\n4,bad\n',
            ["BAD_QUOTES", "negative"],
            "lines 2 to 4",
        ),
        (b'id,text\n1,"good" indeed\n2,bad\n', ["BAD_QUOTES", "negative"], "line 2"),
        (b'id,text\n1,said "good\n2,bad\n', ["BAD_QUOTES", "negative"], "line 2"),
        (b'id,text\n"1\n",a "good\n2,bad\n', ["BAD_QUOTES", "negative"], "lines 2 to 3"),
        (b'text,x\n"good \\",so"\nbad,6\n', ["BAD_QUOTES", "negative"], "line 2"),
        (b'id,text\n1,"She said, "good" to me"\n2,bad\n', ["BAD_QUOTES", "negative"], "line 2"),
        (b'id\ttext\n1\t"Great phone\n2\t"bad"\n3\tbad\n', ["BAD_QUOTES", "negative"], "2 to 3"),
    ],
)
def test_stray_quotes_are_a_bad_row_with_remedies(
    tmp_path: Path, scorer: LocalScorer, data: bytes, expected: list[str], line: str
) -> None:
    """Rows that a stray quote merges have no answer, and the message says what to do."""
    layout = Layout(delimiter="\t" if b"\t" in data else ",")
    summary, out = score(tmp_path, scorer, data, layout=layout)
    listed = (tmp_path / "out.csv.errors.jsonl").read_text()

    rows = out.decode().splitlines()[1:]
    found = [word for row in rows for word in ("BAD_QUOTES", "negative") if word in row]
    assert found == expected
    assert (summary.rows, summary.failed) == (2, 1)
    assert line in listed
    assert "--quote none" in listed
    assert "--escape" in listed


def test_a_recommended_quote_option_reads_the_rows(tmp_path: Path, scorer: LocalScorer) -> None:
    """With --quote none, and with --escape, the rows that were merged are rows again."""
    stray = b'id,text\n1,"good\n2,"bad" they said\n'
    escaped = b'id,text\n1,"good \\"really\\" yes"\n2,"bad"\n'

    assert outcomes(score(tmp_path, scorer, stray)[1]) == ["BAD_QUOTES"]
    _, plain = score(tmp_path, scorer, stray, layout=Layout(quote=None))
    assert [row.split(b",")[2] for row in plain.splitlines()[1:]] == [b"positive", b"negative"]
    assert outcomes(score(tmp_path, scorer, escaped)[1])[0] == "BAD_QUOTES"
    summary, _ = score(tmp_path, scorer, escaped, layout=Layout(escape="\\"))
    assert (summary.rows, summary.failed) == (2, 0)


@pytest.mark.parametrize(
    "data",
    [
        b"id;text\n1;good, and cheap\n2;bad\n",
        b"id\ttext\n1\tgood, and cheap\n2\tbad\n",
        b"id|text\n1|good, and cheap\n2|bad\n",
        b"sep=;\nid;text\n1;good, and cheap\n2;bad\n",
        b"\xef\xbb\xbfsep=;\r\nid;text\r\n1;good\r\n2;bad\r\n",
        b"\n\r\nid,text\n1,good\n2,bad\n",
        b'"a;b";text\n1;good\n2;bad\n',
        b"a;text,b;text\n1;2;good\n1;2;bad\n",
    ],
)
def test_the_header_line_decides_the_delimiter(
    tmp_path: Path, scorer: LocalScorer, data: bytes
) -> None:
    """So does a line such as `sep=;`; both, and blank lines before the header, stay."""
    summary, out = score(tmp_path, scorer, data)
    before, _, after = out.partition(b"sentiment_label")

    assert (summary.rows, summary.failed) == (2, 0)
    assert data.startswith(before[:-1])
    assert re.findall(rb"positive|negative", after) == [b"positive", b"negative"]


@pytest.mark.parametrize(
    "header", [b"id,text\n", b"\xef\xbb\xbfid,text\n", b'\xef\xbb\xbf"id",text\n']
)
def test_a_repeated_header_is_a_bad_row(tmp_path: Path, scorer: LocalScorer, header: bytes) -> None:
    """As in a file made by `cat a.csv b.csv`, whose rows are otherwise answered."""
    data = header + b"1,good\n" + header + b"2,bad\n"

    assert outcomes(score(tmp_path, scorer, data)[1]) == ["positive", "REPEATED_HEADER", "negative"]


def test_a_message_quotes_a_few_columns(tmp_path: Path) -> None:
    """A page of HTML named .csv is one header of many long names."""
    (tmp_path / "in.csv").write_bytes(b",".join([b"x" * 1000] * 30) + b"\n")

    with pytest.raises(TableError, match="and 10 more: name one with --text-column") as caught:
        job(tmp_path / "in.csv", tmp_path / "out.csv").plan()

    assert len(str(caught.value)) < 2500


def test_several_text_columns_are_one_text(tmp_path: Path, scorer: LocalScorer) -> None:
    """They are joined in the order of the options; a blank one is left out."""
    data = b"body,title\nbad bad bad,good\n,good\nbad,\n"
    layout = Layout(text_columns=("title", "body"))
    _, out = score(tmp_path, scorer, data, layout=layout)

    assert outcomes(out) == ["negative", "positive", "negative"]


@pytest.mark.parametrize(
    ("data", "reason", "why"),
    [
        (b"", "EMPTY_FILE", "is empty: it needs a header row"),
        (b"id,review\n1,a\n", "MISSING_COLUMN", "it has id, review: name one with --text-column"),
        (b"id~text\n1~a\n", "MISSING_COLUMN", "or its delimiter with --delimiter '~'"),
        (b"id;text,x\n1;a,b\n", "MISSING_COLUMN", "it has id;text, x: name one"),
        (b"\n1,good\n", "MISSING_COLUMN", "no column 'text'"),
        (b"May\nid,text\n1,a\n", "MISSING_COLUMN", "delete the lines above the header"),
        (b"\xd0\xcf\x11\xe0", "WRONG_FORMAT", "an old Excel workbook (.xls): unpack it, or conv"),
        (bz2.compress(b"id,text\n"), "BAD_COMPRESSION", "compressed with bzip2: unpack it"),
        (lzma.compress(b"id,text\n"), "BAD_COMPRESSION", "compressed with xz: unpack it"),
        (b"\x89PNG\r\n\x1a\n" + bytes(99), "WRONG_FORMAT", "is a picture: convert it to csv, or"),
        (b"\xff\xd8\xff\xe0" + bytes(99), "WRONG_FORMAT", "is a picture"),
        (b"SQLite format 3\0", "WRONG_FORMAT", "an SQLite database: convert it to csv, or name"),
        (b"\n<!DOCTYPE html><html>", "WRONG_FORMAT", "is a page of HTML or XML"),
        (b"PK\x03\x04" + bytes(26) + b"a.csv", "WRONG_FORMAT", "a ZIP archive: unpack it"),
        ("text\ngood\n".encode("utf-32-be"), "NOT_UTF8", "UTF-32 without a byte-order mark"),
        (("评论,text\n" + "好" * 99).encode("utf-16-be"), "NOT_UTF8", "add --encoding utf-16-be"),
        (b"text,text\na,b\n", "DUPLICATE_COLUMN", "2 columns named 'text': rename all but one"),
        ("text\ngood\n".encode("utf-16"), "NOT_UTF8", "add --encoding utf-16"),
        (b"t\xe9xt\ngood\n", "NOT_UTF8", "--encoding cp1252"),
        (b"id,text\r1,good\r2,bad\r", "CR_LINE_ENDS", "CR alone: convert them to LF"),
        (b'id,text\r1,"good"\r2,bad\r', "CR_LINE_ENDS", "CR alone: convert them to LF"),
        (b'id,"text\n1,good\n', "BAD_HEADER", "never closed"),
        (b"text,sentiment_error\na,b\n", "COLUMN_COLLISION", "choose another --prefix"),
    ],
)
def test_a_file_that_is_no_table_is_refused(
    tmp_path: Path, data: bytes, reason: str, why: str
) -> None:
    """Before a model is loaded; the message names the file, the fault and the remedy."""
    (tmp_path / "in.csv").write_bytes(data)

    with pytest.raises(TableError, match=r"in\.csv ") as caught:
        job(tmp_path / "in.csv", tmp_path / "out.csv").plan()

    assert caught.value.reason == reason
    assert why in str(caught.value)


@pytest.mark.parametrize("limit", ["MAX_RECORD_BYTES", "MAX_RECORD_LINES"])
def test_a_record_has_a_limit(
    tmp_path: Path, scorer: LocalScorer, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    """An open quote does not read the whole file into memory."""
    monkeypatch.setattr(csv_records, limit, 1 << 7)

    with pytest.raises(TableError, match=r"begins on line 3.*close the quote") as caught:
        score(tmp_path, scorer, b'text\ngood\n"open' + b"\nline" * 1000)

    assert caught.value.reason == "RECORD_TOO_LARGE"
    assert not (tmp_path / "out.csv").exists()


def test_a_million_blank_lines_take_linear_time(tmp_path: Path, scorer: LocalScorer) -> None:
    """They stay where they are, and no window is larger for them."""
    data = b"text\ngood\n" + b"\n" * 300_000 + b"bad\n" + b"\n" * 1000
    summary, out = score(tmp_path, scorer, data)

    assert summary.rows == 2
    assert out.count(b"\n") == data.count(b"\n")
    assert out.endswith(b"\n" * 1001)


@pytest.mark.parametrize("quoted", [False, True])
def test_a_long_line_is_split_like_any_other(
    tmp_path: Path, scorer: LocalScorer, monkeypatch: pytest.MonkeyPatch, quoted: bool
) -> None:
    """Past a few megabytes `csv` is not used; the fields are the same."""
    monkeypatch.setattr(csv_records, "LONG_LINE_BYTES", 8)
    cell = b'"good, ""really"""' if quoted else b"good  really"
    _, out = score(tmp_path, scorer, b"id,text,x\n1," + cell + b",\n2,bad,y\n3,bad\n")

    assert outcomes(out) == ["positive", "negative", "RAGGED_ROW"]
    assert cell in out


@pytest.mark.slow
def test_a_cell_of_fifty_megabytes_is_one_bad_row(tmp_path: Path, scorer: LocalScorer) -> None:
    """It passes through, and its neighbours have answers."""
    cell = b"good " * 10_000_000
    _, out = score(tmp_path, scorer, b"id,text\n1,good\n2," + cell + b"\n3,bad\n")

    assert cell in out
    assert outcomes(out.replace(cell, b"")) == ["positive", "TEXT_TOO_LARGE", "negative"]


FIELD = st.text(st.sampled_from('ab,"\n\r \té\ufeff'), max_size=6)
TABLE = st.lists(st.lists(FIELD, min_size=2, max_size=2), max_size=6)


@settings(max_examples=30)
@given(TABLE, st.sampled_from([csv.excel, csv.excel_tab, csv.unix_dialect]), st.booleans())
def test_what_csv_writes_is_kept(
    tmp_path_factory: pytest.TempPathFactory,
    scorer: LocalScorer,
    rows: list[list[str]],
    dialect: type[csv.Dialect],
    bom: bool,
) -> None:
    """Rows from Python's own writer come back with their cells, answers in their columns."""
    out = io.StringIO()
    csv.writer(out, dialect).writerows([["id", "text"], *rows])
    data = out.getvalue().encode("utf-8-sig" if bom else "utf-8")
    layout = Layout(delimiter=dialect.delimiter, window_bytes=SMALL_WINDOW_BYTES)

    _, scored = score(tmp_path_factory.mktemp("csv"), scorer, data, layout=layout)

    found = table(scored, delimiter=dialect.delimiter)
    assert [row[:2] for row in found] == [["id", "text"], *rows]
    assert {len(row) for row in found} == {2 + len(ADDED)}


@settings(max_examples=30)
@given(st.binary(max_size=60))
@example(b'1,"a\r\nb"\r\n\n\r\n2')
@example(b'"a"b\n')
def test_no_byte_is_lost(
    tmp_path_factory: pytest.TempPathFactory, scorer: LocalScorer, body: bytes
) -> None:
    """With the answers cut away, what is left is the input."""
    data = b"text\n" + body
    _, out = score(tmp_path_factory.mktemp("bytes"), scorer, data, prefix="\u2713")

    at = 0
    for byte in data:
        at = out.index(byte, at) + 1


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("latin-1", "good café"),
        ("cp1252", "good \u2013 \u201ccafé\u201d"),
        ("utf-16", "good \u0a0a\u0d0a 👍"),
        ("utf-16-be", "good \u0a0a\u0d0a 👍"),
        ("utf-32", "good 👍"),
        ("gb18030", "good 很好\uff0c真的"),
        ("shift_jis", "good 表示ソ"),
    ],
)
def test_an_encoding_is_kept(tmp_path: Path, scorer: LocalScorer, encoding: str, text: str) -> None:
    """Rows keep their bytes, and answers are written in the same encoding."""
    rows = [f'{i},"{text}\r\n{i}"' for i in range(40)]
    data = "\r\n".join(["id,text", *rows, ""]).encode(encoding)
    layout = Layout(encoding=encoding, window_bytes=SMALL_WINDOW_BYTES)
    summary, out = score(tmp_path, scorer, data, layout=layout)
    found = table(out, encoding)

    assert (summary.rows, summary.failed) == (40, 0)
    assert [row[1] for row in found[1:]] == [f"{text}\r\n{i}" for i in range(40)]
    assert {row[2] for row in found[1:]} == {"positive"}
    assert out.startswith(data[:7])


@pytest.mark.parametrize("encoding", ["utf-7", "iso2022_jp", "cp037", "no-such"])
def test_an_encoding_that_cannot_be_cut_is_refused(tmp_path: Path, encoding: str) -> None:
    """Lines must be found in bytes."""
    (tmp_path / "in.csv").write_bytes(b"text\ngood\n")

    with pytest.raises(SentimillError) as caught:
        job(tmp_path / "in.csv", tmp_path / "out.csv", Layout(encoding=encoding)).plan()

    assert caught.value.reason == "UNKNOWN_ENCODING"


def test_a_tsv_may_have_no_quotes(tmp_path: Path, scorer: LocalScorer) -> None:
    """With --quote none a quote is a character like any other."""
    data = b'id\ttext\n1\t"good\n2\t"bad\n'
    _, out = score(
        tmp_path, scorer, data, source="in.tsv", target="out.tsv", layout=Layout(quote=None)
    )

    assert [line.split(b"\t")[2] for line in out.splitlines()[1:]] == [b"positive", b"negative"]
    assert b'1\t"good\tpositive' in out


def test_without_quotes_a_quote_may_be_the_escape(tmp_path: Path, scorer: LocalScorer) -> None:
    """`--quote none --escape '"'`: what follows it is data."""
    layout = Layout(quote=None, escape='"')
    summary, out = score(tmp_path, scorer, b'id,text\n1,good", really\n2,bad\n', layout=layout)

    assert (summary.rows, summary.failed) == (2, 0)
    assert out.splitlines()[1].startswith(b'1,good", really,positive,')


def test_formulas_pass_through(tmp_path: Path, scorer: LocalScorer) -> None:
    """A cell that a spreadsheet would run is data to us."""
    _, out = score(tmp_path, scorer, b"id,text\n=1+1,@good\n")

    assert out.splitlines()[1].startswith(b"=1+1,@good,positive,")


def test_only_columns_keeps_the_named_ones(tmp_path: Path, scorer: LocalScorer) -> None:
    """In the order in which they are named, line breaks quoted again."""
    data = b'id,text,x\r\n1,"good\nx",a\r\n2,bad,\xff\r\n3\r\n'
    _, out = score(tmp_path, scorer, data, layout=Layout(keep=("x", "text")))

    assert out.splitlines()[0].startswith(b"x,text,sentiment_label")
    assert out.splitlines(keepends=True)[1:3] == [
        b'a,"good\n',
        b'x",positive,0.8017847,0.84379476,false,,\r\n',
    ]
    assert b"\r\n\xff,bad,negative," in out


def test_where_missing_scores_only_the_gaps(tmp_path: Path, scorer: LocalScorer) -> None:
    """Rows that have an answer keep it to the byte; others are as if they were never scored."""
    data = b'id,text\n1,"good, so"\n2,\n3,bad\n4,good,more\n'
    _, first = score(tmp_path, scorer, data)
    again, same = score(tmp_path, scorer, first, layout=Layout(update=True))
    edited = first.replace(b"positive", b"mine").replace(b"2,,", b"2,good,")
    summary, out = score(tmp_path, scorer, edited, layout=Layout(update=True))

    assert same == first
    assert (again.counts.kept, again.failed) == (2, 2)
    assert outcomes(out)[:3] == ["mine", "positive", "negative"]
    assert (summary.rows, summary.counts.kept, summary.failed) == (4, 2, 1)


def test_a_ragged_row_keeps_its_text_where_gaps_are_filled(
    tmp_path: Path, scorer: LocalScorer
) -> None:
    """Fields past the header are an earlier job's answers only where they say so."""
    _, first = score(tmp_path, scorer, b"id,text\n1,good\n")
    ragged = b"7,I came, I saw, I ate, I paid, I left, I cried, I wrote, the end"

    _, again = score(tmp_path, scorer, first + ragged + b"\n", layout=Layout(update=True))
    _, same = score(tmp_path, scorer, again, layout=Layout(update=True))

    assert again == first + ragged + b",,,,,,RAGGED_ROW\n"
    assert same == again


def test_a_row_with_stray_quotes_does_not_grow_where_gaps_are_filled(
    tmp_path: Path, scorer: LocalScorer
) -> None:
    """What an earlier job wrote behind it is taken off before it is written again."""
    _, first = score(tmp_path, scorer, b'id,text\n1,good\n2,say "hi\n')
    _, again = score(tmp_path, scorer, first, layout=Layout(update=True))

    assert b"BAD_QUOTES" in first
    assert again == first


def test_a_short_bad_row_is_an_error_where_gaps_are_filled(
    tmp_path: Path, scorer: LocalScorer
) -> None:
    """A row that has fewer fields than the answers take has none of them."""
    _, first = score(tmp_path, scorer, b"id,text\n1,good\n")

    _, again = score(tmp_path, scorer, first + b'"x" y\nz\n', layout=Layout(update=True))

    assert again.startswith(first)
    assert b"BAD_QUOTES" in again
    assert b"RAGGED_ROW" in again


def test_an_invalid_byte_in_a_very_long_line_is_that_row_s_error(
    tmp_path: Path, scorer: LocalScorer
) -> None:
    """A line past 4 MiB is not decoded as a whole, and must not reach Arrow undecoded."""
    data = b"id,text\n1,good\n2," + b"x" * (5 << 20) + b"\xe9\n"

    summary, out = score(tmp_path, scorer, data)

    assert summary.failed == 1
    assert b"UNDECODABLE_ROW" in out or b"TEXT_TOO_LARGE" in out


def test_gaps_can_be_filled_in_fewer_columns(tmp_path: Path, scorer: LocalScorer) -> None:
    """Old answers come along."""
    _, first = score(tmp_path, scorer, b"id,text\n1,good\n2,bad\n")
    edited = first.replace(b"positive", b"mine").replace(b"negative", b"")
    _, out = score(tmp_path, scorer, edited, layout=Layout(update=True, keep=("id",)))

    assert [row[:2] for row in table(out)] == [["id", ADDED[0]], ["1", "mine"], ["2", "negative"]]
    assert {len(row) for row in table(out)} == {1 + len(ADDED)}


def test_probs_have_a_column_a_label(tmp_path: Path, scorer: LocalScorer) -> None:
    """They read back to what the classifier says."""
    _, out = score(tmp_path, scorer, b"text\ngood\n", probs=True)
    header, row = table(out)

    assert header[7:] == [f"sentiment_prob_{k}" for k in ("negative", "neutral", "positive")]
    assert sum(map(float, row[7:])) == pytest.approx(1.0)


@settings(max_examples=15)
@given(
    st.lists(st.sampled_from(["good", "bad bad bad", "", "the " * 30, "é👍"]), max_size=40),
    st.integers(500, 5000),
)
def test_windows_change_nothing(
    tmp_path_factory: pytest.TempPathFactory, scorer: LocalScorer, words: list[str], size: int
) -> None:
    """The output is the same whatever the size of a window."""
    folder = tmp_path_factory.mktemp("windows")
    data = ("text\n" + "".join(f'"{text}"\n' for text in words)).encode()

    _, one = score(folder, scorer, data)
    _, two = score(folder, scorer, data, layout=Layout(window_bytes=size))

    assert one == two


@given(st.lists(st.text(st.sampled_from('ab,"\n\r\t é')), min_size=1), st.sampled_from(",\t;"))
def test_a_written_record_is_read_back(values: list[str], delimiter: str) -> None:
    """Fields are quoted where necessary."""
    row = Dialect(delimiter).write(values)

    assert next(csv.reader(io.StringIO(row, newline=""), delimiter=delimiter), [""]) == values


@given(st.lists(st.text(st.sampled_from('ab,"\\\n\r\t é')), min_size=1))
def test_a_record_written_with_an_escape_is_read_back(values: list[str]) -> None:
    """Quotes and escapes in a field survive."""
    dialect = Dialect(",", '"', "\\")

    lines = io.StringIO(dialect.write(values), newline="")
    assert next(dialect.read(lines), [""]) == values


def test_the_layout_is_the_default_of_the_command() -> None:
    """UTF-8, the format's own delimiter, double quotes."""
    assert (LAYOUT.encoding, LAYOUT.delimiter, LAYOUT.quote) == ("utf-8", None, '"')


GOOD = ["1,good\n", '2,"bad, really"\n', '3,"say ""hi"""\n', '4,"two\nlines"\n', "é,ü\n", '"",""\n']
ODD = ["a", '"', '""', '"x"', ",", "\n", "\r\n", "\r", "\udcff", " ", "id,text\n", "\n\n", '\\"']


@settings(max_examples=300)
@given(
    header=st.sampled_from(["id,text\n", "text\n", "text,id\r\n", "id,text,x\n"]),
    rows=st.lists(st.sampled_from(GOOD), max_size=40)
    | st.lists(st.sampled_from(GOOD * 3 + ODD), max_size=40),
    layout=st.builds(
        Layout,
        window_bytes=st.sampled_from([300, 1000, 5000, 100_000]),
        quote=st.sampled_from(['"', '"', None]),
    ),
)
def test_whole_blocks_give_the_rows_of_single_records(
    header: str, rows: list[str], layout: Layout
) -> None:
    """The same windows too, from the beginning and from the end of any of them."""
    data = (header + "".join(rows)).encode("utf-8", "surrogateescape")
    columns = AnswerSchema(("bad", "good"), None, "sentiment_", with_probs=False)

    def windows(start: Position, *, whole_blocks: bool) -> list[tuple[object, ...]]:
        kind = Kind("csv", "")
        opened = DelimitedTable(
            Stream(io.BufferedReader(io.BytesIO(data)), "in.csv", kind),
            layout,
            columns,
        )
        opened._splits_blocks &= whole_blocks
        found: list[tuple[object, ...]] = []
        try:
            for window in opened.windows(start):
                answers = Answers(np.full((len(window.texts), 2), np.nan, np.float32), {})
                texts = [*map(repr, window.texts)]
                made = window.render(columns.add(answers))
                found.append((window.end, texts, list(window.lines), made))
        except TableError as error:
            found.append((str(error),))
        return found

    expected = windows(Position(), whole_blocks=False)

    assert windows(Position(), whole_blocks=True) == expected
    for k, window in enumerate(expected[:-1], 1):
        assert isinstance(window[0], Position)
        assert windows(window[0], whole_blocks=True) == expected[k:]
