"""The options for reading labelled reviews, the same for every command."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from sentimill.cli.options import Input, TableOptions
from sentimill.cli.terminal import say

if TYPE_CHECKING:
    from sentimill_train.data.schema import Columns

DEFAULT_LABELS: Final = "negative,neutral,positive"

LabelColumn = Annotated[
    str | None,
    Input(
        help="Column that holds the label, or stars from 1 to 5.", show_default="label, or stars"
    ),
]
LabelsOption = Annotated[str, Input(help="The labels in order, separated by commas.")]


def columns_of(table: TableOptions, label: str | None = None) -> Columns:
    """Return the columns and the format from the options."""
    from sentimill_train.data.schema import Columns

    return Columns(
        texts=table.text_columns,
        label=label,
        delimiter=table.delimiter,
        quote=table.quote_mark,
        escape=table.escape,
        encoding=table.encoding,
    )


def say_next(written: Path, words: Sequence[object], labels: str) -> None:
    """Print the next command, unless the suffix of *written* is not one that it can read."""
    if written.suffix in (".jsonl", ".ndjson"):
        flags = [] if labels == DEFAULT_LABELS else ["--labels", labels]
        command = shlex.join(["sentimill", *map(str, words), *flags])
        say(f"next: {command}")


def split_names(names: str) -> tuple[str, ...]:
    """Return the names between the commas of *names*."""
    return tuple(name.strip() for name in names.split(",") if name.strip())
