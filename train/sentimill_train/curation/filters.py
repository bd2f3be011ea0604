"""The first reading for curation: rows onto the spool, their numbers into arrays.

Held-out texts come first, so that whatever equals them is a later row and goes.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sentimill.errors import TableError, TextError
from sentimill.text.cleaning import clean
from sentimill_train.curation.drop_reasons import Drops
from sentimill_train.curation.language import foreign_language, is_empty
from sentimill_train.curation.near_duplicates import Bands, shingles, text_hash
from sentimill_train.curation.row_store import Spool, SpoolWriter
from sentimill_train.data.jsonl_stream import Labelled, stream_examples
from sentimill_train.data.schema import SENTIMENTS, Columns, normalise, read_examples

__all__ = ["Filters", "Intake", "take_in"]

_REPORT_ROWS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """What a row must be at first sight. languages: codes such as `en`; empty allows all."""

    labels: tuple[str, ...] = SENTIMENTS
    languages: frozenset[str] = frozenset({"en"})
    min_words: int = 2


@dataclass(slots=True)
class Intake:
    """Everything read. Arrays are (rows,), held-out rows first; `first` is the first row to curate.

    label: index in the label set, -1 without one. domain: index in `domains`. confidence: the
    largest share, NaN without shares. apart: the teachers' disagreement, NaN without one.
    """

    spool: Spool
    bands: Bands
    first: int
    hashes: NDArray[np.int64]
    label: NDArray[np.int64]
    domain: NDArray[np.int64]
    domains: list[str]
    confidence: NDArray[np.float32]
    apart: NDArray[np.float32]
    words: NDArray[np.int64]
    drops: Drops


def take_in(
    source: str,
    holdout: tuple[str, ...],
    folder: Path,
    filters: Filters,
    columns: Columns,
    progress: Callable[[int], None] = lambda rows: None,
) -> Intake:
    """Read everything once. Raises TableError where a file cannot be read."""
    with _Reader(folder, filters) as reader:
        for name in holdout:
            for row in _held_out(name):
                reader.hold_out(row)
        first = len(reader.hashes)
        for row in stream_examples(source, columns=columns, labels=filters.labels):
            reader.take(row)
            if len(reader.hashes) % _REPORT_ROWS == 0:
                progress(len(reader.hashes) - first)
        progress(len(reader.hashes) - first)
        return reader.done(first)


def _held_out(name: str) -> list[Labelled]:
    """Return the texts of a held-out file; its labels, whatever they are, do not matter."""
    rows = read_examples(name, labels=None)
    if not rows:
        raise TableError(f"{name} has no rows: give a held-out file", reason="EMPTY_FILE")
    return [Labelled(id=row.id, text=row.text) for row in rows]


class _Reader:
    """Collects what `Intake` holds."""

    def __init__(self, folder: Path, filters: Filters) -> None:
        self.hashes = array("q")
        self._spool = SpoolWriter(folder / "rows.jsonl")
        self._bands = Bands(folder / "bands.bin")
        self._filters = filters
        self._index = {label: k for k, label in enumerate(filters.labels)}
        self._label = array("b")
        self._domain = array("i")
        self._domains: dict[str, int] = {}
        self._confidence = array("f")
        self._apart = array("f")
        self._words = array("i")
        self._faults: list[tuple[int, str, str]] = []

    def __enter__(self) -> _Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self._spool.close()
        self._bands.close()

    def hold_out(self, row: Labelled) -> None:
        """Take a held-out text."""
        self._append(row, _cleaned(row.text) or "")

    def take(self, row: Labelled) -> None:
        """Take a row to curate, and say at once what is wrong with it alone."""
        number = len(self.hashes)
        text = _cleaned(row.text)
        self._append(row, text or "")
        if row.label is None:
            self._faults.append((number, "unlabelled", ""))
        elif text is None or is_empty(text, self._filters.min_words):
            self._faults.append((number, "empty", f"under {self._filters.min_words} words"))
        elif self._filters.languages:
            language = foreign_language(text, self._filters.languages)
            if language is not None:
                self._faults.append((number, "foreign", f"language {language}"))

    def _append(self, row: Labelled, text: str) -> None:
        normalised = normalise(text)
        self.hashes.append(text_hash(normalised))
        found = shingles(normalised)
        self._bands.append(found)
        self._spool.append(row)
        self._label.append(-1 if row.label is None else self._index[row.label])
        self._domain.append(self._domains.setdefault(row.domain or "", len(self._domains)))
        self._confidence.append(max(row.probs) if row.probs else float("nan"))
        self._apart.append(float("nan") if row.disagreement is None else row.disagreement)
        self._words.append(len(text.split()))

    def done(self, first: int) -> Intake:
        """Hand everything over."""
        hashes = np.array(self.hashes, dtype=np.int64)
        drops = Drops(np.zeros(len(hashes), dtype=np.uint8), hashes)
        for row, reason, detail in self._faults:
            drops.add(row, reason, detail)  # type: ignore[arg-type] # written above
        return Intake(
            spool=self._spool.done(),
            bands=self._bands,
            first=first,
            hashes=hashes,
            label=np.array(self._label, dtype=np.int64),
            domain=np.array(self._domain, dtype=np.int64),
            domains=list(self._domains),
            confidence=np.array(self._confidence, dtype=np.float32),
            apart=np.array(self._apart, dtype=np.float32),
            words=np.array(self._words, dtype=np.int64),
            drops=drops,
        )


def _cleaned(text: str) -> str | None:
    try:
        return clean(text)
    except TextError:
        return None
