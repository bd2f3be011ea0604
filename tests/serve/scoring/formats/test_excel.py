"""Excel workbooks in and out, and to and from the other tables."""

from __future__ import annotations

import datetime as dt
import io
import threading
import zipfile
from pathlib import Path
from typing import Any

import duckdb
import openpyxl
import pytest
from openpyxl.chart import BarChart

from scoring_jobs import SMALL_WINDOW_BYTES, job
from sentimill.errors import SentimillError, TableError
from sentimill.scoring import output_format
from sentimill.scoring.answer_columns import COLUMNS
from sentimill.scoring.formats.excel import Cell, write_rows
from sentimill.scoring.formats.table import Layout
from sentimill.scoring.scorers import LocalScorer

ADDED = [f"sentiment_{name}" for name in COLUMNS]
SMALL = Layout(window_bytes=SMALL_WINDOW_BYTES)
DAY = dt.datetime(2024, 2, 29, 13, 5)


def workbook(
    rows: list[list[Any]],
    *,
    sheets: int = 1,
    date_format: str = "dd/mm/yyyy",
    formulas: bool = False,
) -> bytes:
    """Return a workbook of *rows*, with the same rows in each of its sheets.

    formulas: a text that begins with = is a formula, without a value.
    """
    book = openpyxl.Workbook()
    for k in range(sheets):
        sheet = book.active if k == 0 else book.create_sheet()
        assert sheet is not None
        for row in rows:
            sheet.append(row)
        for cells in sheet.iter_rows():
            for cell in cells:
                if isinstance(cell.value, dt.datetime):
                    cell.number_format = date_format
                elif cell.data_type == "f" and not formulas:
                    cell.data_type = "s"
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()


def cells(path: Path) -> list[tuple[Any, ...]]:
    """Return the values of the one sheet of a workbook."""
    (sheet,) = openpyxl.load_workbook(path).worksheets
    return list(sheet.iter_rows(values_only=True))


