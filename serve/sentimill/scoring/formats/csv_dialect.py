"""CSV dialects: which characters separate, quote and escape fields, and how records are written."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from sentimill.errors import UsageError

MAX_LINE_BYTES: Final = 64 << 20
"""The longest line that is read; a file with a longer one is not a table."""

_DELIMITERS: Final = (",", ";", "\t", "|")
_DECLARATION: Final = re.compile(r'"?sep=(.)"?', re.IGNORECASE)
_OPENING_QUOTE: Final = r"(?:^|[\s(\[]){quote}(?=\w)"

# The default limit of `csv` is 128 KiB per field. It raises where Sentimill reports one bad row.
csv.field_size_limit(MAX_LINE_BYTES)


@dataclass(frozen=True, slots=True)
class Dialect:
    """How fields are separated. quote: None means that no character quotes."""

    delimiter: str
    quote: str | None = '"'
    escape: str | None = None

    def read(self, lines: Iterator[str], *, strict: bool = True) -> Iterator[list[str]]:
        """Return the records of *lines*; csv.Error for a record that breaks the rules.

        A strict reader rejects characters after a closing quote, and a quote that is never closed.
        """
        if self.quote is None:
            return csv.reader(
                lines,
                delimiter=self.delimiter,
                quotechar=None,  # Python 3.13 refuses an escape that is the default quote
                escapechar=self.escape,
                quoting=csv.QUOTE_NONE,
            )
        return csv.reader(
            lines,
            delimiter=self.delimiter,
            quotechar=self.quote,
            escapechar=self.escape,
            strict=strict,
        )

    def write(self, values: Sequence[str]) -> str:
        """Return *values* as one record, quoted where necessary, without a line end.

        Raises UsageError for a value that cannot be written without quotes.
        """
        out = io.StringIO()
        writer = csv.writer(
            out,
            delimiter=self.delimiter,
            quotechar=self.quote,
            escapechar=self.escape,
            quoting=csv.QUOTE_MINIMAL if self.quote else csv.QUOTE_NONE,
        )
        try:
            writer.writerow(values)
        except csv.Error as error:
            why = f"{values!r} cannot be written without quotes ({error}): choose another --quote"
            raise UsageError(why, reason="NEEDS_QUOTES") from error
        # The writer quotes whatever its line end contains, so it gets one that is removed here.
        return out.getvalue().removesuffix("\r\n")

    def opens_inside(self, record: str) -> bool:
        r"""Say whether an unquoted field of *record* contains a quote that opens and stays open.

        For example `say "hi` in `1,say "hi`: the writer meant a passage that continues after the
        delimiter or the line end. An inch mark (`5" wide`) and a closed passage do not count. In a
        record with `\"`, such as `"so \", he said"`, any lone quote counts: its writer escapes
        quotes with a backslash.
        """
        if self.quote is None or self.escape is not None:
            return False
        quote, delimiter = re.escape(self.quote), re.escape(self.delimiter)
        quoted = rf"(^|{delimiter}){quote}(?:[^{quote}]|{quote}{quote})*+{quote}(?={delimiter}|$)"
        opening = re.compile(_OPENING_QUOTE.format(quote=quote))
        rest = re.sub(quoted, r"\1", record.rstrip("\r\n"))
        backslash = f"\\{self.quote}" in record
        return any(
            field.count(self.quote) % 2 == 1 and (backslash or opening.search(field))
            for field in rest.split(self.delimiter)
        )


def declared_delimiter(line: str) -> str | None:
    """Return the delimiter that *line* declares for Excel, such as `sep=;`, or None."""
    found = _DECLARATION.fullmatch(line.strip("\r\n"))
    return found[1] if found else None


def choose_delimiter(
    header: str, default: str, quote: str | None, wanted: Sequence[str] = ()
) -> str:
    """Return the delimiter of a file whose header line is *header*.

    This is the *default* of the format if it yields the *wanted* columns, else the most frequent of
    comma, semicolon, tab and bar that yields them. If none does, it is the default if the header
    contains it, else the most frequent of the others.
    """
    mark = re.escape(quote) if quote else '"'
    bare = re.sub(f"{mark}[^{mark}]*{mark}", "", header)
    ranked = sorted(
        (one for one in {default, *_DELIMITERS} if one in bare),
        key=lambda one: (one != default, -bare.count(one), _DELIMITERS.index(one)),
    )
    if wanted:
        for delimiter in ranked:
            with suppress(csv.Error):
                names = next(Dialect(delimiter, quote).read(iter([header]), strict=False), [])
                if set(wanted) <= set(names):
                    return delimiter
    return ranked[0] if ranked else default
