"""`Example`: one review on its way through training, the columns that hold it, and its split."""

from __future__ import annotations

import hashlib
import math
import os
import tempfile
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, cast

import msgspec

from sentimill.errors import TableError
from sentimill_train.data.readers import Table, open_table

__all__ = [
    "SENTIMENTS",
    "SHARES_TOLERANCE",
    "Columns",
    "Example",
    "Split",
    "label_set",
    "normalise",
    "read_examples",
    "split_of",
    "text_digest",
    "write_examples",
]

SENTIMENTS: Final = ("negative", "neutral", "positive")
"""The default label set, in order."""

Split = Literal["train", "validation", "test"]

_BY_STARS: Final = ("negative", "negative", "neutral", "positive", "positive")
_SHORT: Final = {"neg": "negative", "neu": "neutral", "pos": "positive"}
_SPLITS: Final[dict[str, Split]] = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}
SHARES_TOLERANCE: Final = 0.02  # three shares rounded to two decimals can miss 1 by 0.015


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One review.

    id: unique within its source. label: one of the closed label set, None when unlabelled. probs:
    the teacher's share a label, in label order, summing to 1; None where there is no teacher.
    stars: 1 to 5. domain: where it was written, free text. split: None until `split_of` or the
    source says. source: the file or hub name that it was read from. given: the label that a person
    gave, where `label` is a teacher's. labels_allowed: the labels that whoever labelled it could
    choose from; None means all. weight: how much the row counts in the training loss.
    """

    id: str
    text: str
    label: str | None = None
    probs: tuple[float, ...] | None = None
    stars: int | None = None
    domain: str | None = None
    split: Split | None = None
    source: str
    given: str | None = None
    labels_allowed: tuple[str, ...] | None = None
    weight: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Which columns hold what.

    The others keep their names: `probs`, `stars`, `domain`, `split`, `id`, `given` and
    `labels_allowed`. label: None means the column `label` where there is one, else the stars.
    weight: None means that every row has the weight 1; a column that happens to be called `weight`
    may hold kilograms.
    """

    text: str = "text"
    label: str | None = None
    weight: str | None = None


def read_examples(
    source: str, *, columns: Columns = Columns(), labels: Sequence[str] | None = SENTIMENTS
) -> list[Example]:
    """Return the rows of *source* in order: a file, packaged reviews, `hub:owner/name[@revision]`.

    labels: the closed set; None takes every label as it is found. A label may differ in case, be
    one of neg, neu, pos, or be a number of stars: 1-2 negative, 3 neutral, 4-5 positive. A row
    without a label takes the largest of its probs, else its stars, else stays unlabelled. An empty
    text is kept: what a model can read is for `sentimill.text.tokenizer` to say.

    Raises:
        TableError: the file or a place in it is not usable; the message names file, row (the first
            row of data is row 1) and remedy. Reasons: those of `open_table`, MISSING_COLUMN,
            UNKNOWN_LABEL, AMBIGUOUS_LABEL, BAD_TEXT, BAD_PROBS, BAD_STARS, BAD_SPLIT, BAD_WEIGHT.
    """
    rows = _Rows(source, columns, tuple(labels) if labels is not None else None)
    with open_table(source) as table:
        found = list(rows.read(table))
    rows.check_whole()
    return found


def label_set(examples: Iterable[Example]) -> tuple[str, ...]:
    """Return the labels that occur, sorted."""
    return tuple(sorted({example.label for example in examples if example.label is not None}))


def normalise(text: str) -> str:
    """Return the form in which two texts count as the same: NFKC, lower case, blanks collapsed."""
    return " ".join(unicodedata.normalize("NFKC", text).lower().split())


def text_digest(text: str) -> bytes:
    """Return the sha256 of the normalised text: texts that count as the same share it."""
    return hashlib.sha256(normalise(text).encode("utf-8", "surrogatepass")).digest()