def changed(book: bytes, old: bytes, new: bytes) -> bytes:
    """Return the workbook *book*, in whose sheet *old* is replaced."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(book)) as made, zipfile.ZipFile(out, "w") as packed:
        for name in made.namelist():
            data = made.read(name)
            assert old in data or name != "xl/worksheets/sheet1.xml"
            packed.writestr(name, data.replace(old, new))
    return out.getvalue()


REVIEWS: list[list[Any]] = [
    ["id", "text", "day", "stars", "paid"],
    [1, "good", DAY, 4.5, True],
    [2, "=1+1", None, 3, False],
    [],
    [3, None, DAY, None, None],
    [4, 17, DAY, 1, True],
    [5, "bad", DAY, 1, True],
]


def test_a_workbook_gets_its_columns(tmp_path: Path, scorer: LocalScorer) -> None:
    """Values, their types and number formats stay; blank rows too, and text stays text."""
    (tmp_path / "in.xlsx").write_bytes(workbook(REVIEWS))
    summary = job(tmp_path / "in.xlsx", tmp_path / "out.xlsx", SMALL).run(scorer)
    found = cells(tmp_path / "out.xlsx")

    assert (summary.rows, summary.failed) == (5, 1)
    assert list(found[0]) == [*REVIEWS[0], *ADDED]
    assert found[1][:6] == (1, "good", DAY, 4.5, True, "positive")
    assert found[3][:6] == (None,) * 6
    assert [row[-1] for row in found[1:]] == [
        None, None, None, "MISSING_TEXT", None, None,
    ]  # fmt: skip
    sheet = openpyxl.load_workbook(tmp_path / "out.xlsx").worksheets[0]
    assert sheet["C2"].number_format == "dd/mm/yyyy"
    assert (sheet["B3"].value, sheet["B3"].data_type) == ("=1+1", "s")


def test_numbers_and_control_characters_stay_exact(tmp_path: Path, scorer: LocalScorer) -> None:
    """All 17 digits, and what a workbook writes as `_x000D_`, also where that is meant as text."""
    rows: list[list[Any]] = [
        ["text", "n"],
        ["good_x000D_", 0.1 + 0.2],
        ["_x005F_x000D_", 12345678901234567],
    ]
    # openpyxl rounds to 16 digits; Excel writes 17.
    book = changed(workbook(rows), b">0.3<", b">0.30000000000000004<")
    book = changed(book, b">1.234567890123457e+16<", b">12345678901234567<")
    (tmp_path / "in.xlsx").write_bytes(book)
    job(tmp_path / "in.xlsx", tmp_path / "out.xlsx").run(scorer)
    job(tmp_path / "in.xlsx", tmp_path / "out.parquet").run(scorer)

    assert [list(row[:2]) for row in cells(tmp_path / "out.xlsx")] == rows
    query = f"select text, sentiment_label from '{tmp_path}/out.parquet'"
    assert duckdb.execute(query).fetchall() == [("good\r", "positive"), ("_x000D_", "neutral")]


def test_a_second_reader_reads_the_workbook(tmp_path: Path, scorer: LocalScorer) -> None:
    """DuckDB finds the CSV that is made of it equal, cell by cell."""
    (tmp_path / "in.xlsx").write_bytes(workbook(REVIEWS))
    job(tmp_path / "in.xlsx", tmp_path / "out.csv", SMALL).run(scorer)
    job(tmp_path / "in.xlsx", tmp_path / "out.parquet", SMALL).run(scorer)

    query = "select id, text, day, sentiment_label from"
    csv = duckdb.execute(f"{query} read_csv('{tmp_path}/out.csv', all_varchar = true)").fetchall()
    parquet = duckdb.execute(f"{query} '{tmp_path}/out.parquet'").fetchall()
    assert parquet[0] == ("1", "good", "2024-02-29T13:05:00", "positive")
    assert parquet[3][:2] == ("4", "17")
    assert csv == parquet


def test_a_csv_becomes_a_workbook(tmp_path: Path, scorer: LocalScorer) -> None:
    """Cells are text, whatever they look like; the bytes of odd rows have a column."""
    (tmp_path / "in.csv").write_bytes(b"id,text\n=1+1,good\n0042,bad\n7\n")
    job(tmp_path / "in.csv", tmp_path / "out.xlsx", SMALL).run(scorer)
    found = cells(tmp_path / "out.xlsx")

    assert found[0][:3] == ("id", "text", "sentiment_source")
    assert found[1][:4] == ("=1+1", "good", None, "positive")
    assert found[2][:4] == ("0042", "bad", None, "negative")
    assert found[3][2] == "7"


def test_an_interrupted_job_writes_the_same_bytes(
    tmp_path: Path, scorer: LocalScorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A workbook holds no time of day and no name of a temporary file."""
    monkeypatch.setattr("sentimill.scoring.part_writer._COMMIT_S", 0.0)
    rows: list[list[Any]] = [["text", "n"], *([["good", "bad"][i % 2], i] for i in range(200))]
    (tmp_path / "in.xlsx").write_bytes(workbook(rows))
    job(tmp_path / "in.xlsx", tmp_path / "whole.xlsx", SMALL).run(scorer)
    made = job(tmp_path / "in.xlsx", tmp_path / "out.xlsx", SMALL)
    stop = threading.Event()

    with pytest.raises(SentimillError, match="run the same command again"):
        made.run(scorer, stop=stop, report=lambda progress: stop.set())
    summary = made.run(scorer)

    assert 0 < summary.resumed_rows < 200
    assert (tmp_path / "out.xlsx").read_bytes() == (tmp_path / "whole.xlsx").read_bytes()


def test_gaps_are_filled_and_columns_chosen(tmp_path: Path, scorer: LocalScorer) -> None:
    """As in every other format."""
    (tmp_path / "in.xlsx").write_bytes(workbook(REVIEWS))
    job(tmp_path / "in.xlsx", tmp_path / "one.xlsx").run(scorer)
    rows = [list(row) for row in cells(tmp_path / "one.xlsx")]
    rows[1][5], rows[6][5] = "mine", " "
    (tmp_path / "two.xlsx").write_bytes(workbook(rows))
    layout = Layout(update=True, keep=("id",))
    job(tmp_path / "two.xlsx", tmp_path / "out.xlsx", layout).run(scorer)
    found = cells(tmp_path / "out.xlsx")

    assert list(found[0]) == ["id", *ADDED]
    assert [row[1] for row in found[1:] if row[0] is not None] == [
        "mine", "neutral", None, "neutral", "negative",
    ]  # fmt: skip


