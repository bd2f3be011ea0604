"""Splits examples into train, validation and test, so that no text is in two of them."""

from __future__ import annotations

import hashlib
import shlex
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from sentimill.errors import TableError, TextError
from sentimill.text.cleaning import CLEANING, clean
from sentimill_train.data.examples import likely_label_column
from sentimill_train.data.schema import SENTIMENTS, Columns, Example, Split

MINIMUM_ROWS: Final[dict[Split, int]] = {"train": 20, "validation": 5, "test": 5}
"""Fewer rows are too few to train, to stop early, or to evaluate on."""

_PLAIN: Final = Columns()
_CLEANING: Final = 1  # never changes: another version would move texts to other splits


def cleaned(text: str, version: int = CLEANING) -> str | None:
    """Return *text* as the model reads it, None if no model can read it."""
    try:
        return clean(text, version)
    except TextError:
        return None


def normalise(text: str) -> str:
    """Return the normal form of *text*; two texts with the same form count as the same text.

    It is the text cleaned as for the model, in NFKC and lower case with blanks collapsed. A text
    that no model can read is not cleaned.
    """
    text = cleaned(text, _CLEANING) or text
    return " ".join(unicodedata.normalize("NFKC", text).lower().split())


def sample_rows(examples: Sequence[Example], most: int) -> list[Example]:
    """Return at most *most* examples: those whose texts have the smallest hashes.

    So a sample is the same in every run and does not depend on the order of the rows.
    """
    if len(examples) <= most:
        return list(examples)
    return sorted(examples, key=lambda example: text_key(example.text))[:most]


def text_key(text: str) -> int:
    """Return 64 bits of the sha256 of the normalised text, so that equal texts have equal keys.

    Among five million different texts, any two share a key with a probability of one in a million.
    """
    return int.from_bytes(
        hashlib.sha256(normalise(text).encode("utf-8", "surrogatepass")).digest()[:8]
    )


def split_of(text: str) -> Split:
    """Return the split of a text whose file has no split column: 70 train, 10 validation, 20 test.

    A hash of the normalised text decides, so a text has the same split in every file and run.
    """
    return split_of_key(text_key(text))


def split_of_key(key: int) -> Split:
    """Return the split of a text by its `text_key`."""
    percent = key % 100
    if percent < 70:
        return "train"
    return "validation" if percent < 80 else "test"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parted:
    """The labelled examples of each split.

    unlabelled: rows left out because they have no label. repeated: rows of train or validation left
    out because a later split has the same text. conflicting: texts that occur with different
    labels. spare: unlabelled rows, in no split, for which a teacher gives soft labels.
    """

    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]
    unlabelled: int
    repeated: int
    conflicting: int = 0
    spare: tuple[Example, ...] = ()


def part(
    examples: Sequence[Example],
    labels: Sequence[str],
    *,
    spare: bool = False,
    columns: Columns = _PLAIN,
) -> Parted:
    """Return the labelled *examples* by split, as `assign` splits them.

    *spare* keeps the unlabelled rows, except those whose file puts them into validation or test and
    those whose text is there. *columns* is how the files were read, for the message if no row has a
    label.

    Raises:
        TableError: NO_LABELS, TOO_FEW_ROWS (the message gives the minimum), ONE_LABEL, or
            LABEL_NOT_IN_TRAIN.
    """
    labelled = [example for example in examples if example.label is not None]
    if not labelled:
        raise TableError(no_labels(examples, labels, columns), reason="NO_LABELS")
    rows = [(text_key(example.text), example) for example in labelled]
    kept = assign(rows)
    kept_spare = _spare(examples, kept) if spare else ()
    _check(kept, labels, spare=len(kept_spare))
    return Parted(
        **{split: tuple(rows) for split, rows in kept.items()},
        unlabelled=len(examples) - len(labelled) - len(kept_spare),
        repeated=len(labelled) - sum(map(len, kept.values())),
        conflicting=_conflicts(rows),
        spare=kept_spare,
    )


