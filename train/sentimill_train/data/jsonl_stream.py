"""Reviews as a stream: JSON lines are read line by line, so a file may be larger than memory.

Other formats go through `records.read_examples`, which holds them whole.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

import msgspec

from sentimill.errors import TableError
from sentimill_train.data.schema import (
    SENTIMENTS,
    SHARES_TOLERANCE,
    Columns,
    Example,
    Split,
    read_examples,
)

__all__ = ["Labelled", "stream_examples", "write_lines"]

_PLAIN: Final = Columns()
_BY_STARS: Final = ("negative", "negative", "neutral", "positive", "positive")


class Labelled(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A line of `label`'s output: an Example and what is known of its label.

    teacher: the names of those asked. soft: where the shares come from. disagreement: of several
    teachers, 0 to 1. given: the label that the row came with, where the teacher's replaced it.
    """

    id: str = ""
    text: str = ""
    label: str | None = None
    probs: tuple[float, ...] | None = None
    stars: int | None = None
    domain: str | None = None
    split: Split | None = None
    given: str | None = None
    teacher: str | None = None
    soft: str | None = None
    disagreement: float | None = None

    def example(self, source: str) -> Example:
        """Return the review alone."""
        return Example(
            id=self.id,
            text=self.text,
            label=self.label,
            probs=self.probs,
            stars=self.stars,
            domain=self.domain,
            split=self.split,
            source=source,
        )


def stream_examples(
    source: str, *, columns: Columns = _PLAIN, labels: Sequence[str] = SENTIMENTS
) -> Iterator[Labelled]:
    """Yield the rows of *source* in order.

    Raises:
        TableError: a row cannot be read; the message names file, row and remedy.
    """
    path = Path(source)
    if columns == _PLAIN and path.suffix.lower() in (".jsonl", ".ndjson") and path.is_file():
        yield from _json_lines(path, tuple(labels))
        return
    for example in read_examples(source, columns=columns, labels=labels):
        yield Labelled(
            id=example.id,
            text=example.text,
            label=example.label,
            probs=example.probs,
            stars=example.stars,
            domain=example.domain,
            split=example.split,
        )


def _json_lines(path: Path, labels: tuple[str, ...]) -> Iterator[Labelled]:
    decoder = msgspec.json.Decoder(Labelled)
    row = 0
    with path.open("rb") as file:
        for line in file:
            if not line.strip():
                continue
            row += 1
            try:
                found = decoder.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise TableError(
                    f"{path}, row {row}: {error}; correct it", reason="BAD_ROW"
                ) from error
            if found.probs is not None and len(found.probs) != len(labels):
                raise TableError(
                    f"{path}, row {row}: {len(found.probs)} probs for {len(labels)} labels; give"
                    " the label set with --labels",
                    reason="BAD_PROBS",
                )
            if found.probs is not None and not (
                min(found.probs) >= 0 and abs(sum(found.probs) - 1) <= SHARES_TOLERANCE
            ):
                raise TableError(
                    f"{path}, row {row}: probs must be shares, none below 0, that sum to 1; correct"
                    " or remove them",
                    reason="BAD_PROBS",
                )
            if found.label is not None and found.label not in labels:
                raise TableError(
                    f"{path}, row {row}: the label {found.label[:40]!r} is none of"
                    f" {', '.join(labels)}; correct it, or give the set with --labels",
                    reason="UNKNOWN_LABEL",
                )
            yield _completed(found, path, row, labels)
    if row == 0:
        raise TableError(f"{path} has no rows: give at least one review", reason="EMPTY_FILE")


def _completed(found: Labelled, path: Path, row: int, labels: tuple[str, ...]) -> Labelled:
    """Fill in the id, and the label that shares or stars imply, as `records` does."""
    label = found.label
    if label is None and found.probs is not None:
        label = labels[found.probs.index(max(found.probs))]
    if label is None and found.stars is not None and labels == SENTIMENTS:
        label = _BY_STARS[min(5, max(1, found.stars)) - 1]
    identity = found.id or f"{path.stem}-{row}"
    if label == found.label and identity == found.id:
        return found
    return msgspec.structs.replace(found, label=label, id=identity)


@contextmanager
def write_lines(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that appears under its name when the block ends well, and else not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
