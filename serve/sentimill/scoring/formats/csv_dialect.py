"""How the fields of a delimited file are told apart, and written so that they can be."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sentimill.errors import UsageError
from sentimill.scoring.formats.table import MAX_RECORD_BYTES

__all__ = ["Dialect"]

# The module's own limit is 128 KiB a field, and it raises where we answer with a row's error.
csv.field_size_limit(MAX_RECORD_BYTES)


@dataclass(frozen=True, slots=True)
class Dialect:
    """How fields are told apart. quote: None, a quote is a character like any other."""

    delimiter: str
    quote: str | None = '"'

    def read(self, lines: Iterator[str]) -> Iterator[list[str]]:
        """Return the records of *lines*; csv.Error for one that breaks the rules."""
        if self.quote is None:
            return csv.reader(lines, delimiter=self.delimiter, quoting=csv.QUOTE_NONE)
        return csv.reader(lines, delimiter=self.delimiter, quotechar=self.quote)

    def write(self, values: Sequence[str]) -> str:
        """Return *values* as one record, quoted where they need it, without a line end.

        Raises UsageError for a value that cannot be written without quotes.
        """
        out = io.StringIO()
        writer = csv.writer(
            out,
            delimiter=self.delimiter,
            quotechar=self.quote,
            quoting=csv.QUOTE_MINIMAL if self.quote else csv.QUOTE_NONE,
        )
        try:
            writer.writerow(values)
        except csv.Error as error:
            why = f"{values!r} cannot be written without quotes ({error}): choose another --quote"
            raise UsageError(why, reason="NEEDS_QUOTES") from error
        # The line end decides which characters the writer quotes, so it gets one and loses it.
        return out.getvalue().removesuffix("\r\n")
