"""Excel workbooks of one sheet (extra `excel`): read row by row, and written at the end.

Cells keep their values and number formats; a formula becomes its value. As with Parquet, the job
writes an Arrow stream of the answers, and `write_excel` makes the workbook from it.
"""

from __future__ import annotations

import datetime as dt
import importlib
import re
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import islice, repeat
from typing import Any, BinaryIO, Final, NamedTuple
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import pyarrow as pa

from sentimill.errors import TableError, TextError
from sentimill.installed_packages import from_extra
from sentimill.scoring.answer_columns import AnswerSchema
from sentimill.scoring.formats.parquet import message
from sentimill.scoring.formats.table import (
    ROW_BYTES,
    Layout,
    Position,
    Window,
    count_answers,
    find_column,
    has_answer,
)
from sentimill.text.cleaning import join_texts

MAX_ROWS: Final = 1_048_575
"""Rows of a sheet, the header not counted."""

MAX_COLUMNS: Final = 16_384

MAX_CELL_CHARACTERS: Final = 32_767
"""These limits are Excel's: support.microsoft.com, "Excel specifications and limits"."""

_CREATED: Final = dt.datetime(2000, 1, 1)
"""Stored in every workbook, so that a resumed job writes the same bytes."""


class Cell(NamedTuple):
    """A value and how Excel shows it."""

    value: object
    number_format: str = "General"


_ESCAPED: Final = re.compile("_x(00[01][0-9A-Fa-f]|005[Ff])_")
"""How a workbook writes control characters, and the underscore of a text that looks like one."""


class _Exact(float):
    """A number that is written with all of its digits; xlsxwriter would round it to 16."""

    digits: str

    def __new__(cls, value: float) -> _Exact:
        made = super().__new__(cls, value)
        made.digits = repr(value)
        return made

    def __format__(self, _: str) -> str:
        return self.digits


class ExcelTable:
    """An opened workbook. Blank rows stay, but are not rows of the table."""

    def __init__(
        self, raw: BinaryIO, *, name: str, size_bytes: int, layout: Layout, columns: AnswerSchema
    ) -> None:
        """Read the header. Raises TableError for a file that has no such sheet."""
        self.name = name
        self._size_bytes = size_bytes
        self._layout = layout
        self._added = columns
        self._sheet = _open_sheet(raw, name, layout.sheet)
        self._row_count, width = _measure(self._sheet, name)
        filled = ((k, row) for k, row in enumerate(self._rows()) if not _is_blank(row))
        self.leading_rows, row = next(filled, (0, []))
        if not row:
            raise TableError(f"{name} is empty: it needs a header row", reason="EMPTY_FILE")
        header = _fit(row, width)
        self.columns = tuple(_as_text(cell.value) or "" for cell in header)
        self._texts_at = [find_column(name, self.columns, one) for one in layout.text_columns]
        self.kept = [find_column(name, self.columns, one, "--only-columns") for one in layout.keep]
        self.answers = count_answers(name, self.columns, columns.names, layout.update)

    def head(self, added: Sequence[str]) -> bytes:
        """See `Table.head`: an Arrow stream begins with its schema."""
        return bytes(self._added.schema().serialize())

    def windows(self, start: Position) -> Iterator[Window]:
        """See `Table.windows`; the lines of a position are rows of the sheet."""
        held: list[tuple[int, list[Cell]]] = []
        cost, row = 0, start.rows
        for line, cells in enumerate(self.body(), self.leading_rows + 2):
            if line <= start.lines or _is_blank(cells):
                continue
            held.append((line, cells))
            cost += ROW_BYTES + sum(len(str(cell.value)) for cell in cells)
            if cost >= self._layout.window_bytes:
                row += len(held)
                yield self._window(held, row)
                held, cost = [], 0
        if held:
            yield self._window(held, row + len(held))

    def body(self) -> Iterator[list[Cell]]:
        """Yield the rows below the header, blank ones too, all as wide as the header."""
        width = len(self.columns)
        for cells in islice(self._rows(), self.leading_rows + 1, None):
            yield _fit(cells, width)

    def _rows(self) -> Iterator[list[Cell]]:
        for row in self._sheet.iter_rows():
            yield [
                Cell(_unescaped(cell.value), getattr(cell, "number_format", "General"))
                for cell in row
            ]

    def _window(self, held: list[tuple[int, list[Cell]]], row: int) -> Window:
        lines, fields = zip(*held, strict=True)
        end = Position(lines[-1], lines[-1], row)
        consumed = self._size_bytes * end.lines // max(end.lines, self._row_count)
        texts = [*map(self._text, fields)]
        return Window(texts, lines, end, consumed, message, lambda: self._table(fields))

    def _text(self, cells: list[Cell]) -> str | TextError | None:
        if self.answers and has_answer(cells[-self.answers].value):
            return None
        values = [cells[k].value for k in self._texts_at]
        if all(value is None for value in values):
            return TextError("the cell is empty", reason="MISSING_TEXT")
        texts = [_as_text(value) or "" for value in values]
        return texts[0] if len(texts) == 1 else join_texts(texts) or ""

    def _table(self, fields: Sequence[list[Cell]]) -> pa.Table:
        positions = self.kept or range(len(self.columns))
        return pa.table(
            {
                self.columns[k]: pa.array([_as_text(row[k].value) for row in fields], pa.string())
                for k in positions
            }
        )


