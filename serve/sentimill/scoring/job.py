"""The scoring job: read a window of rows, classify it, append the answers; rename at the end."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np

from sentimill.classifier import BATCH_TOKENS, Classifier, Prediction
from sentimill.errors import TableError, TextError, UsageError
from sentimill.scoring.tables import CsvReader, Row, csv_fields, delimiter_of, windows

__all__ = ["COLUMNS", "Score", "Summary"]

COLUMNS: Final = ("label", "score", "confidence", "abstained", "error")
"""The added columns, each after the prefix."""

WINDOW_BYTES: Final = 4 << 20
"""Input held in memory at once. Sorting by length inside 4 MiB leaves about 1 % padding."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What a finished job did. `failed` rows carry an error in place of an answer."""

    rows: int
    failed: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Score:
    """Score one column of a CSV or TSV file; rows keep their order and every byte they came with.

    prefix: begins the name of each added column. delimiter: None takes it from the file's suffix.
    """

    source: Path
    target: Path
    text_column: str = "text"
    prefix: str = "sentiment_"
    delimiter: str | None = None
    batch_tokens: int = BATCH_TOKENS
    overwrite: bool = False

    def check(self) -> None:
        """Raise what can be known before a model is loaded: UsageError or TableError."""
        if not self.source.is_file():
            why = f"{self.source} is not there: name a CSV or TSV file"
            raise TableError(why, reason="FILE_NOT_FOUND")
        if self.target.exists() and self.target.samefile(self.source):
            why = f"{self.target} is the input itself: choose another output"
            raise UsageError(why, reason="OUTPUT_IS_INPUT")
        if self.target.is_dir():
            why = f"{self.target} is a folder: name a file in it"
            raise UsageError(why, reason="OUTPUT_IS_FOLDER")
        if self.target.exists() and not self.overwrite:
            why = f"{self.target} exists: add --overwrite to replace it, or choose another name"
            raise UsageError(why, reason="OUTPUT_EXISTS")
        if not self.target.absolute().parent.is_dir():
            why = f"the folder {self.target.absolute().parent} is not there: create it first"
            raise UsageError(why, reason="NO_SUCH_FOLDER")
        with self.source.open("rb") as file:
            self._reader(file)

    def run(self, classifier: Classifier, progress: Callable[[int, int], None]) -> Summary:
        """Write the scored table; *progress* is told rows done and input bytes done.

        The target appears complete, at the end, or not at all. Raises TableError when the file
        cannot be read as a table; a row that cannot be classified is no error but an answer.
        """
        self.check()
        began = time.monotonic()
        rows = failed = done = 0
        with self.source.open("rb") as file, _replacing(self.target) as out:
            reader = self._reader(file)
            delimiter = self._delimiter()
            end = reader.end or b"\n"
            names = csv_fields([self.prefix + name for name in COLUMNS], delimiter)
            out.write(reader.header + names + end)
            for window in windows(reader, WINDOW_BYTES):
                answers = self._classify(classifier, window)
                for row, answer in zip(window, answers, strict=True):
                    padding = delimiter.encode() * row.missing
                    added = csv_fields(_values(answer), delimiter)
                    out.write(row.raw + padding + added + (row.end or end))
                    failed += isinstance(answer, TextError)
                    done += len(row.raw) + len(row.end)
                rows += len(window)
                progress(rows, done)
        return Summary(rows, failed, time.monotonic() - began)

    def _classify(self, classifier: Classifier, window: list[Row]) -> list[Prediction | TextError]:
        texts = [row.text for row in window if isinstance(row.text, str)]
        answers = iter(classifier.classify(texts, batch_tokens=self.batch_tokens))
        return [next(answers) if isinstance(row.text, str) else row.text for row in window]

    def _reader(self, file: BinaryIO) -> CsvReader:
        reader = CsvReader(
            file,
            name=str(self.source),
            delimiter=self._delimiter(),
            text_column=self.text_column,
        )
        taken = [self.prefix + name for name in COLUMNS if self.prefix + name in reader.columns]
        if taken:
            why = f"{self.source} already has a column {taken[0]!r}: choose another --prefix"
            raise TableError(why, reason="COLUMN_COLLISION")
        return reader

    def _delimiter(self) -> str:
        return delimiter_of(self.source) if self.delimiter is None else self.delimiter


def _values(answer: Prediction | TextError) -> list[str]:
    """Return the added fields; float32 in the shortest form that reads back to the same bits."""
    if isinstance(answer, TextError):
        return ["", "", "", "", answer.reason]
    score = "" if answer.score is None else str(np.float32(answer.score))
    confidence = str(np.float32(answer.confidence))
    return [answer.label, score, confidence, str(answer.abstained).lower(), ""]


@contextmanager
def _replacing(target: Path) -> Iterator[BinaryIO]:
    """Give a file beside *target* that takes its name when the block ends well, and goes if not."""
    part = target.absolute().with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with part.open("xb") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        part.replace(target)
        folder = os.open(part.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
