"""The answers of a window, and the columns that they add to its rows."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sentimill.classifier import decide
from sentimill.errors import SentimillError

COLUMNS: Final = ("label", "score", "confidence", "abstained", "abstain_reason", "error")
"""The added columns, each after the prefix; `prob_<label>` and evidence follow on request."""

_REASONS: Final = pa.array(["LOW_CONFIDENCE", "UNSUPPORTED_LANGUAGE"])


@dataclass(frozen=True, slots=True)
class Answers:
    """What a scorer returns for the texts of one window, by their place in it.

    probs: (rows, labels) float32 in the order of the labels, NaN in rows without an answer. errors:
    of those rows, unless a row needed no answer. foreign: the rows in a language that the model was
    not made for. Tokens are those that the engine computed. A server does not report padded tokens,
    so both counts are then the useful ones. evidence: the columns `sentences` and `neighbours`, if
    they were asked for: JSON per row, None without an answer.
    """

    probs: NDArray[np.float32]
    errors: Mapping[int, SentimillError]
    foreign: Collection[int] = ()
    useful_tokens: int = 0
    padded_tokens: int = 0
    evidence: Mapping[str, Sequence[str | None]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AnswerSchema:
    """Which columns are added, and how a label follows from probs.

    threshold: confidence below which the model abstains; None means that it never does. evidence:
    see `Answers`.
    """

    labels: tuple[str, ...]
    threshold: float | None
    prefix: str
    with_probs: bool
    evidence: tuple[str, ...] = ()
    names: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        extra = [f"prob_{label}" for label in self.labels] if self.with_probs else []
        names = tuple(self.prefix + name for name in (*COLUMNS, *extra, *self.evidence))
        object.__setattr__(self, "names", names)

    def add(self, answers: Answers) -> pa.RecordBatch:
        """Return the columns for one window: a value for each row, null where there is none."""
        probs = answers.probs
        missing = np.isnan(probs[:, 0]) if len(probs) else np.zeros(0, dtype=bool)
        filled = np.where(missing[:, None], np.float32(0), probs)
        foreign = np.zeros(len(probs), dtype=bool)
        foreign[list(answers.foreign)] = True
        made = decide(filled, self.labels, self.threshold, foreign)
        reasons = np.where(foreign, 1, 0)
        score = pa.nulls(len(probs), pa.float32())
        if made.score is not None:
            score = pa.array(made.score, mask=missing)
        errors: list[str | None] = [None] * len(probs)
        for place, error in answers.errors.items():
            errors[place] = error.reason
        columns: list[pa.Array] = [
            pa.array(self.labels, pa.string()).take(pa.array(made.best, mask=missing)),
            score,
            pa.array(made.confidence, mask=missing),
            pa.array(made.abstained, mask=missing),
            _REASONS.take(pa.array(reasons, mask=missing | ~made.abstained)),
            pa.array(errors, pa.string()),
        ]
        if self.with_probs:
            columns += [
                pa.array(np.ascontiguousarray(filled[:, k]), mask=missing)
                for k in range(len(self.labels))
            ]
        nothing = [None] * len(probs)
        columns += [
            pa.array(answers.evidence.get(name, nothing), pa.string()) for name in self.evidence
        ]
        return pa.record_batch(columns, names=[*self.names])

    def schema(self) -> pa.Schema:
        """Return the names and types of the added columns."""
        types = [pa.string(), pa.float32(), pa.float32(), pa.bool_(), pa.string(), pa.string()]
        types += [pa.float32()] * (len(self.names) - len(types) - len(self.evidence))
        types += [pa.string()] * len(self.evidence)
        return pa.schema(list(zip(self.names, types, strict=True)))
