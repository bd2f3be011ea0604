"""Holds tokenised examples in flat arrays, and forms batches of them.

Texts are tokenised once, by the same `TextEncoder` that serves. A million reviews then take a few
hundred megabytes of int32, not a million Python lists.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sentimill.errors import TextError
from sentimill.text.tokenizer import TextEncoder, pad
from sentimill_train.data.schema import Example

NO_LABEL: Final = -1
"""The `gold` of a row without a label. The student learns only from its soft labels."""

_CHUNK_ROWS: Final = 4096
_WINDOW_BATCHES: Final = 50
_BLUR: Final = 0.1
_PER_ROW: Final = ("gold", "soft", "weight", "allowed")
"""The arrays of `Rows` that have one entry for each row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Examples as numbers.

    ids: (all tokens,) int32; row i is ids[starts[i]:starts[i + 1]]. gold: (rows,) int64, an index
    into the labels, or NO_LABEL. soft: (rows, labels) float32, the soft labels, all zero in a row
    without any. weight: (rows,) float32, how much a row counts in the loss. allowed: (rows, labels)
    bool, the labels from which the gold label was chosen.
    """

    ids: NDArray[np.int32]
    starts: NDArray[np.int64]
    gold: NDArray[np.int64]
    soft: NDArray[np.float32]
    weight: NDArray[np.float32]
    allowed: NDArray[np.bool_]

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.gold)

    def sha256(self) -> str:
        """Return a digest of all arrays, in hexadecimal."""
        digest = hashlib.sha256()
        for field in fields(self):
            digest.update(np.ascontiguousarray(getattr(self, field.name)).data)
        return digest.hexdigest()

    def take(self, chosen: NDArray[np.int64]) -> Rows:
        """Return the rows *chosen* by their index, in that order."""
        lengths = self.lengths()[chosen]
        starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        places = np.arange(starts[-1]) + np.repeat(self.starts[chosen] - starts[:-1], lengths)
        parts = {name: getattr(self, name)[chosen] for name in _PER_ROW}
        return Rows(ids=self.ids[places], starts=starts, **parts)

    def lengths(self) -> NDArray[np.int64]:
        """Return the tokens in each row (rows,)."""
        return np.diff(self.starts)


@dataclass(frozen=True, slots=True)
class Refused:
    """An example that no model can read, and why."""

    example: Example
    error: TextError


def tokenise(
    examples: Sequence[Example], encoder: TextEncoder, labels: Sequence[str]
) -> tuple[Rows, list[Refused]]:
    """Return *examples* as rows, in order, and those that are refused."""
    index = {label: i for i, label in enumerate(labels)}
    parts: list[NDArray[np.int32]] = []
    lengths: list[int] = []
    kept: list[Example] = []
    refused: list[Refused] = []
    for start in range(0, len(examples), _CHUNK_ROWS):
        chunk = examples[start : start + _CHUNK_ROWS]
        read: list[NDArray[np.int64]] = []
        for example, encoded in zip(chunk, encoder.encode([e.text for e in chunk]), strict=True):
            if isinstance(encoded, TextError):
                refused.append(Refused(example, encoded))
                continue
            kept.append(example)
            read.append(encoded.ids)
        if read:
            lengths.extend(len(ids) for ids in read)
            parts.append(np.concatenate(read).astype(np.int32))
    soft = np.zeros((len(kept), len(labels)), dtype=np.float32)
    allowed = np.ones((len(kept), len(labels)), dtype=np.bool_)
    for i, example in enumerate(kept):
        if example.probs is not None:
            soft[i] = example.probs
        if example.labels_allowed is not None:
            allowed[i] = [label in example.labels_allowed for label in labels]
    gold = [NO_LABEL if e.label is None else index[e.label] for e in kept]
    rows = Rows(
        ids=np.concatenate(parts) if parts else np.zeros(0, dtype=np.int32),
        starts=np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64),
        gold=np.array(gold, dtype=np.int64),
        soft=soft,
        weight=np.array([example.weight for example in kept], dtype=np.float32),
        allowed=allowed,
    )
    return rows, refused


def join_rows(first: Rows, second: Rows) -> Rows:
    """Return the rows of *first*, then those of *second*."""
    starts = np.concatenate([first.starts, second.starts[1:] + first.starts[-1]])
    joined = ("ids", *_PER_ROW)
    parts = {n: np.concatenate([getattr(first, n), getattr(second, n)]) for n in joined}
    return Rows(starts=starts, **parts)


def pad_rows(
    rows: Rows, chosen: Sequence[int], pad_id: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return ids and mask of the *chosen* rows, both (rows, longest) int64."""
    bounds = ((rows.starts[i], rows.starts[i + 1]) for i in chosen)
    return pad([rows.ids[start:end].astype(np.int64) for start, end in bounds], pad_id)


def plan_epoch(
    lengths: NDArray[np.int64], *, batch_tokens: int, batch_rows: int, rng: np.random.Generator
) -> Iterator[list[int]]:
    """Yield every row once, in batches of like length and random order.

    A batch has at most *batch_rows* rows and *batch_tokens* padded tokens (rows times longest); a
    longer single row is a batch of its own. The shuffled rows are sorted by length within windows.
    The length is blurred by a tenth, because exact sorting would put the same rows together in
    every epoch of a small set.
    """
    order = rng.permutation(len(lengths))
    blurred = lengths * rng.uniform(1 - _BLUR, 1 + _BLUR, size=len(lengths))
    window = _WINDOW_BATCHES * batch_rows
    batches: list[list[int]] = []
    for start in range(0, len(order), window):
        part = order[start : start + window]
        batch: list[int] = []
        longest = 0
        for i in part[np.argsort(-blurred[part])].tolist():
            longer = max(longest, int(lengths[i]))
            if batch and (len(batch) == batch_rows or longer * (len(batch) + 1) > batch_tokens):
                batches.append(batch)
                batch, longer = [], int(lengths[i])
            batch.append(i)
            longest = longer
        batches.append(batch)
    for k in rng.permutation(len(batches)).tolist():
        yield batches[k]
