"""`score` and `to_frame`: answers as columns of pandas, polars and Arrow tables.

narwhals gives all three libraries one interface, and is the only package that the extra `frames`
adds. The columns are those of the command `sentimill score`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeVar, cast

import pyarrow as pa

from sentimill.bundle.reader import open_bundle
from sentimill.bundle.reference import find_bundle
from sentimill.classifier import Classifier
from sentimill.errors import InputError, UsageError
from sentimill.scoring.answer_columns import AnswerSchema
from sentimill.text.cleaning import join_texts
from sentimill.types import Prediction, Result, text_of

if TYPE_CHECKING:
    from types import ModuleType

    from sentimill.client.client import Client


Frame = TypeVar("Frame")
Backend = Literal["pandas", "polars", "pyarrow"]

_REMEDIES: Final = {
    "LazyFrame": "call .collect() on it first",
    "RecordBatch": "write pyarrow.table(batch)",
    "Series": "pass the whole table, or pass the column to classify",
}
"""What to do instead, by the type of what `score` was given."""


def score(
    frame: Frame,
    text: str | int | Sequence[str | int] = "text",
    *,
    model: Classifier | Client | Path | str | None = None,
    prefix: str = "sentiment_",
    probs: bool = False,
    progress: bool = False,
) -> Frame:
    """Return *frame*, a pandas or polars DataFrame or an Arrow table, with the answers as columns.

    sentimill.score(reviews, text=["title", "body"])["sentiment_label"]

    Rows, index and the other columns stay as they are.

    Args:
        frame: the table; it is not changed.
        text: the name of the column with the texts. Several columns are joined in this order.
        model: a loaded Classifier, a Client, or what `Classifier.load` takes; None is the reference
            student.
        prefix: what the names of the added columns begin with.
        probs: add a column for the probability of each label.
        progress: show a progress bar.

    Raises:
        InputError: NOT_A_TABLE, MISSING_COLUMN, COLUMN_COLLISION.
        UsageError: EXTRA_MISSING, narwhals is not installed.
    """
    narwhals = _narwhals()
    try:
        table = narwhals.from_native(frame, eager_only=True)
        present = table.columns
    except (TypeError, narwhals.exceptions.NarwhalsError) as error:
        kind = type(frame).__name__
        remedy = _REMEDIES.get(kind, "pass a DataFrame or an Arrow table, each column named once")
        detail = "" if isinstance(error, TypeError) else f" ({' '.join(str(error).split())})"
        why = f"score takes a table and cannot use this {kind}{detail}: {remedy}"
        raise InputError(why, reason="NOT_A_TABLE") from error
    names = [text] if isinstance(text, str | int) else list(text)
    columns = AnswerSchema((), None, prefix, with_probs=False)
    _check_columns(present, names, columns.names)
    values = [table.get_column(name).to_list() for name in names]
    texts = values[0] if len(values) == 1 else [*map(_joined, zip(*values, strict=True))]
    asked = model
    if asked is None or isinstance(asked, str | Path):
        folder = find_bundle(asked)
        asked = _load(folder, open_bundle(folder).digest)
    results = asked.classify(texts, progress=progress)
    labels: tuple[str, ...] = ()
    if probs:
        labels = asked.labels if isinstance(asked, Classifier) else asked.model().labels
    answers = _table(results, labels, prefix)
    _check_columns(present, names, answers.column_names)
    added = narwhals.from_native(_native(answers, table.implementation.value), eager_only=True)
    return cast(Frame, table.with_columns(*(added[name] for name in added.columns)).to_native())


def to_frame(
    results: Iterable[Result],
    *,
    backend: Backend = "pandas",
    prefix: str = "sentiment_",
    probs: bool = False,
) -> object:
    """Return the *results* of `classify` as a table with one row each, in order.

    sentimill.to_frame(classifier.classify(texts))["sentiment_confidence"]

    backend: which library's table to return. prefix, probs: see `score`.
    """
    found = list(results)
    labels: tuple[str, ...] = ()
    if probs:
        labels = next((one.probs.labels for one in found if isinstance(one, Prediction)), ())
    return _native(_table(found, labels, prefix), backend)


def _native(answers: pa.Table, backend: str) -> object:
    """Return *answers* as a table of the library *backend*.

    In pandas, the column of booleans is nullable: with None in a plain one, neither
    `scored[scored["sentiment_abstained"]]` nor `~scored["sentiment_abstained"]` works.
    """
    if backend == "pandas":
        flags = [field.name for field in answers.schema if field.type == pa.bool_()]
        return cast(object, answers.to_pandas().astype(dict.fromkeys(flags, "boolean")))
    return _narwhals().from_arrow(answers, backend=backend).to_native()


def _joined(parts: Sequence[object]) -> object:
    """Join the *parts* of one row. If one is not a text, return it, so that the row gets an error.

    Without this rule, a number among the parts would be left out silently.
    """
    wrong = (part for part in parts if getattr(text_of(part), "reason", "") == "NOT_TEXT")
    return next(wrong, join_texts(parts))


def _table(results: Sequence[Result], labels: tuple[str, ...], prefix: str) -> pa.Table:
    """Return the columns of the `score` command for *results*."""
    columns = AnswerSchema(labels, None, prefix, with_probs=bool(labels))
    rows = [
        (
            *(one.label, one.score, one.confidence, one.abstained, one.abstain_reason, None),
            *(one.probs if labels else ()),
        )
        if isinstance(one, Prediction)
        else (*(None,) * 5, one.reason, *(None,) * len(labels))
        for one in results
    ]
    schema = columns.schema()
    values = list(zip(*rows, strict=True)) or [()] * len(schema)
    arrays = [pa.array(column, type_) for column, type_ in zip(values, schema.types, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)


def _check_columns(
    present: Sequence[str], wanted: Sequence[str | int], added: Sequence[str]
) -> None:
    """Raise InputError when a text column is missing, or an added column already exists."""
    missing = ", ".join(repr(name) for name in wanted if name not in present)
    if missing or not wanted:
        why = f"the table has no column {missing}" if missing else "text=[] names no column"
        why += f". It has {', '.join(map(str, present)) or 'none'}: name the one with the texts"
        raise InputError(why, reason="MISSING_COLUMN")
    for name in added:
        if name in present:
            why = f"the table already has a column {name!r}: choose another prefix"
            raise InputError(why, reason="COLUMN_COLLISION")


@lru_cache(maxsize=1)
def _load(folder: Path | str, digest: str) -> Classifier:
    """Return the classifier of *folder*; the last one stays loaded until its *digest* changes."""
    return Classifier.load(folder)


def _narwhals() -> ModuleType:
    try:
        import narwhals
    except ImportError as error:
        why = "tables need narwhals: pip install 'sentimill[frames]'"
        raise UsageError(why, reason="EXTRA_MISSING") from error
    return narwhals