def split_of(text: str) -> Split:
    """Return the split of a text whose file has no split column: 70 train, 10 validation, 20 test.

    A hash of the normalised text decides, so a text has the same split in every file and run.
    """
    percent = int.from_bytes(text_digest(text)[:8]) % 100
    if percent < 70:
        return "train"
    return "validation" if percent < 80 else "test"


def write_examples(path: Path, examples: Iterable[Example]) -> int:
    """Write JSONL that `read_examples` reads back, and return how many rows; whole or not at all.

    `source` is not written: a reader sets it to the file that it reads.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    rows = 0
    try:
        with os.fdopen(handle, "wb") as file:
            for example in examples:
                record = _record(example)
                file.write(msgspec.json.encode(record) + b"\n")
                rows += 1
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
    return rows


def _record(example: Example) -> dict[str, object]:
    fields = ("id", "text", "label", "probs", "stars", "domain", "split", "given", "labels_allowed")
    values = {field: getattr(example, field) for field in fields}
    return {field: value for field, value in values.items() if value is not None}


class _Rows:
    """Turns the raw rows of one source into examples, and remembers where it is for errors."""

    def __init__(self, source: str, columns: Columns, labels: tuple[str, ...] | None) -> None:
        self._source = source
        self._columns = columns
        self._labels = labels
        self._known: dict[str, str] = {}
        if labels is not None:
            self._known = {label.casefold(): label for label in labels}
            self._known |= {s: name for s, name in _SHORT.items() if name in labels}
            self._known |= {label: label for label in labels}
        self._sentiments = labels is not None and set(_BY_STARS) <= set(labels)
        self._row = 0
        self._highest_number = 0

    def read(self, table: Table) -> Iterator[Example]:
        text = self._columns.text
        label = self._columns.label or ("label" if "label" in table.columns else None)
        named = {"text": text, "label": self._columns.label, "weight": self._columns.weight}
        for role, column in named.items():
            if column is not None and column not in table.columns:
                has = ", ".join(table.columns)
                option = f"--{role}-column"
                raise TableError(
                    f"{self._source} has no column {column!r}, it has {has}: name one with"
                    f" {option}",
                    reason="MISSING_COLUMN",
                )
        extras = {"id", "probs", "stars", "domain", "split", "given", "labels_allowed"}
        extras = (extras | {str(self._columns.weight)}) & set(table.columns)
        wanted = [text, *([label] if label else []), *sorted(extras - {text, label})]
        stem = Path(self._source).stem or self._source
        for self._row, row in enumerate(table.rows(wanted), start=1):
            yield self._example(row, text, label, stem)
        if self._row == 0:
            raise TableError(
                f"{self._source} has no rows: give a file with at least one review",
                reason="EMPTY_FILE",
            )

    def check_whole(self) -> None:
        """Raise when numbers in the label column were taken for stars and cannot have been."""
        if 0 < self._highest_number < 4:
            raise TableError(
                f"{self._source}: the labels are numbers up to {self._highest_number}, which may"
                " be classes or stars: write their names, or name the column `stars`",
                reason="AMBIGUOUS_LABEL",
            )

    def _example(self, row: dict[str, object], text: str, label: str | None, stem: str) -> Example:
        value = row[text]
        if not isinstance(value, str | None):
            kind = type(value).__name__
            raise self._bad("BAD_TEXT", f"column {text!r} holds {kind}, not text", "use another")
        probs = self._probs(row.get("probs"))
        stars = self._stars(row.get("stars"))
        name, number = self._label(row[label]) if label else (None, None)
        stars = stars if stars is not None else number
        if name is None and probs is not None and self._labels is not None:
            name = self._labels[max(range(len(probs)), key=probs.__getitem__)]
        if name is None and stars is not None and self._sentiments:
            name = _BY_STARS[stars - 1]
        given = row.get("id")
        domain = row.get("domain")
        return Example(
            id=str(given) if given not in (None, "") else f"{stem}-{self._row}",
            text=value or "",
            label=name,
            probs=probs,
            stars=stars,
            domain=str(domain) if domain not in (None, "") else None,
            split=self._split(row.get("split")),
            source=self._source,
            given=self._known.get(str(row.get("given") or "").strip().casefold()),
            labels_allowed=self._allowed(row.get("labels_allowed"), name),
            weight=self._weight(row.get(self._columns.weight or "")),
        )

    def _allowed(self, value: object, label: str | None) -> tuple[str, ...] | None:
        """Return the labels of a list, or of a text with commas between them."""
        if value is None or value == "" or self._labels is None:
            return None
        names = value.split(",") if isinstance(value, str) else cast(list[object], value)
        found = {self._known.get(str(name).strip().casefold()) for name in names}
        if None in found or (label is not None and label not in found):
            raise self._bad(
                "UNKNOWN_LABEL",
                f"labels_allowed {str(value)[:40]!r} must be some of {', '.join(self._labels)}, the"
                " row's own label among them",
                "correct it, or leave it empty",
            )
        return tuple(each for each in self._labels if each in found)

    def _weight(self, value: object) -> float:
        if value is None or value == "":
            return 1.0
        try:
            number = float(str(value))
        except ValueError:
            number = -1.0
        if not 0 <= number < math.inf:
            why = f"the weight {str(value)[:40]!r} is no number from 0 up"
            raise self._bad("BAD_WEIGHT", why, "correct it, or leave it empty")
        return number

    def _label(self, value: object) -> tuple[str | None, int | None]:
        """Return the label, and the stars when the value was a number of them."""
        if value is None:
            return None, None
        text = str(value).strip()
        if not text:
            return None, None
        if self._labels is None:
            return text, None
        known = self._known.get(text) or self._known.get(text.casefold())
        if known is not None:
            return known, None
        number = _whole(text)
        if self._sentiments and number is not None and 1 <= number <= 5:
            self._highest_number = max(self._highest_number, number)
            return _BY_STARS[number - 1], number
        raise self._bad(
            "UNKNOWN_LABEL",
            f"the label {text[:40]!r} is none of {', '.join(self._labels)}",
            "correct it, or give the set with --labels",
        )

    def _stars(self, value: object) -> int | None:
        if value is None or value == "" or value != value:
            return None
        number = _whole(str(value))
        if number is None or not 1 <= number <= 5:
            shown = str(value)[:40]
            why = f"stars {shown!r} is no whole number from 1 to 5"
            raise self._bad("BAD_STARS", why, "correct it, or remove it")
        return number

    def _probs(self, value: object) -> tuple[float, ...] | None:
        if value is None or value == "":
            return None
        if self._labels is None:
            raise self._bad("BAD_PROBS", "probs have no order without a label set", "give --labels")
        if isinstance(value, str):  # a CSV cell
            try:
                value = msgspec.json.decode(value)
            except msgspec.DecodeError:
                raise self._bad(
                    "BAD_PROBS", "probs is no JSON list", "write [0.1, 0.2, ...]"
                ) from None
        good = isinstance(value, list) and all(isinstance(p, int | float) for p in value)
        shares = [float(p) for p in cast(list[float], value)] if good else []
        total = math.fsum(shares)
        if len(shares) != len(self._labels) or not (
            abs(total - 1) <= SHARES_TOLERANCE and min(shares) >= 0
        ):
            why = f"probs must be {len(self._labels)} shares, none below 0, that sum to 1"
            raise self._bad("BAD_PROBS", why, "correct or remove them")
        return tuple(share / total for share in shares)

    def _split(self, value: object) -> Split | None:
        text = str(value or "").strip().lower()
        if text in ("", "none"):
            return None
        if text not in _SPLITS:
            why = f"the split {text[:40]!r} is none of train, validation, test"
            raise self._bad("BAD_SPLIT", why, "correct it, or remove the column")
        return _SPLITS[text]

    def _bad(self, reason: str, why: str, remedy: str) -> TableError:
        return TableError(f"{self._source}, row {self._row}: {why}; {remedy}", reason=reason)


def _whole(text: str) -> int | None:
    """Return the whole number that *text* spells, as 4 or 4.0."""
    try:
        number = float(text)
    except ValueError:
        return None
    return int(number) if number.is_integer() else None
