"""The options that say how a table of reviews is written, the same for every command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import typer

if TYPE_CHECKING:
    from sentimill_train.data.schema import Columns

__all__ = [
    "Delimiter",
    "Encoding",
    "Escape",
    "LabelColumn",
    "QuoteChar",
    "TextColumn",
    "columns_of",
]

_INPUT: Final = "Input"

TextColumn = Annotated[
    list[str] | None,
    typer.Option(
        help="Column of the text; repeat it to join several.",
        show_default="text",
        rich_help_panel=_INPUT,
    ),
]
LabelColumn = Annotated[
    str | None,
    typer.Option(
        help="Column that holds the label, or stars from 1 to 5.",
        show_default="label, or stars",
        rich_help_panel=_INPUT,
    ),
]
Delimiter = Annotated[
    str | None,
    typer.Option(
        help="Character between the cells of a CSV file.",
        show_default="by the header line",
        rich_help_panel=_INPUT,
    ),
]
QuoteChar = Annotated[
    str,
    typer.Option(help="Quote character of CSV files, or none.", rich_help_panel=_INPUT),
]
Escape = Annotated[
    str | None,
    typer.Option(
        help="Character that escapes a quote in CSV files.",
        show_default="none",
        rich_help_panel=_INPUT,
    ),
]
Encoding = Annotated[
    str, typer.Option(help="Encoding of CSV files, such as latin-1.", rich_help_panel=_INPUT)
]


def columns_of(
    text: list[str] | None,
    label: str | None = None,
    delimiter: str | None = None,
    quote: str = '"',
    escape: str | None = None,
    encoding: str = "utf-8",
) -> Columns:
    """Return the columns and the format that the options name."""
    from sentimill_train.data.readers import CsvFormat
    from sentimill_train.data.schema import Columns

    return Columns(
        text=tuple(text or ("text",)),
        label=label,
        csv=CsvFormat(
            delimiter=delimiter,
            quote=None if quote == "none" else quote,
            escape=escape,
            encoding=encoding,
        ),
    )
