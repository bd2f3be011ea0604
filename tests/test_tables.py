"""CSV as bytes: cut into records, decoded only where the text is."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sentimill.errors import TableError, TextError
from sentimill.scoring import tables
from sentimill.scoring.tables import CsvReader, Row, csv_fields, delimiter_of, windows


def reader(data: bytes, *, text_column: str = "text", delimiter: str = ",") -> CsvReader:
    """Return a reader over *data*."""
    return CsvReader(io.BytesIO(data), name="r.csv", delimiter=delimiter, text_column=text_column)


def texts(data: bytes) -> list[str]:
    """Return the text of each row, or the reason why there is none."""
    return [row.text if isinstance(row.text, str) else row.text.reason for row in reader(data)]


def refusal(data: bytes) -> TableError:
    """Return the error with which *data* cannot be read as a table."""
    with pytest.raises(TableError, match=r"^r\.csv ") as caught:
        list(reader(data))
    return caught.value


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"id,text\n1,good\n2,bad\n", ["good", "bad"]),
        (b"id,text\n1,good\n2,bad", ["good", "bad"]),
        (b"id,text\r\n1,good\r\n2,bad\r\n", ["good", "bad"]),
        (b"\xef\xbb\xbftext,id\ngood,1\n", ["good"]),
        (b'\xef\xbb\xbf"text",id\ngood,1\n', ["good"]),
        (b'"a\nb",text\n1,good\n', ["good"]),
        (b'id,text\n1,"good, or so"\n', ["good, or so"]),
        (b'id,text\n1,"she said ""good"""\n', ['she said "good"']),
        (b'id,text\n1,"two\nlines"\n2,bad\n', ["two\nlines", "bad"]),
        (b'id,text\n1,"two\r\nlines"\r\n2,bad\r\n', ["two\r\nlines", "bad"]),
        (b'id,text\n1,5" screen\n2,bad\n', ['5" screen', "bad"]),
        (b'id,text\n1,""\n2,bad\n', ["", "bad"]),
        (b"id,text\n1,\n", [""]),
        (b"text\ngood\n\nbad\n", ["good", "", "bad"]),
        (b"id,text\r\r\n1,good\r\r\n2,bad\r", ["good", "bad"]),
        (b"id,text\n1,\x00nul\n", ["\x00nul"]),
        ("id,text\n1,👍🏽 رائع\n".encode(), ["👍🏽 رائع"]),
        (b"id,text\n", []),
        (b"id,text", []),
        (b"text,x,x\ngood,1,2\n", ["good"]),
    ],
)
def test_the_text_of_each_row_is_found(data: bytes, expected: list[str]) -> None:
    """Quotes, line ends, byte-order mark and every script are read as CSV has them."""
    assert texts(data) == expected


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b"1", "RAGGED_ROW"),
        (b"", "RAGGED_ROW"),
        (b"1,good,more", "RAGGED_ROW"),
        (b"1,a\rb", "RAGGED_ROW"),
        (b"1,caf\xe9", "UNDECODABLE_ROW"),
        (b"1,\xed\xa0\x80", "UNDECODABLE_ROW"),
    ],
)
def test_a_bad_row_costs_no_other_row(row: bytes, reason: str) -> None:
    """Ragged rows and invalid UTF-8 are errors in their own place."""
    assert texts(b"id,text\n1,good\n" + row + b"\n2,bad\n") == ["good", reason, "bad"]


@pytest.mark.parametrize(
    ("data", "reason", "why"),
    [
        (b"", "EMPTY_FILE", "is empty: it needs a header row"),
        (
            b"id,review\n1,good\n",
            "MISSING_COLUMN",
            "it has id, review: name one with --text-column",
        ),
        (b"\n1,good\n", "MISSING_COLUMN", "no column 'text'"),
        (b"text,text\na,b\n", "DUPLICATE_COLUMN", "2 columns named 'text': rename all but one"),
        ("text\ngood\n".encode("utf-16"), "NOT_UTF8", "is UTF-16: write it as UTF-8"),
        (b"t\xe9xt\ngood\n", "NOT_UTF8", "header that is not UTF-8 (byte 1)"),
        (b"id,text\r1,good\r2,bad\r", "CR_LINE_ENDS", "CR alone: convert them to LF"),
        (b'id,text\r1,"good"\r2,bad\r', "CR_LINE_ENDS", "CR alone: convert them to LF"),
        (b'id,text\n1,good\n2,"bad\n3,fine\n', "UNCLOSED_QUOTE", "line 3"),
        (b'id,"text\n1,good\n', "UNCLOSED_QUOTE", "line 1"),
    ],
)
def test_a_file_that_is_no_table_is_refused(data: bytes, reason: str, why: str) -> None:
    """The message names the file, the fault and the remedy."""
    error = refusal(data)

    assert error.reason == reason
    assert why in str(error)