def write_excel(
    table: ExcelTable,
    stream: BinaryIO,
    target: BinaryIO,
    columns: AnswerSchema,
    step: Callable[[], None],
) -> None:
    """Write the rows of *table* to *target* with the answers of *stream*."""
    positions = table.kept or range(len(table.columns) - table.answers)
    answers = cells_of(stream)

    def rows() -> Iterator[list[Cell]]:
        yield from repeat([], table.leading_rows)
        yield [*(Cell(table.columns[k] or None) for k in positions), *map(Cell, columns.names)]
        for cells in table.body():
            if _is_blank(cells):
                yield []
                continue
            new = next(answers)
            if table.answers and has_answer(cells[-table.answers].value):
                new = cells[-table.answers :]
            yield [*(cells[k] for k in positions), *new]

    write_rows(rows(), target, step)


def write_rows(rows: Iterable[Sequence[Cell]], target: BinaryIO, step: Callable[[], None]) -> None:
    """Write a workbook of one sheet; *step* is called now and then."""
    xlsxwriter = _library("xlsxwriter")
    options = {"constant_memory": True, "default_date_format": "yyyy-mm-dd hh:mm:ss"}
    with xlsxwriter.Workbook(target, options) as book:
        book.set_properties({"created": _CREATED})
        sheet = book.add_worksheet()
        formats: dict[str, Any] = {"General": None}
        for i, row in enumerate(rows):
            if i % 1000 == 0:
                step()
            for k, (value, shown) in enumerate(row):
                if shown not in formats:
                    formats[shown] = book.add_format({"num_format": shown})
                _write(sheet, i, k, value, formats[shown])


def _write(sheet: Any, row: int, column: int, value: object, shown: Any) -> None:
    failed = 0
    if isinstance(value, bool):
        failed = sheet.write_boolean(row, column, value, shown)
    elif isinstance(value, int | float):
        failed = sheet.write_number(row, column, _Exact(value), shown)
    elif isinstance(value, dt.date | dt.time | dt.timedelta):
        failed = sheet.write_datetime(row, column, value, shown)
    elif value is not None:
        # Never as a formula or a link, whatever it begins with.
        failed = sheet.write_string(row, column, str(value), shown)
    if failed:  # xlsxwriter cuts a long text, and leaves out what is beyond the sheet
        why = f"row {row + 1} and column {column + 1} of the workbook cannot hold a value of"
        why += f" {len(str(value)):,} characters: write CSV or Parquet, which have no such limit"
        raise TableError(why, reason="TOO_LARGE_FOR_EXCEL")


def cells_of(stream: BinaryIO) -> Iterator[list[Cell]]:
    """Yield the rows of a stream of Arrow batches."""
    with pa.ipc.open_stream(stream) as reader:
        for batch in reader:
            for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                yield [Cell(without_bytes(value)) for value in row]


def without_bytes(value: object) -> object:
    """Return *value* as a cell has it: bytes become a text, with four characters a bad byte."""
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value


