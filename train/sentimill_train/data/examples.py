"""Reads examples from any source, as a stream or a list, and writes them as JSON lines.

Every command reads its labelled reviews here, so all of them accept and refuse the same rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Final

import msgspec

from sentimill.atomic_write import open_atomically
from sentimill.errors import TableError
from sentimill.scoring.formats.table import find_column
from sentimill_train.data.readers import files_of, is_hub, open_table
from sentimill_train.data.row_parser import RowParser, text_of
from sentimill_train.data.schema import FIELDS, SENTIMENTS, Columns, Example

_PLAIN: Final = Columns()
_LABELS: Final = re.compile(r"label|sentiment|polarity|class|target|verdict", re.IGNORECASE)
_STARS: Final = re.compile(r"rating|stars?\b|score|overall", re.IGNORECASE)
_JSON: Final = msgspec.json.Encoder(enc_hook=str)


def stream_examples(
    source: str,
    *,
    columns: Columns = _PLAIN,
    labels: Sequence[str] | None = SENTIMENTS,
    keep: bool = False,
) -> Iterator[Example]:
    """Yield the rows of *source* in order: a file, packaged reviews, `hub:owner/name[@revision]`.

    labels: the closed set; None takes every label as it is found. A label may differ in case, be
    one of neg, neu, pos, or be a number of stars (see `sentiment_of_stars`). A row without a label
    takes the label of its largest prob, else of its stars, else stays unlabelled. Probs are a list
    in label order, an object by name, or the columns `probs_LABEL`. An empty text is kept, because
    `sentimill.text.tokenizer` decides what a model can read. keep: examples keep all the other
    columns.

    Raises:
        TableError: the file or a value in it is not usable; the message names file, row (the first
            row of data is row 1) and remedy. Reasons: those of `open_table`, MISSING_COLUMN,
            UNKNOWN_LABEL, AMBIGUOUS_LABEL, BAD_TEXT, BAD_PROBS, PROBS_DISAGREE, BAD_STARS,
            BAD_SPLIT, BAD_WEIGHT. Errors of the file as a whole are raised after the last row.
    """
    table = open_table(source, columns)
    parser = RowParser(source, table.columns, columns, labels, keep=keep)
    for row in table.rows(parser.wanted):
        yield parser.parse(row)
    parser.check_whole()


def read_examples(
    source: str, *, columns: Columns = _PLAIN, labels: Sequence[str] | None = SENTIMENTS
) -> list[Example]:
    """Return the rows of *source*, see `stream_examples`."""
    return list(stream_examples(source, columns=columns, labels=labels))


def stream_texts(
    source: str, columns: Columns = _PLAIN, *, keep: bool = False
) -> Iterator[tuple[str, dict[str, object]]]:
    """Yield the text and the raw columns of every row of *source*; labels are not checked.

    keep: yield all columns, not only the text columns.

    Raises:
        TableError: those of `open_table`, MISSING_COLUMN, BAD_TEXT, EMPTY_FILE.
    """
    table = open_table(source, columns)
    for name in columns.texts:
        find_column(source, table.columns, name)
    number = 0
    for number, row in enumerate(table.rows(table.columns if keep else columns.texts), 1):
        yield text_of(row, columns.texts, source, number), row
    if number == 0:
        raise TableError(f"{source} has no rows: give at least one text", reason="EMPTY_FILE")


def likely_label_column(
    source: str, columns: Columns, labels: Sequence[str]
) -> tuple[str, bool] | None:
    """Return the column of *source* that seems to hold the labels, for a hint; None if none does.

    The second value is true if the column holds stars. A column qualifies if its first rows can be
    read as *labels*. Columns with a typical name (`sentiment`, …) are tried first, since `helpful`
    may hold 0 and 1 too. A column of stars also needs a typical name (`rating`, `review_score`, …),
    because numbers may mean anything.
    """
    if is_hub(source) or not all(path.is_file() for path in files_of(source)):
        return None
    table = open_table(source, columns)
    unique = [name for name in table.columns if table.columns.count(name) == 1]
    rows = list(islice(table.rows(unique), 100))
    for name in sorted(unique, key=lambda name: _LABELS.search(name) is None):
        parser = RowParser(source, table.columns, replace(columns, label=name), labels)
        with suppress(TableError):
            # A column `stars` of the file must not decide the labels here.
            found = [parser.parse({**row, "stars": None, name: row[name]}) for row in rows]
            parser.check_whole()
            stars = any(example.stars is not None for example in found)
            if any(example.label for example in found) and (_STARS.search(name) or not stars):
                return name, stars
    return None


def write_examples(
    path: Path, examples: Iterable[Example], *, labels: Sequence[str] | None = None
) -> int:
    """Write JSON lines for `read_examples`, completely or not at all; return how many.

    labels: write the probs by name. `source` is not written: a reader sets it to its file.
    """
    rows = 0
    with open_atomically(path) as file:
        for example in examples:
            file.write(encode_example(example, labels))
            rows += 1
    return rows


def encode_example(
    example: Example, labels: Sequence[str] | None, more: dict[str, object] | None = None
) -> bytes:
    """Return *example* as a line of JSON; a field wins over an extra column of the same name.

    more: what else to write. A value that JSON does not know is written as its text.
    """
    names = ("id", "text", "label", *FIELDS)
    fields = {name: value for name in names if (value := getattr(example, name)) is not None}
    if example.probs is not None and labels is not None:
        fields["probs"] = dict(zip(labels, example.probs, strict=True))
    written = fields | (more or {})
    return _JSON.encode({**written, **(example.extra or {}), **written}) + b"\n"
