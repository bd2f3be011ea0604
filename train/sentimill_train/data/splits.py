"""Parts examples into train, validation and test, so that no text is in two of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from sentimill.errors import TableError
from sentimill_train.data.schema import SENTIMENTS, Example, Split, normalise, split_of

__all__ = ["MINIMUM_ROWS", "Parted", "assign", "part"]

MINIMUM_ROWS: Final[dict[Split, int]] = {"train": 20, "validation": 5, "test": 5}
"""Fewer rows of a split than this cannot be learnt from, stopped by, or judged on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parted:
    """The labelled examples of each split.

    unlabelled: rows without a label, left out. repeated: rows of train or validation left out
    because a later split has the same text. spare: unlabelled rows to learn from, in no split.
    """

    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]
    unlabelled: int
    repeated: int
    spare: tuple[Example, ...] = ()

    def __getitem__(self, split: Split) -> tuple[Example, ...]:
        """Return the examples of one split."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[split]


def part(examples: Sequence[Example], labels: Sequence[str], *, spare: bool = False) -> Parted:
    """Return the labelled *examples* by split; a row keeps the split that its file gives it.

    The splits are those of `assign`. *spare* keeps the unlabelled rows that are not for validation
    or test by their file or text.

    Raises:
        TableError: NO_LABELS, TOO_FEW_ROWS (the message has the minimum), or ONE_LABEL.
    """
    labelled = [example for example in examples if example.label is not None]
    if not labelled:
        raise TableError(
            "none of the rows has a label: name its column with --label-column, or give a column"
            f" `probs`, or `stars`, which are read only with the labels {', '.join(SENTIMENTS)}",
            reason="NO_LABELS",
        )
    kept, repeated = assign(labelled)
    _check(kept, labels)
    kept_spare = _spare(examples, kept) if spare else ()
    return Parted(
        train=_of(kept, "train"),
        validation=_of(kept, "validation"),
        test=_of(kept, "test"),
        unlabelled=len(examples) - len(labelled) - len(kept_spare),
        repeated=repeated,
        spare=kept_spare,
    )


def assign(
    labelled: Sequence[Example], *, whole: bool = True
) -> tuple[dict[Split, list[Example]], int]:
    """Return *labelled* by split, however few they are, and how many repeated rows were left out.

    Rows without a split take `split_of` their text. Where no row is left for validation or test,
    that share of train becomes it, by the same rule, if these rows are the *whole* training set: a
    part of it may have its test rows in another file. A text in test is taken out of the others,
    and one in validation out of train, for a figure over texts that were learnt by heart is none.
    """
    by_split: dict[Split, list[Example]] = {"train": [], "validation": [], "test": []}
    for example in labelled:
        by_split[example.split or split_of(example.text)].append(example)
    for split in ("validation", "test"):
        if whole and not by_split[split]:
            by_split[split] = [e for e in by_split["train"] if split_of(e.text) == split]
            by_split["train"] = [e for e in by_split["train"] if split_of(e.text) != split]
    return _without_repeats(by_split)


def _without_repeats(
    by_split: dict[Split, list[Example]],
) -> tuple[dict[Split, list[Example]], int]:
    seen: set[str] = set()
    kept: dict[Split, list[Example]] = {}
    repeated = 0
    for split in ("test", "validation", "train"):
        texts = [normalise(example.text) for example in by_split[split]]
        kept[split] = [e for e, t in zip(by_split[split], texts, strict=True) if t not in seen]
        repeated += len(texts) - len(kept[split])
        seen.update(texts)
    return kept, repeated


def _spare(examples: Sequence[Example], kept: dict[Split, list[Example]]) -> tuple[Example, ...]:
    judged = {normalise(e.text) for split in ("validation", "test") for e in kept[split]}
    return tuple(
        example
        for example in examples
        if example.label is None
        and example.split in (None, "train")
        and normalise(example.text) not in judged
    )


def _check(by_split: dict[Split, list[Example]], labels: Sequence[str]) -> None:
    for split, minimum in MINIMUM_ROWS.items():
        rows = len(by_split[split])
        if rows < minimum:
            raise TableError(
                f"{rows} labelled rows for {split}, at least {minimum} are needed: give more"
                " reviews, or a column `split` that says which rows are train, validation and"
                " test",
                reason="TOO_FEW_ROWS",
            )
    found = Counter(example.label for example in by_split["train"])
    if len(found) < 2:
        raise TableError(
            f"every row for train is labelled {next(iter(found))!r}: give reviews of at least two"
            f" of {', '.join(labels)}",
            reason="ONE_LABEL",
        )


def _of(by_split: dict[Split, list[Example]], split: Split) -> tuple[Example, ...]:
    return tuple(replace(example, split=split) for example in by_split[split])
