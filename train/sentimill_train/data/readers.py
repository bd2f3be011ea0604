"""Where reviews come from: files, the starter reviews and the hub, as rows of plain values.

The only file that knows the `datasets` library. It streams, because the library otherwise writes
an Arrow copy of every input into a cache folder that nobody empties; and it builds from files
without `load_dataset`, which reports each use to a server even for a local file.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from sentimill.errors import TableError, UsageError

if TYPE_CHECKING:
    from datasets import IterableDataset

__all__ = ["HARD_KINDS", "STARTER", "Table", "digest_of", "files_of", "is_hub", "open_table"]

_RESOURCES: Final = Path(__file__).parents[1] / "resources"
STARTER: Final = _RESOURCES / "starter.jsonl"
"""The starter reviews that come with the package."""
HARD_KINDS: Final = tuple(sorted((_RESOURCES / "hard_kinds").glob("*.jsonl")))
"""The reviews of the hard kinds (irony, negation, mixed verdicts, …) that come with the package."""
_PACKAGED: Final = {"starter": (STARTER,), "hard-kinds": HARD_KINDS}

_HUB: Final = "hub:"
_SEPARATORS: Final = {".csv": ",", ".tsv": "\t"}
_JSON_LINES: Final = (".jsonl", ".ndjson")
_BATCH_ROWS: Final = 1000
_ESCAPED_BYTE: Final = re.compile("[\udc80-\udcff]")


@dataclass(frozen=True, slots=True)
class Table:
    """An opened source: its column names, and its parts, which on the hub are its splits."""

    columns: tuple[str, ...]
    parts: tuple[tuple[str | None, IterableDataset], ...]

    def rows(self, columns: Sequence[str]) -> Iterator[dict[str, object]]:
        """Yield *columns* of every row, in order.

        A class number of the hub comes as its name, and the name of a split as column `split`.
        """
        for split, part in self.parts:
            present = [column for column in columns if column in part.features]
            classes = {c: getattr(part.features[c], "names", None) for c in present}
            for batch in part.iter(batch_size=_BATCH_ROWS):
                for values in zip(*(batch[column] for column in present), strict=True):
                    row: dict[str, object] = {"split": split} if split is not None else {}
                    for column, value in zip(present, values, strict=True):
                        names = classes[column]
                        row[column] = _class_name(value, names) if names else value
                    yield row


def _class_name(value: object, names: Sequence[str]) -> str | None:
    # -1 is how the hub writes "no label".
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else None


def is_hub(source: str) -> bool:
    """Say whether *source* is a hub name; only such a source is read over the network."""
    return source.startswith(_HUB)


def files_of(source: str) -> tuple[Path, ...]:
    """Return the files of *source*: `starter` and `hard-kinds` name reviews of the package.

    Any other source is the path of one file. A hub name has no files.
    """
    return _PACKAGED.get(source, (Path(source),))


def digest_of(source: str) -> str:
    """Return the sha256 of the bytes of *source*, or of a hub name with its revision."""
    if is_hub(source):
        return hashlib.sha256(source.encode()).hexdigest()
    digest = hashlib.sha256()
    for path in files_of(source):
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def open_table(source: str) -> Iterator[Table]:
    """Open a file (csv, tsv, jsonl, ndjson, parquet), packaged reviews (`starter`, `hard-kinds`).

    A data set of the hub is `hub:owner/name[@revision]`.

    Errors of the reader come out of the block as TableError, so read inside it.

    Raises:
        TableError: FILE_NOT_FOUND, UNSUPPORTED_FORMAT, EMPTY_FILE, BAD_ENCODING, BAD_FILE,
            RAGGED_ROW, DUPLICATE_COLUMN, HUB_UNREACHABLE.
        UsageError: the extra `train` is not installed.
    """
    try:
        import datasets
    except ImportError as error:
        raise UsageError(
            "reading reviews needs the training parts: pip install 'sentimill[cpu,train]'",
            reason="EXTRA_MISSING",
        ) from error
    if is_hub(source):
        yield _open_hub(source)
        return
    path, *more = files_of(source)
    suffix = _check_file(path)
    verbosity = datasets.logging.get_verbosity()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # it logs what it then raises
    try:
        with tempfile.TemporaryDirectory(prefix="sentimill-") as cache:
            table = _open_file(path, suffix, cache)
            others = [_open_file(other, suffix, cache) for other in more]
            yield Table(table.columns, table.parts + tuple(o.parts[0] for o in others))
    except (ValueError, StopIteration, OSError) as error:
        # ValueError is the root of pandas', Arrow's, JSON's and Unicode's errors alike.
        raise _explain(path, suffix, error) from error
    finally:
        datasets.logging.set_verbosity(verbosity)


def _check_file(path: Path) -> str:
    suffix = path.suffix.lower()
    if not path.is_file():
        raise TableError(
            f"there is no file {path}: check the path, or write hub:owner/name for a data set of"
            " the hub",
            reason="FILE_NOT_FOUND",
        )
    if suffix not in (*_SEPARATORS, *_JSON_LINES, ".parquet"):
        raise TableError(
            f"{path} is of no known format: use .csv, .tsv, .jsonl, .ndjson or .parquet",
            reason="UNSUPPORTED_FORMAT",
        )
    if path.stat().st_size == 0:
        raise TableError(
            f"{path} is empty: give a file with at least one review", reason="EMPTY_FILE"
        )
    return suffix


def _open_file(path: Path, suffix: str, cache: str) -> Table:
    from datasets import Features, IterableDataset, Value

    if suffix in _SEPARATORS:
        header = _check_csv(path, _SEPARATORS[suffix])
        part = IterableDataset.from_csv(
            str(path),
            features=Features({name: Value("string") for name in header}),
            cache_dir=cache,
            sep=_SEPARATORS[suffix],
            encoding="utf-8-sig",
            keep_default_na=False,  # "NA" and "null" are words that people write
            index_col=False,
        )
    elif suffix in _JSON_LINES:
        # One chunk, so that a column that is null at first has its type from the whole file.
        size = path.stat().st_size + 1
        part = IterableDataset.from_json(
            str(path), cache_dir=cache, chunksize=size, parse_agent_traces=False
        )
    else:
        part = IterableDataset.from_parquet(str(path), cache_dir=cache)
    if part.features is None:  # JSON that is no JSON lines
        raise ValueError(f"not {suffix.lstrip('.')}")
    if not part.features:
        raise TableError(f"{path} has no rows: give at least one review", reason="EMPTY_FILE")
    return Table(columns=tuple(part.features), parts=((None, part),))


def _check_csv(path: Path, separator: str) -> list[str]:
    """Return the header after checking that every row has as many fields.

    pandas, which `datasets` reads with, fills a short row with nothing and cuts a long first row.
    """
    limit = csv.field_size_limit(sys.maxsize)  # a quote that is never closed is our error to tell
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = (row for row in csv.reader(file, delimiter=separator, strict=True) if row)
            header = next(rows, [])
            if not header:
                raise TableError(
                    f"{path} has no rows: give a header and a review", reason="EMPTY_FILE"
                )
            for name in header:
                if header.count(name) > 1:
                    raise TableError(
                        f"{path} has two columns {name!r}: rename one", reason="DUPLICATE_COLUMN"
                    )
            number = 0
            try:
                for number, row in enumerate(rows, start=1):
                    if len(row) != len(header):
                        raise TableError(
                            f"{path}, row {number}: {len(row)} fields under {len(header)} columns;"
                            " put quotes around a text with a separator in it",
                            reason="RAGGED_ROW",
                        )
            except csv.Error as error:
                raise TableError(
                    f"{path}, row {number + 1}: {error}; check its quotes", reason="BAD_FILE"
                ) from error
    finally:
        csv.field_size_limit(limit)
    return header


def _explain(path: Path, suffix: str, error: Exception) -> TableError:
    """Return the error that says where *path* is broken; called when it is known to be."""
    if suffix == ".parquet":
        return TableError(f"{path} cannot be read ({error}): write it again", reason="BAD_FILE")
    save = "save the file as UTF-8"
    if suffix in _SEPARATORS:
        with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            for number, row in enumerate(filter(None, csv.reader(file))):
                if _ESCAPED_BYTE.search("".join(row)):
                    where = f"row {number}" if number else "the header"
                    return TableError(f"{path}, {where}: not UTF-8; {save}", reason="BAD_ENCODING")
        return TableError(f"{path} cannot be read ({error}): check it", reason="BAD_FILE")
    rows = 0
    for line in path.read_bytes().split(b"\n"):
        rows += bool(line.strip())
        try:
            line.decode()
            if line.strip():
                msgspec.json.decode(line.removeprefix(b"\xef\xbb\xbf"), type=dict[str, object])
        except UnicodeDecodeError:
            return TableError(f"{path}, row {rows}: not UTF-8; {save}", reason="BAD_ENCODING")
        except msgspec.DecodeError as why:
            return TableError(
                f"{path}, row {rows}: {why}; write one JSON object a line", reason="BAD_FILE"
            )
    if rows == 0:
        return TableError(f"{path} has no rows: give at least one review", reason="EMPTY_FILE")
    return TableError(
        f"{path} cannot be read ({error}): give each key one kind of value", reason="BAD_FILE"
    )


def _open_hub(source: str) -> Table:
    import datasets

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
    return Table(columns=(*columns, "split"), parts=tuple(parts.items()))