@pytest.mark.parametrize("size", [b"A1", b"A1:B2", b"A1:XFD1048576", b""])
def test_a_wrong_size_loses_no_cell(tmp_path: Path, scorer: LocalScorer, size: bytes) -> None:
    """Programs write a sheet's size wrong, and Google Sheets writes none; a name may be missing."""
    rows: list[list[Any]] = [["text", "id"], ["good", 1], ["bad", 2, "a note"]]
    stated = b'<dimension ref="%b" />'
    book = changed(workbook(rows), stated % b"A1:C3", stated % size if size else b"")
    (tmp_path / "in.xlsx").write_bytes(book)
    job(tmp_path / "in.xlsx", tmp_path / "out.xlsx", SMALL).run(scorer)
    job(tmp_path / "in.xlsx", tmp_path / "out.csv", SMALL).run(scorer)

    assert [row[:4] for row in cells(tmp_path / "out.xlsx")] == [
        ("text", "id", None, ADDED[0]),
        ("good", 1, None, "positive"),
        ("bad", 2, "a note", "negative"),
    ]
    found = duckdb.execute(f"from read_csv('{tmp_path}/out.csv', header = false)").fetchall()
    assert [row[:3] for row in found] == [
        ("text", "id", None),
        ("good", "1", None),
        ("bad", "2", "a note"),
    ]


def test_a_formula_without_a_value_is_refused(tmp_path: Path, scorer: LocalScorer) -> None:
    """Otherwise its cell would be empty in the output; an empty text is a value."""
    rows: list[list[Any]] = [["text", "id"], ["good", "=1+1"]]
    (tmp_path / "in.xlsx").write_bytes(workbook(rows, formulas=True))
    with pytest.raises(TableError, match=r"without a value in B2.* save it again") as caught:
        job(tmp_path / "in.xlsx", tmp_path / "out.xlsx").plan()
    assert caught.value.reason == "FORMULA_WITHOUT_VALUE"
    (tmp_path / "in.xlsx").write_bytes(
        changed(workbook(rows, formulas=True), b'<c r="B2"><f>', b'<c r="B2" t="str"><f>')
    )
    assert job(tmp_path / "in.xlsx", tmp_path / "out.xlsx").run(scorer).failed == 0


@pytest.mark.parametrize("sheet", [None, "sales"])
def test_a_workbook_of_charts_alone_is_refused(tmp_path: Path, sheet: str | None) -> None:
    """It has no cells, also where --sheet names a chart."""
    book = openpyxl.Workbook()
    del book[book.sheetnames[0]]
    book.create_chartsheet("sales").add_chart(BarChart())
    book.save(tmp_path / "in.xlsx")

    with pytest.raises(TableError, match=r"in\.xlsx has only charts") as caught:
        job(tmp_path / "in.xlsx", tmp_path / "out.xlsx", Layout(sheet=sheet)).plan()

    assert caught.value.reason == "EMPTY_FILE"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"PK\x03\x04 and no more", "UNREADABLE"),
        (b"id,text\n1,good\n", "UNREADABLE"),
        (workbook([["text"], ["good"]], sheets=2), "SEVERAL_SHEETS"),
        (workbook([]), "EMPTY_FILE"),
        (workbook([["review"], ["good"]]), "MISSING_COLUMN"),
        (workbook([["text", "sentiment_error"], ["good", None]]), "COLUMN_COLLISION"),
    ],
)
def test_what_is_no_workbook_of_one_sheet_is_refused(
    tmp_path: Path, data: bytes, reason: str
) -> None:
    """Before a model is loaded."""
    (tmp_path / "in.xlsx").write_bytes(data)

    with pytest.raises(TableError, match=r"in\.xlsx") as caught:
        job(tmp_path / "in.xlsx", tmp_path / "out.xlsx").plan()

    assert caught.value.reason == reason


