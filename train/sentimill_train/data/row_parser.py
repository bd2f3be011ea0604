"""Turns the raw rows of a table into examples; an error names the file, the row and the remedy."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from pathlib import Path
from typing import Final, cast

import msgspec

from sentimill.errors import TableError
from sentimill.scoring.formats.table import find_column
from sentimill.text.cleaning import join_texts
from sentimill_train.data.schema import (
    FIELDS,
    SENTIMENTS,
    Columns,
    Example,
    Split,
    number_of,
    sentiment_of_stars,
)

SHARES_TOLERANCE: Final = 0.02  # three shares rounded to two decimals can miss 1 by 0.015

DISAGREEMENT_LIMIT: Final = 0.5
"""The share of rows whose label may differ from the one with the largest prob.

Two careful annotators agree on three rows in four or more. If most rows disagree, the likely cause
is that the probs are not in the order of the labels."""

_LEAST_COMPARED: Final = 20  # fewer rows say nothing about the order of the probs

_SHORT: Final = {"neg": "negative", "neu": "neutral", "pos": "positive"}
_MISSING: Final = frozenset({"", "nan", "null", "none", "n/a"})
_OF_FIVE: Final = re.compile(r"\s*(?:/\s*5|out of 5)?\s*(?:stars?)?$", re.IGNORECASE)
_FIVE: Final = frozenset("12345")
_LONGEST_MARK: Final = 40
"""Characters of a mark such as "4.0 out of 5 stars"; `_OF_FIVE` is slow on long texts."""
_SPLITS: Final[dict[str, Split]] = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}


def text_of(row: Mapping[str, object], names: Sequence[str], source: str, number: int) -> str:
    """Return the text of a row from the columns *names*, joined if several; missing ones are empty.

    source, number: where the row is. Raises TableError BAD_TEXT where a value is not text.
    """
    parts = []
    for name in names:
        value = row.get(name)
        if value is None or value != value:  # NaN is how a data frame writes a missing text
            continue
        if isinstance(value, bytes):  # old versions of Spark did not mark text columns as text
            with suppress(UnicodeDecodeError):
                value = value.decode("utf-8")
        if not isinstance(value, str):
            raise TableError(
                f"{source}, row {number}: column {name!r} holds {type(value).__name__}, not text;"
                " use another",
                reason="BAD_TEXT",
            )
        parts.append(value)
    return parts[0] if len(parts) == 1 else join_texts(parts) or ""


class RowParser:
    """Parses the rows of one source in order. `check_whole` then checks all of them together.

    labels: the closed set; None takes every label as it is found. keep: `extra` of the examples
    keeps the columns that are in no other field.
    """

    def __init__(
        self,
        source: str,
        table_columns: Sequence[str],
        columns: Columns,
        labels: Sequence[str] | None,
        *,
        keep: bool = False,
    ) -> None:
        self._source = source
        texts = (("text", name) for name in columns.texts)
        for role, name in (*texts, ("label", columns.label), ("weight", columns.weight)):
            if name is not None:
                find_column(source, table_columns, name, f"--{role}-column")
        self._texts = columns.texts
        self._weight_column = columns.weight or ""
        self._label_column = columns.label or "label"
        self._labels = None if labels is None else tuple(labels)
        self._known = _spellings(labels or ())
        self._sentiments = labels is not None and set(SENTIMENTS) <= set(labels)
        self._share_columns = _share_columns(table_columns, labels or ())
        named = (*columns.texts, self._label_column, columns.weight)
        read = {*named, "id", *FIELDS, *self._share_columns}
        self.wanted: Final = [name for name in table_columns if keep or name in read]
        """The columns that `parse` needs in its rows."""
        # The parts of a joined text are kept, because it cannot be split again.
        held = read - set(columns.texts) if len(columns.texts) > 1 else read
        self._extra = [name for name in self.wanted if name not in held] if keep else None
        self._stem = Path(source).stem or source
        self._row = 0
        self._highest_number = 0
        self._compared = self._differing = 0

    def parse(self, row: Mapping[str, object]) -> Example:
        """Return the next row as an example. Raises TableError where a value is not usable."""
        self._row += 1
        probs = self._probs(row)
        stars = self._stars(row.get("stars"))
        label, number = self._label(row.get(self._label_column))
        stars = stars if stars is not None else number
        likeliest = None
        if probs is not None and self._labels is not None:
            likeliest = self._labels[max(range(len(probs)), key=probs.__getitem__)]
            if label is not None:
                self._compared += 1
                self._differing += label != likeliest
        if label is None:
            label = likeliest
        if label is None and stars is not None and self._sentiments:
            label = sentiment_of_stars(stars)
        given = self._known_label(row.get("given"))
        teacher = _string(row.get("teacher"))
        # With shares, the label of a teacher is not learnt: see `human_labels`.
        taught = probs is not None and (given is not None or teacher is not None)
        own = {given} if taught else {label, given}
        return Example(
            id=_string(row.get("id")) or f"{self._stem}-{self._row}",
            text=text_of(row, self._texts, self._source, self._row),
            label=label,
            probs=probs,
            stars=stars,
            domain=_string(row.get("domain")),
            split=self._split(row.get("split")),
            source=self._source,
            given=given,
            teacher=teacher,
            labels_allowed=self._allowed(row.get("labels_allowed"), own - {None}),
            weight=self._weight(row.get(self._weight_column)),
            extra=None if self._extra is None else {n: row[n] for n in self._extra if n in row},
        )

    def check_whole(self) -> None:
        """Raise TableError if all rows together show that they were read in the wrong way."""
        if self._row == 0:
            raise TableError(
                f"{self._source} has no rows: give a file with at least one review",
                reason="EMPTY_FILE",
            )
        if 0 < self._highest_number < 4:
            raise TableError(
                f"{self._source}: the labels are numbers up to {self._highest_number}, which may"
                " be classes or stars: write their names, or name the column `stars`",
                reason="AMBIGUOUS_LABEL",
            )
        if self._compared >= _LEAST_COMPARED:
            share = self._differing / self._compared
            if share > DISAGREEMENT_LIMIT:
                raise TableError(
                    f"{self._source}: the label is not the one with the largest prob in {share:.0%}"
                    f" of {self._compared:,} rows, and at most {DISAGREEMENT_LIMIT:.0%} may differ:"
                    " give --labels in the order of the probs, or write probs by name, as"
                    ' {"negative": 0.1, ...}',
                    reason="PROBS_DISAGREE",
                )

    def _label(self, value: object) -> tuple[str | None, int | None]:
        """Return the label, and the stars if the value was a number of stars."""
        text = _string(value)
        if text is None:
            return None, None
        if self._labels is None:
            return (None if text.casefold() in _MISSING else text), None
        known, whole = self._known_label(text), _whole(text)
        if known is not None:
            return known, None
        if text.casefold() in _MISSING:
            return None, None
        if self._sentiments and whole is not None and 1 <= whole <= 5:
            # "3 stars" is clearly one of five; a bare 3 may be a class.
            highest = whole if _whole(text, marked=False) is not None else 5
            self._highest_number = max(self._highest_number, highest)
            return sentiment_of_stars(whole), whole
        remedy = "correct it, or give the set with --labels"
        if self._sentiments and not math.isnan(number_of(text)):
            remedy = (
                f"write {_words(self._labels)} in place of numbers that are not 1 to 5 stars, or"
            )
            remedy += " give the set with --labels"
        raise self._bad(
            "UNKNOWN_LABEL",
            f"the label {text[:40]!r} is none of {', '.join(self._labels)}",
            remedy,
        )

    def _known_label(self, value: object) -> str | None:
        """Return the label that *value* stands for, None if there is no such label."""
        text = _string(value) or ""
        whole = _whole(text, marked=set(self._known).issuperset(_FIVE))
        spellings = (text, text.casefold(), "" if whole is None else str(whole))
        return next((self._known[each] for each in spellings if each in self._known), None)

    def _allowed(self, value: object, own: Set[str | None]) -> tuple[str, ...] | None:
        """Return the labels in *value*, which is a list, or a text with commas between them.

        own: the labels that people gave the row, which must be among them.
        """
        if value is None or value == "" or value != value or self._labels is None:
            return None
        names = value.split(",") if isinstance(value, str) else value
        listed = names if isinstance(names, list | tuple) else [None]
        found = {self._known_label(name) for name in listed}
        if not found or None in found or not own <= found:
            raise self._bad(
                "UNKNOWN_LABEL",
                f"labels_allowed {str(value)[:40]!r} must be some of {', '.join(self._labels)}, and"
                " include the label that a person gave the row",
                "write a list, or names with commas between them, or leave it empty",
            )
        return tuple(each for each in self._labels if each in found)

    def _weight(self, value: object) -> float:
        text = _string(value)
        if text is None:
            return 1.0
        number = number_of(text)
        if not 0 <= number < math.inf:
            why = f"the weight {text[:40]!r} is not a number of at least 0"
            raise self._bad("BAD_WEIGHT", why, "correct it, or leave it empty")
        return number

    def _stars(self, value: object) -> int | None:
        text = _string(value)
        if text is None or text.casefold() in _MISSING:
            return None
        number = _whole(text)
        if number is None or not 1 <= number <= 5:
            raise self._bad(
                "BAD_STARS",
                f"stars {text[:40]!r} is not a whole number from 1 to 5",
                "correct it, or remove it; with another scale, rename the column, and write"
                " labels in words",
            )
        return number

    def _probs(self, row: Mapping[str, object]) -> tuple[float, ...] | None:
        value = row.get("probs")
        if value is None and self._share_columns:
            parts = [_string(row.get(name)) for name in self._share_columns]
            value = None if None in parts else [number_of(part or "") for part in parts]
        if value is None or value == "" or value != value:
            return None
        if self._labels is None:
            raise self._bad("BAD_PROBS", "probs have no order without a label set", "give --labels")
        if isinstance(value, str):  # a CSV cell
            try:
                value = msgspec.json.decode(value)
            except msgspec.DecodeError:
                raise self._bad(
                    "BAD_PROBS", "probs is not valid JSON", "write [0.1, 0.2, ...]"
                ) from None
        if isinstance(value, list) and value and all(isinstance(p, tuple) for p in value):
            value = dict(value)  # pyarrow returns a MAP of Parquet as pairs
        if isinstance(value, Mapping):
            value = self._ordered(value)
        good = isinstance(value, list) and all(isinstance(p, int | float) for p in value)
        shares = [float(p) for p in cast(list[float], value)] if good else []
        total = math.fsum(shares)
        if len(shares) != len(self._labels) or not (
            abs(total - 1) <= SHARES_TOLERANCE and min(shares) >= 0
        ):
            why = f"probs must be {len(self._labels)} numbers of at least 0 that sum to 1"
            raise self._bad("BAD_PROBS", why, "correct or remove them")
        return tuple(share / total for share in shares)

    def _ordered(self, shares: Mapping[object, object]) -> list[object]:
        """Return shares by name as a list in label order; a label that is not named gets 0."""
        by_label: dict[str, object] = {}
        for key, share in shares.items():
            name = str(key)  # a MAP of Parquet may have numbers as keys
            label = self._known.get(name) or self._known.get(name.casefold())
            if label is None:
                why = f"probs names {name[:40]!r}, which is none of {', '.join(self._labels or ())}"
                raise self._bad("BAD_PROBS", why, "correct it, or give the set with --labels")
            by_label[label] = 0.0 if share is None else share
        return [by_label.get(label, 0.0) for label in self._labels or ()]

    def _split(self, value: object) -> Split | None:
        text = (_string(value) or "").casefold()
        if text in _MISSING:
            return None
        if text not in _SPLITS:
            why = f"the split {text[:40]!r} is none of train, validation, test"
            raise self._bad("BAD_SPLIT", why, "correct it, or remove the column")
        return _SPLITS[text]

    def _bad(self, reason: str, why: str, remedy: str) -> TableError:
        return TableError(f"{self._source}, row {self._row}: {why}; {remedy}", reason=reason)


def _words(labels: Sequence[str]) -> str:
    return f"{', '.join(labels[:-1])} or {labels[-1]}"


def _spellings(labels: Sequence[str]) -> dict[str, str]:
    """Return the label of each spelling; exact names win over neg, neu, pos and lower case."""
    known = {label.casefold(): label for label in labels}
    known |= {short: name for short, name in _SHORT.items() if name in labels}
    return known | {label: label for label in labels}


def _share_columns(columns: Sequence[str], labels: Sequence[str]) -> list[str]:
    """Return the column of each label's share, in label order; empty unless all are there."""
    for pattern in ("probs_{}", "prob_{}", "probs.{}"):
        names = [pattern.format(label) for label in labels]
        if names and set(names) <= set(columns):
            return names
    return []


def _string(value: object) -> str | None:
    """Return a value as text; None where it is missing, blank or NaN."""
    if value is None or value != value:
        return None
    return str(value).strip() or None


def _whole(text: str, *, marked: bool = True) -> int | None:
    """Return the whole number in *text*, such as 4 or 4.0, and if *marked* also 4/5 or 4 stars."""
    cut = marked and len(text) <= _LONGEST_MARK
    number = number_of(_OF_FIVE.sub("", text) if cut else text)
    return int(number) if number.is_integer() else None