def _open_sheet(raw: BinaryIO, name: str, wanted: str | None) -> Any:
    openpyxl = _library("openpyxl")
    try:
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # of styles it lacks
            book = openpyxl.load_workbook(raw, read_only=True, data_only=True)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise _unreadable(name, error) from error
    if not book.worksheets:
        why = f"{name} has only charts and no sheet with cells: save the workbook that has the"
        raise TableError(f"{why} table, or its sheet as CSV", reason="EMPTY_FILE")
    for sheet in book.worksheets:
        # Some programs write a size that is wrong, and then cells would be left out.
        sheet.reset_dimensions()
    if wanted is not None:
        for sheet in book.worksheets:
            if sheet.title == wanted:
                return sheet
        names = ", ".join(sheet.title for sheet in book.worksheets)
        why = f"{name} has no sheet {wanted!r}; it has {names}: name one with --sheet"
        raise TableError(why, reason="MISSING_SHEET")
    used = [sheet for sheet in book.worksheets if any(map(any, sheet.iter_rows(values_only=True)))]
    if len(used) > 1:
        names = ", ".join(sheet.title for sheet in used)
        why = f"{name} has several sheets ({names}), and the output has one: name it with --sheet"
        raise TableError(why, reason="SEVERAL_SHEETS")
    return (used or book.worksheets)[0]


def _unreadable(name: str, error: Exception) -> TableError:
    why = f"{name} is not a complete Excel workbook ({error}): save it as .xlsx again, or name"
    return TableError(f"{why} its format with --format", reason="UNREADABLE")


def _measure(sheet: Any, name: str) -> tuple[int, int]:
    """Return the rows of *sheet*, and its columns up to the last that has a value.

    Raises TableError for a formula without a value, which would become an empty cell.
    """
    rows = width = 0
    data = Element("")
    # openpyxl gives the value of a formula and not the formula, so it cannot tell that one is
    # missing.
    with sheet._get_source() as source:
        try:
            for event, element in ElementTree.iterparse(source, events=("start", "end")):
                space, mark, tag = element.tag.rpartition("}")
                if event == "start" and tag == "sheetData":
                    data = element
                elif event == "end" and tag == "row":
                    rows += 1
                    width = max(width, _row_width(element, space + mark, name, rows))
                    data.clear()  # what was read needs no memory
        except (ElementTree.ParseError, zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise _unreadable(name, error) from error
    return rows, width


def _row_width(row: Element, space: str, name: str, number: int) -> int:
    """Return the number of the last column that has a value; *space* is the XML namespace."""
    width = column = 0
    for cell in row:
        place = cell.get("r", "")
        column = _column_number(place.rstrip("0123456789")) if place else column + 1
        if cell.findtext(f"{space}v") or cell.find(f"{space}is") is not None:
            width = column
        elif cell.find(f"{space}f") is not None and cell.get("t") != "str":  # str: the empty text
            why = f"{name} has a formula without a value in {place or f'row {number}'}, as some"
            why += " programs write: open it in Excel or LibreOffice, and save it again"
            raise TableError(why, reason="FORMULA_WITHOUT_VALUE")
    return width


@cache
def _column_number(letters: str) -> int:
    """Return 1 for A, 27 for AA."""
    number = 0
    for letter in letters:
        number = 26 * number + ord(letter) - ord("A") + 1
    return number


def _fit(cells: list[Cell], width: int) -> list[Cell]:
    """Return *cells*, of which those behind *width* are empty, in that width."""
    return [*cells[:width], *[Cell(None)] * (width - len(cells))]


def _library(name: str) -> Any:
    with from_extra("excel", "Excel files need another package"):
        return importlib.import_module(name)


def _is_blank(cells: Sequence[Cell]) -> bool:
    return all(cell.value is None for cell in cells)


def _unescaped(value: object) -> object:
    """Return a text as Excel shows it; xlsxwriter escapes it again."""
    if isinstance(value, str) and "_x" in value:
        return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), value)
    return value


def _as_text(value: object) -> str | None:
    """Return a value as the text that people see: numbers without `.0`, dates as ISO 8601."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value.isoformat() if isinstance(value, dt.date | dt.time) else str(value)