def assign(
    labelled: Iterable[tuple[int, Example]], *, whole: bool = True
) -> dict[Split, list[Example]]:
    """Return the *labelled* rows, given with their `text_key`s, by split, however few there are.

    A row keeps the split of its file; without one it takes `split_of` its text. If validation or
    test is then empty, `split_of` moves rows of train there, but only if the rows are the *whole*
    training set: a part of it may have its test rows in another file. A text in test is removed
    from the other splits, and one in validation from train, because a figure on learnt texts means
    nothing.
    """
    by_split: dict[Split, list[tuple[int, Example]]] = {"train": [], "validation": [], "test": []}
    for key, example in labelled:
        by_split[example.split or split_of_key(key)].append((key, example))
    held_out: tuple[Split, ...] = ("validation", "test")
    for split in held_out:
        if whole and not by_split[split]:
            train = by_split["train"]
            by_split[split] = [row for row in train if split_of_key(row[0]) == split]
            by_split["train"] = [row for row in train if split_of_key(row[0]) != split]
    seen: set[int] = set()
    kept: dict[Split, list[Example]] = {}
    for split in (*reversed(held_out), "train"):
        rows = by_split[split]
        kept[split] = [replace(example, split=split) for key, example in rows if key not in seen]
        seen.update(key for key, _ in rows)
    return kept


def _conflicts(labelled: Iterable[tuple[int, Example]]) -> int:
    """Return how many texts occur under more than one label."""
    first: dict[int, str | None] = {}
    return len(
        {key for key, example in labelled if first.setdefault(key, example.label) != example.label}
    )


def _spare(examples: Sequence[Example], kept: dict[Split, list[Example]]) -> tuple[Example, ...]:
    judged = {text_key(e.text) for split in ("validation", "test") for e in kept[split]}
    return tuple(
        example
        for example in examples
        if example.label is None
        and example.split in (None, "train")
        and text_key(example.text) not in judged
    )


def _check(by_split: dict[Split, list[Example]], labels: Sequence[str], *, spare: int) -> None:
    """Raise TableError where there are too few rows. *spare* rows learn from a teacher alone."""
    for split, minimum in MINIMUM_ROWS.items():
        rows = len(by_split[split]) + (spare if split == "train" else 0)
        if rows < minimum:
            raise TableError(
                f"{rows} labelled rows for {split}, at least {minimum} are needed: give more"
                " reviews, or a column `split` that says which rows are train, validation and"
                " test",
                reason="TOO_FEW_ROWS",
            )
    if spare:
        return  # the teacher knows every label
    found = Counter(example.label for example in by_split["train"])
    if len(found) < 2:
        raise TableError(
            f"every row for train is labelled {next(iter(found))!r}: give reviews of at least two"
            f" of {', '.join(labels)}",
            reason="ONE_LABEL",
        )
    judged = Counter(e.label for split in ("validation", "test") for e in by_split[split])
    for label, rows in judged.items():
        if label not in found:
            raise TableError(
                f"all {rows} rows labelled {label!r} are for validation and test, so no row is left"
                " to learn it from: give more of them, a column `split`, or --labels without it",
                reason="LABEL_NOT_IN_TRAIN",
            )


def no_labels(examples: Sequence[Example], labels: Sequence[str], columns: Columns) -> str:
    """Return the message for *examples* without any label; it names a likely label column."""
    for source in sorted({example.source for example in examples}):
        found = likely_label_column(source, columns, labels)
        if found is None:
            continue
        name, stars = found
        option = f"--label-column {shlex.quote(name)}"
        if not stars:
            return f"none of the rows has a label: if the column {name!r} holds them, give {option}"
        if set(SENTIMENTS) <= set(labels):
            return (
                f"none of the rows has a label: if the column {name!r} holds stars, give {option}"
                " to take them as labels"
            )
    return (
        "none of the rows has a label: name its column with --label-column, or give a column"
        f" `probs`, or `stars`, which are read only with the labels {', '.join(SENTIMENTS)}"
    )