def test_a_record_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """An open quote does not read the whole file into memory."""
    monkeypatch.setattr(tables, "MAX_RECORD_BYTES", 1 << 10)

    error = refusal(b'text\n"open' + b"\nline" * 1000)

    assert error.reason == "RECORD_TOO_LARGE"
    assert "a quote that is never closed" in str(error)


def test_a_megabyte_in_one_field_is_read() -> None:
    """The module's own limit of 128 KiB a field is lifted."""
    assert texts(b"text\n" + b"x" * (1 << 20) + b"\n") == ["x" * (1 << 20)]


@pytest.mark.parametrize(
    ("row", "missing"), [(b"", 2), (b"1", 2), (b"1,2", 1), (b"1,2,3", 0), (b"1,2,3,4", 0)]
)
def test_missing_counts_the_fields_to_add(row: bytes, missing: int) -> None:
    """An empty line already is one empty field, so that many delimiters make the row whole."""
    (found,) = reader(b"id,text,x\n" + row + b"\n")

    assert found.missing == missing
    fields = next(csv.reader([(row + b"," * missing).decode()]))
    assert len(fields) == max(3, row.count(b",") + 1)


FIELD = st.text(st.sampled_from('ab,"\n\r \té\ufeff'), max_size=6)
TABLE = st.lists(st.lists(FIELD, min_size=2, max_size=2), max_size=6)


@given(
    TABLE,
    st.sampled_from([csv.excel, csv.excel_tab, csv.unix_dialect]),
    st.booleans(),
)
def test_what_csv_writes_is_read_back(
    rows: list[list[str]], dialect: type[csv.Dialect], bom: bool
) -> None:
    """Rows from Python's own writer give their texts, whatever stands in the fields."""
    out = io.StringIO()
    csv.writer(out, dialect).writerows([["id", "text"], *rows])
    data = out.getvalue().encode("utf-8-sig" if bom else "utf-8")

    found = [row.text for row in reader(data, delimiter=dialect.delimiter)]

    assert found == [text for _, text in rows]


@given(st.text(st.sampled_from('a,"\né\ufeff'), max_size=40))
@example('"a"b\n')
@example('a,""""\n')
@example('"a\n""\n"\n')
@example('\ufeff"a\nb"\n')
def test_records_are_cut_where_csv_cuts_them(body: str) -> None:
    """On any text, well formed or not, records begin and end where `csv.reader` says."""
    data = ("text\n" + body).encode()
    try:
        ours = [row.raw.decode() for row in reader(data)]
    except TableError as error:
        assert error.reason == "UNCLOSED_QUOTE"
        return

    cut = [list(csv.reader([raw])) for raw in ours]

    assert cut == [[record] for record in csv.reader(io.StringIO(body, newline=""))]


@given(st.binary(max_size=60))
@example(b'1,"a\r\nb"\r\n\n\r\n2')
def test_no_byte_is_lost(body: bytes) -> None:
    """Records and their ends, put together again, are the input."""
    data = b"text\n" + body
    opened = reader(data)
    try:
        rows = list(opened)
    except TableError as error:
        assert error.reason == "UNCLOSED_QUOTE"
        return

    assert opened.header + opened.end + b"".join(row.raw + row.end for row in rows) == data


@given(st.lists(st.text(st.sampled_from('ab,"\n\r\t é')), min_size=1), st.sampled_from(",\t;"))
def test_added_fields_are_read_back(values: list[str], delimiter: str) -> None:
    """Fields are quoted where they need it, and each brings its delimiter."""
    row = "id" + csv_fields(values, delimiter).decode()

    assert next(csv.reader(io.StringIO(row, newline=""), delimiter=delimiter)) == ["id", *values]


@pytest.mark.parametrize(("name", "expected"), [("a.csv", ","), ("A.CSV", ","), ("a.b.tsv", "\t")])
def test_the_suffix_gives_the_delimiter(name: str, expected: str) -> None:
    """CSV has commas and TSV has tabs."""
    assert delimiter_of(Path(name)) == expected


def test_an_unknown_suffix_is_refused() -> None:
    """The message names what can be read."""
    with pytest.raises(TableError, match=r"unknown kind '\.xlsx': score reads \.csv and \.tsv"):
        delimiter_of(Path("a.xlsx"))


@given(st.lists(st.integers(0, 900), max_size=30))
def test_windows_hold_each_row_once_and_in_order(sizes: list[int]) -> None:
    """A window passes its size only with a single row."""
    rows = [Row(b"x" * size, b"\n", TextError("no", reason="NONE")) for size in sizes]

    found = list(windows(iter(rows), 1000))

    assert [row for window in found for row in window] == rows
    for window in found:
        assert len(window) == 1 or sum(len(row.raw) for row in window) <= 1000