def test_a_sheet_is_chosen_by_its_name(tmp_path: Path, scorer: LocalScorer) -> None:
    """The output has it alone; a name that the workbook lacks is answered with those it has."""
    book = openpyxl.Workbook()
    for title, text in (("notes", "bad"), ("May 2026", "good")):
        sheet = book.create_sheet(title)
        sheet.append(["text"])
        sheet.append([text])
    book.save(tmp_path / "in.xlsx")
    target = tmp_path / "out.xlsx"
    job(tmp_path / "in.xlsx", target, Layout(sheet="May 2026")).run(scorer)

    assert [row[:2] for row in cells(target)] == [("text", ADDED[0]), ("good", "positive")]
    with pytest.raises(TableError, match="it has Sheet, notes, May 2026: name one") as caught:
        job(tmp_path / "in.xlsx", tmp_path / "o.xlsx", Layout(sheet="June")).plan()
    assert caught.value.reason == "MISSING_SHEET"


def test_what_excel_would_cut_off_is_refused(
    tmp_path: Path, scorer: LocalScorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cell or a table above its limits ends the job at once."""
    with pytest.raises(TableError, match="16,390 columns, and a sheet of Excel has 16,384"):
        wide = tmp_path / "wide.csv"
        wide.write_text(",".join(["text", *map(str, range(16_383))]) + "\n")
        job(wide, tmp_path / "wide.xlsx").plan()
    with pytest.raises(TableError, match=r"row 1 and column 2 .* a value of 32,768 characters"):
        write_rows([[Cell(1), Cell("x" * 32_768)]], io.BytesIO(), lambda: None)
    source, target = tmp_path / "in.csv", tmp_path / "out.xlsx"
    source.write_bytes(b"text\n" + b"x" * 40_000 + b"\n")
    with pytest.raises(TableError, match="a cell of Excel"):
        job(source, target).run(scorer)
    source.write_bytes(b"text\n" + b"good\n" * 100)
    monkeypatch.setattr(output_format, "MAX_ROWS", 50)
    with pytest.raises(TableError, match="rows of an Excel sheet"):
        job(source, target, SMALL, restart=True).run(scorer)

    assert not target.exists()


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("x" * 32_767, 32_767),
        ("x" * 32_768, 32_768),
        ("\u597d" * 12_000, 12_000),  # 36,000 bytes
        ("\u597d" * 32_768, 32_768),
        ("\U0001f600" * 16_383, 32_766),
        ("\U0001f600" * 16_384, 32_768),
    ],
)
def test_a_cell_is_as_long_as_excel_counts_it(
    tmp_path: Path, scorer: LocalScorer, text: str, length: int
) -> None:
    """Excel counts UTF-16 code units: one for a Chinese character, two for an emoji."""
    source, target = tmp_path / "in.csv", tmp_path / "out.xlsx"
    source.write_text(f"text\n{text}\n", encoding="utf-8")
    made = job(source, target)

    if length > 32_767:
        with pytest.raises(TableError, match=f"{length:,} characters as Excel counts them"):
            made.run(scorer)
        return
    made.run(scorer)

    assert cells(target)[1][0] == text


@pytest.mark.parametrize(("count", "fits"), [(8191, True), (8192, False)])
def test_bytes_that_are_not_utf_8_count_as_they_are_written(
    tmp_path: Path, scorer: LocalScorer, count: int, fits: bool
) -> None:
    """Four characters for each; the row is malformed, and its bytes have a column."""
    source, target = tmp_path / "in.csv", tmp_path / "out.xlsx"
    source.write_bytes(b"text\n" + b"\xff" * count + b"\ngood\n")
    made = job(source, target)

    if not fits:
        with pytest.raises(TableError, match="'sentiment_source' of 32,768 characters"):
            made.run(scorer)
        return
    made.run(scorer)

    assert cells(target)[1][1] == "\\xff" * count


def test_a_workbook_needs_a_file(tmp_path: Path) -> None:
    """It is read and written from its end, as Parquet is."""
    with pytest.raises(SentimillError) as caught:
        job("-", tmp_path / "out.xlsx", kind="xlsx").plan()

    assert caught.value.reason == "NEEDS_FILE"
