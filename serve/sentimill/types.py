"""The types that classifier, server and clients share: predictions, facts of a model, limits.

This module imports only errors and the standard library, so a client needs no numpy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal, SupportsIndex, TypeAlias, overload

from sentimill.errors import EngineError, InputError, TextError

MAX_TEXT_BYTES: Final = 1 << 20
"""The largest text accepted, in bytes of UTF-8. A longer text is a whole file in one cell."""

EXPLAINED_SHARE: Final = 16
"""If sentences are answered too, a request may have this many times fewer texts."""

NEIGHBOURS: Final = 5
"""How many reviews of an index an answer shows by default."""

_MAX_NEIGHBOURS: Final = 32

AbstainReason = Literal["LOW_CONFIDENCE", "UNSUPPORTED_LANGUAGE"]
"""Why a model abstained: its confidence is below the threshold, or it cannot read the language."""


class Probs(tuple[float, ...]):
    """Calibrated probabilities, summing to 1: a tuple in label order that also knows the labels.

    `probs[0]`, `max(probs)` and `zip(labels, probs)` work as with any tuple. `probs["positive"]`
    gives the probability of one label, and `dict(probs)` gives all of them by label. `labels` is
    empty if they are not known: a server of an older version does not send them.
    """

    labels: tuple[str, ...]

    def __new__(cls, values: Iterable[float], labels: tuple[str, ...] = ()) -> Probs:
        """Keep *values* as a tuple, and the *labels* with them."""
        made = super().__new__(cls, values)
        made.labels = labels
        return made

    @overload
    def __getitem__(self, key: SupportsIndex) -> float: ...
    @overload
    def __getitem__(self, key: slice) -> tuple[float, ...]: ...
    @overload
    def __getitem__(self, key: str) -> float: ...
    def __getitem__(self, key: SupportsIndex | slice | str) -> float | tuple[float, ...]:
        if not isinstance(key, str):
            return super().__getitem__(key)
        if key not in self.labels:
            raise KeyError(f"{key!r} is not one of the labels: {', '.join(self.labels) or 'none'}")
        return super().__getitem__(self.labels.index(key))

    def keys(self) -> tuple[str, ...]:
        """Return the labels, as a mapping does: `dict(probs)` calls this method."""
        return self.labels

    def items(self) -> Iterator[tuple[str, float]]:
        """Return pairs of label and probability, in label order."""
        return zip(self.labels, self, strict=True)

    def __reduce__(self) -> tuple[type[Probs], tuple[tuple[float, ...], tuple[str, ...]]]:
        return Probs, (tuple(self), self.labels)

    def __repr__(self) -> str:
        return repr(dict(self) if self.labels else tuple(self))


@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence of a text, and its effect on the answer.

    start, end: its place in the original text, in characters. label, probs: the answer to the
    sentence alone. change: the score of the text minus its score without the sentence; below 0 if
    the sentence makes the text more negative. If the labels are not sentiments, change is that of
    the probability of the text's label. None if nothing is left without the sentence.
    """

    start: int
    end: int
    label: str
    probs: Probs
    change: float | None


@dataclass(frozen=True, slots=True)
class Neighbour:
    """One of the labelled reviews of an index that are most like a text.

    similarity: the cosine of the two pooled states, -1 to 1. text: empty unless the index has it.
    """

    id: str
    label: str
    similarity: float
    text: str = ""


