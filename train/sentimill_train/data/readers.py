"""Reads reviews from files, the package and the hub, as rows of plain values.

Every format streams, so a file may be larger than memory. Only the columns that are asked for are
converted, so a bad value in another column stops no command. Only this file uses the `datasets`
library, and only to read the hub, because the library reports each use to a server.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Final

import msgspec

from sentimill.errors import TableError, UsageError
from sentimill.scoring.formats.compression import Stream, reading
from sentimill.scoring.formats.csv_records import DelimitedRows, open_rows
from sentimill.scoring.formats.kinds import Kind, kind_of
from sentimill_train.data.schema import Columns

_RESOURCES: Final = Path(__file__).parents[1] / "resources"
STARTER: Final = _RESOURCES / "starter.jsonl"
"""The starter reviews that come with the package."""
HARD_KINDS: Final = tuple(sorted((_RESOURCES / "hard_kinds").glob("*.jsonl")))
"""The reviews of the hard kinds (irony, negation, mixed verdicts, …) that come with the package."""
_READ: Final = ("csv", "tsv", "jsonl", "parquet")
"""The formats of reviews. `score` also reads workbooks and JSON arrays."""
_PACKAGED: Final = {"starter": (STARTER,), "hard-kinds": HARD_KINDS}

_PLAIN: Final = Columns()
_HUB: Final = "hub:"
_BATCH_ROWS: Final = 1000

Row = dict[str, object]


@dataclass(frozen=True, slots=True)
class Table:
    """An opened source. columns: its column names; in JSON lines, those of all rows together."""

    source: str
    columns: tuple[str, ...]
    _read: Callable[[Sequence[str]], Iterator[Row]]

    def rows(self, columns: Sequence[str]) -> Iterator[Row]:
        """Yield *columns* of every row, in order; a row of JSON lines may lack some of them.

        In rows of the hub, a class number becomes its name, and column `split` names the split,
        also if the data set has a column of that name.
        """
        for name in columns:
            if self.columns.count(name) > 1:
                raise TableError(
                    f"{self.source} has two columns {name!r}: rename one", reason="DUPLICATE_COLUMN"
                )
        return self._read(columns)


def is_hub(source: str) -> bool:
    """Say whether *source* is a hub name; only such a source is read over the network."""
    return source.startswith(_HUB)


def files_of(source: str) -> tuple[Path, ...]:
    """Return the files of *source*, which is not a hub name.

    `starter` and `hard-kinds` name reviews of the package; any other source is a path.
    """
    return _PACKAGED.get(source, (Path(source),))


def digest_of(source: str) -> str:
    """Return the sha256 of the bytes of *source*, or of a hub name with its revision."""
    if is_hub(source):
        return hashlib.sha256(source.encode()).hexdigest()
    digest = hashlib.sha256()
    for path in files_of(source):
        with path.open("rb") as file:
            hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()


def open_table(source: str, columns: Columns = _PLAIN) -> Table:
    """Open a file (csv, tsv, jsonl, ndjson, parquet), packaged reviews, or a data set of the hub.

    Text files may be compressed (.gz, .zst). Packaged reviews are `starter` and `hard-kinds`; a
    data set of the hub is `hub:owner/name[@revision]`. columns: how delimited files are written,
    and their text columns, which help to detect the delimiter.

    Raises:
        TableError: FILE_NOT_FOUND, FOLDER_AS_INPUT, UNSUPPORTED_FORMAT, EMPTY_FILE, BAD_ENCODING,
            BAD_FILE, DUPLICATE_COLUMN, HUB_UNREACHABLE, and those of `open_rows`, such as
            RAGGED_ROW and BAD_QUOTES; some are raised while the rows are read.
        UsageError: the source is of the hub and the extra `train` is not installed.
    """
    if is_hub(source):
        return _open_hub(source)
    tables = [_open_file(path, columns) for path in files_of(source)]
    if len(tables) == 1:
        return tables[0]
    every = tuple(dict.fromkeys(chain.from_iterable(table.columns for table in tables)))
    return Table(source, every, lambda names: chain.from_iterable(t.rows(names) for t in tables))


def _open_file(path: Path, columns: Columns) -> Table:
    if path.is_dir():
        raise TableError(f"{path} is a folder: name a file in it", reason="FOLDER_AS_INPUT")
    if not path.is_file():
        raise TableError(
            f"there is no file {path}: check the path, or write hub:owner/name for a data set of"
            " the hub",
            reason="FILE_NOT_FOUND",
        )
    try:
        kind = kind_of(str(path))
    except TableError:
        kind = None
    if kind is None or kind.name not in _READ:
        raise TableError(
            f"the format of {path} is not supported: save it as .csv, .tsv, .jsonl, .ndjson or"
            " .parquet",
            reason="UNSUPPORTED_FORMAT",
        )
    if path.stat().st_size == 0:
        raise TableError(
            f"{path} is empty: give a file with at least one review", reason="EMPTY_FILE"
        )
    if kind.name == "parquet":
        return _open_parquet(path)
    if kind.name == "jsonl":
        return _open_json_lines(path, kind)
    return _open_delimited(path, columns)


def _open_delimited(path: Path, columns: Columns) -> Table:
    """Open a CSV or TSV file as `score` does, but raise at a row that `score` would report."""

    def opened() -> AbstractContextManager[DelimitedRows]:
        return open_rows(
            path,
            delimiter=columns.delimiter,
            quote=columns.quote,
            escape=columns.escape,
            encoding=columns.encoding,
            wanted=columns.texts,
        )

    def rows(wanted: Sequence[str]) -> Iterator[Row]:
        with opened() as found:
            places = [(name, found.columns.index(name)) for name in wanted]
            for row in found:
                if row.error is not None:
                    raise TableError(
                        f"{path}, row {row.number}: {row.error}", reason=row.error.reason
                    )
                yield {name: row.fields[place] for name, place in places}

    with opened() as found:
        return Table(str(path), found.columns, rows)


def _open_json_lines(path: Path, kind: Kind) -> Table:
    columns: dict[str, None] = {}
    for row in _json_rows(path, kind):
        columns.update(dict.fromkeys(row))
    if not columns:
        raise TableError(f"{path} has no rows: give at least one review", reason="EMPTY_FILE")

    def rows(wanted: Sequence[str]) -> Iterator[Row]:
        every = set(wanted) >= columns.keys()
        for row in _json_rows(path, kind):
            yield row if every else {name: row[name] for name in wanted if name in row}

    return Table(str(path), tuple(columns), rows)


def _json_rows(path: Path, kind: Kind) -> Iterator[Row]:
    decoder = msgspec.json.Decoder(dict[str, object])
    number = 0
    with reading(str(path)), path.open("rb") as raw:
        for line in Stream(raw, str(path), kind).file:
            if not number:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if line.isspace():
                continue
            number += 1
            try:
                yield decoder.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                yield _odd_json(line, f"{path}, row {number}", error)


def _odd_json(line: bytes, where: str, error: Exception) -> Row:
    """Return a row with NaN or Infinity, which Python writes although JSON does not allow it."""
    try:
        found = json.loads(line.decode())
    except UnicodeDecodeError as why:
        raise TableError(
            f"{where}: not UTF-8; save the file as UTF-8", reason="BAD_ENCODING"
        ) from why
    except ValueError:
        found = None
    if not isinstance(found, dict) or _has_surrogate(found):
        raise TableError(
            f"{where}: {error}; write one JSON object a line", reason="BAD_FILE"
        ) from error
    return found


def _has_surrogate(row: Row) -> bool:
    """Say whether a text of *row* has an unpaired surrogate, which UTF-8 cannot encode."""
    return bool(re.search("[\ud800-\udfff]", json.dumps(row, ensure_ascii=False)))


def _open_parquet(path: Path) -> Table:
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    def broken(error: Exception) -> TableError:
        return TableError(f"{path} cannot be read ({error}): write it again", reason="BAD_FILE")

    try:
        # As 64-bit nanoseconds, INT96 dates before 1677 or after 2262 would overflow.
        file = ParquetFile(path, coerce_int96_timestamp_unit="us")
        columns = tuple(file.schema_arrow.names)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise broken(error) from error

    def rows(wanted: Sequence[str]) -> Iterator[Row]:
        try:
            # The reader takes the name `a.b` for field b of column a, and returns only a.
            for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=list(wanted)):
                names = [name for name in wanted if name in batch.schema.names]
                values = [_values(batch.column(name)) for name in names]
                for row in zip(*values, strict=True):
                    yield dict(zip(names, row, strict=True))
        except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
            raise broken(error) from error

    return Table(str(path), columns, rows)


def _values(column: Any) -> Iterable[object]:
    """Return the values of an Arrow *column*; dates and times that Python cannot hold are texts."""
    import pyarrow as pa

    with contextlib.suppress(OverflowError, ValueError):
        kind = _with_texts(column.type, lambda one: getattr(one, "unit", "") == "ns")
        return list(column.cast(kind).to_pylist())
    return list(column.cast(_with_texts(column.type, pa.types.is_temporal)).to_pylist())


def _with_texts(kind: Any, is_text: Callable[[Any], bool]) -> Any:
    """Return the Arrow type *kind* with each type in it that *is_text* replaced by a string."""
    import pyarrow as pa

    if is_text(kind):
        return pa.string()
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_with_texts(field.type, is_text)) for field in kind])
    if pa.types.is_map(kind):
        return pa.map_(_with_texts(kind.key_type, is_text), _with_texts(kind.item_type, is_text))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(_with_texts(kind.value_type, is_text), kind.list_size)
    if pa.types.is_large_list(kind):
        return pa.large_list(_with_texts(kind.value_type, is_text))
    if pa.types.is_list(kind):
        return pa.list_(_with_texts(kind.value_type, is_text))
    return kind


def _open_hub(source: str) -> Table:
    try:
        import datasets
    except ImportError as error:
        raise UsageError(
            "reading the hub needs the training parts: pip install 'sentimill[cpu,train]'",
            reason="EXTRA_MISSING",
        ) from error
    name, _, revision = source.removeprefix(_HUB).partition("@")
    try:
        parts = datasets.load_dataset(name, revision=revision or None, streaming=True)
    except (OSError, ValueError) as error:
        # ConnectionError and DatasetNotFoundError are OSErrors.
        raise TableError(
            f"{source} cannot be read from the hub ({error}): check the name and the network, or"
            " download the files and give their paths",
            reason="HUB_UNREACHABLE",
        ) from error
    first = next(iter(parts.values()))
    columns = first.column_names or tuple(next(iter(first)))

    def rows(wanted: Sequence[str]) -> Iterator[Row]:
        for split, part in parts.items():
            # A data set that declares no features has the columns of its first row.
            features = part.features or dict.fromkeys(columns)
            present = [column for column in wanted if column in features and column != "split"]
            classes = {c: getattr(features[c], "names", None) for c in present}
            for batch in part.iter(batch_size=_BATCH_ROWS):
                for values in zip(*(batch[column] for column in present), strict=True):
                    row: Row = {"split": split}
                    for column, value in zip(present, values, strict=True):
                        names = classes[column]
                        row[column] = _class_name(value, names) if names else value
                    yield row

    return Table(source, tuple(dict.fromkeys((*columns, "split"))), rows)


def _class_name(value: object, names: Sequence[str]) -> str | None:
    # The hub writes -1 for "no label".
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else None