@dataclass(frozen=True, slots=True)
class Prediction:
    """One answer.

    label: the most probable label. probs: calibrated, in the order of the bundle's labels, summing
    to 1; `probs["positive"]` works too. score: P(positive) - P(negative), -1 to 1; None where the
    labels are not sentiments. confidence: the largest of probs. abstained: treat the label as a
    guess; `abstain_reason` says why. truncated: part of the text was left out. tokens: how many
    tokens the model read. answered_by: `large` if a client's fallback replaced label and probs of
    the student. model_digest: the sha256 of the manifest of the bundle that answered, empty if it
    is not known. sentences: empty unless the caller asked for them. neighbours: the nearest reviews
    of an index, if there is one; a server sends only those asked for, without their texts.
    """

    label: str
    probs: Probs
    score: float | None
    confidence: float
    abstained: bool
    truncated: bool
    tokens: int
    answered_by: Literal["student", "large"] = "student"
    abstain_reason: AbstainReason | None = None
    model_digest: str = ""
    sentences: tuple[Sentence, ...] = ()
    neighbours: tuple[Neighbour, ...] = ()


Result: TypeAlias = Prediction | TextError | EngineError
"""The result of one text from a server. A classifier in this process raises EngineError instead."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a server accepts. The fields are those of the message `Limits`."""

    max_items: int
    max_text_bytes: int
    max_request_bytes: int
    max_waiting_texts: int
    max_waiting_tokens: int


@dataclass(frozen=True, slots=True)
class Model:
    """The model that a server has loaded. The fields are those of `GetModelResponse`."""

    name: str
    version: str
    digest: str
    labels: tuple[str, ...]
    max_tokens: int
    precision: str
    provider: str
    threshold: float | None
    limits: Limits
    languages: tuple[str, ...] = ()


def check_size(size_bytes: int) -> None:
    """Raise TextError when a text of *size_bytes* of UTF-8 is above `MAX_TEXT_BYTES`."""
    if size_bytes > MAX_TEXT_BYTES:
        raise TextError(
            f"the text has {size_bytes} bytes of UTF-8, the limit is {MAX_TEXT_BYTES}: split it",
            reason="TEXT_TOO_LARGE",
        )


def check_neighbours(count: int) -> None:
    """Raise InputError when an answer cannot show *count* reviews."""
    if not 0 <= count <= _MAX_NEIGHBOURS:
        why = f"an answer shows 0 to {_MAX_NEIGHBOURS} neighbours, not {count}: ask for fewer"
        raise InputError(why, reason="BAD_NEIGHBOURS", field="neighbours")


def list_of_texts(texts: Iterable[object]) -> list[object]:
    """Return the items of a list, a pandas or polars Series, a numpy array or an Arrow array.

    The libraries are not imported: each of their columns has a method that gives a Python list.

    Raises:
        InputError: NOT_A_LIST, *texts* is one string, a table or a mapping, or has no items.
    """
    if isinstance(texts, str | bytes):
        why = "classify takes a list of texts and was given one string: write classify([text])"
        raise InputError(why, reason="NOT_A_LIST")
    if isinstance(texts, list):
        return texts
    name = type(texts).__name__
    if isinstance(texts, Mapping) or hasattr(texts, "columns") or getattr(texts, "ndim", 1) != 1:
        why = (
            f"classify takes one column of texts and was given a {name}: write"
            " classify(table['text']) for one column, or sentimill.score(table, text='text')"
        )
        raise InputError(why, reason="NOT_A_LIST")
    for method in ("to_pylist", "to_list", "tolist"):
        if (convert := getattr(texts, method, None)) is not None:
            items: list[object] = convert()
            return items
    try:
        return list(texts)
    except TypeError:
        why = f"classify takes a list of texts, not one object of type {name}"
        raise InputError(why, reason="NOT_A_LIST") from None


def text_of(item: object) -> str | TextError:
    """Return *item* as a text, or its TextError: MISSING_TEXT (None, NaN, pd.NA) or NOT_TEXT."""
    if isinstance(item, str):
        return str(item)
    name = type(item).__name__
    if item is None or name in ("NAType", "NaTType") or (name.startswith("float") and item != item):
        return TextError(f"the text is missing ({item})", reason="MISSING_TEXT")
    why = f"the item is of type {name}, not a string: convert it if you want it read"
    return TextError(why, reason="NOT_TEXT")
