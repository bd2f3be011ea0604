"""Reads a labelled file to evaluate on, and collects the answers of a bundle to it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

import numpy as np

from sentimill.bundle.manifest import Source
from sentimill.classifier import Classifier, Prediction
from sentimill.errors import InputError, TableError, TextError
from sentimill_train.data.examples import read_examples
from sentimill_train.data.learnt_texts import KNOWN_SHARE, share_learnt
from sentimill_train.data.readers import digest_of
from sentimill_train.data.schema import Columns, Example
from sentimill_train.data.splits import assign, no_labels, sample_rows, split_of_key, text_key
from sentimill_train.metrics.classification import Answers

Part = Literal["auto", "train", "validation", "test", "all"]

_TEXTS_AT_ONCE: Final = 4096  # enough for batches of like length


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The labelled rows of one file.

    part: the split that was taken, or `all`. unlabelled: how many of its rows have no label.
    learnt: how many rows `without` left out. unlabelled_examples: the rows without a label, if they
    were asked for and the model cannot have learnt from them.
    """

    name: str
    sha256: str
    part: str
    examples: tuple[Example, ...]
    unlabelled: int = 0
    learnt: int = 0
    unlabelled_examples: tuple[Example, ...] = ()

    def without(self, learnt: Iterable[Example]) -> Sample:
        """Return the sample without the rows that have the text of a row in *learnt*.

        Only the keys of the sample are held in memory, because *learnt* may have millions of rows.

        Raises:
            TableError: NOTHING_HELD_OUT if no row is left.
        """
        keys = [text_key(example.text) for example in self.examples]
        own = set(keys)
        known = {key for each in learnt if (key := text_key(each.text)) in own}
        kept = tuple(e for e, k in zip(self.examples, keys, strict=True) if k not in known)
        if not kept:
            raise TableError(
                f"every text of {self.name} is also in the training rows: evaluate on other"
                " reviews",
                reason="NOTHING_HELD_OUT",
            )
        return replace(self, examples=kept, learnt=len(self.examples) - len(kept))


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """A sample with a bundle's answers. `examples`, `predictions` and `answers` have equal rows.

    failed: how many rows could not be classified, such as an empty text; no figure includes them.
    """

    sample: Sample
    answers: Answers
    examples: tuple[Example, ...]
    predictions: tuple[Prediction, ...]
    failed: int


def read_sample(
    source: str,
    labels: tuple[str, ...],
    *,
    trained_on: Sequence[Sequence[Source]] = (),
    part: Part = "auto",
    most: int | None = None,
    columns: Columns | None = None,
    needs_labels: bool = True,
) -> Sample:
    """Return the rows of *source* to evaluate on, labelled with some of *labels*.

    `auto` takes the test rows if the file has splits or was trained on, else all rows. trained_on:
    the files of each training whose rows must not be used. If *source* is one of them, it is split
    as in that training, so no learnt row is evaluated on. most: larger samples are reduced by a
    hash of their texts, the same in every run. needs_labels: if false, rows without a label are
    returned too, and the sample may consist of them.

    Raises:
        TableError: the file is not usable, or has no row, or no labelled row, in that part.
    """
    columns = columns or Columns()
    examples = read_examples(source, columns=columns, labels=labels)
    digest = digest_of(source)
    keys = [text_key(example.text) for example in examples]
    learnt = [
        files
        for files in trained_on
        if any(f.sha256 == digest or share_learnt(f.texts, keys) >= KNOWN_SHARE for f in files)
    ]
    if part == "auto":
        split = any(example.split is not None for example in examples)
        part = "test" if split or learnt else "all"
    rows = list(zip(keys, examples, strict=True))
    chosen = [e for key, e in rows if part == "all" or (e.split or split_of_key(key)) == part]
    labelled = [example for example in chosen if example.label is not None]
    others = [example for example in chosen if example.label is None]
    if learnt and part != "all":
        # In a training on several files, this one may have had only rows for train.
        whole = all(len(files) == 1 for files in learnt)
        labelled = assign((row for row in rows if row[1].label is not None), whole=whole)[part]
    # If the file was trained on, its rows without a label may have taught the model too.
    only_labelled = needs_labels or bool(learnt)
    spare = () if only_labelled else tuple(others)
    if only_labelled and all(example.label is None for example in examples):
        raise TableError(no_labels(examples, labels, columns), reason="NO_LABELLED_ROWS")
    if not labelled and not spare:
        raise TableError(
            f"{source} has no labelled row in the part {part!r}: choose another with --part",
            reason="NO_LABELLED_ROWS",
        )
    if most is not None:
        labelled = sample_rows(labelled, most)
    return Sample(
        name=Path(source).stem or source,
        sha256=digest,
        part=part,
        examples=tuple(labelled),
        unlabelled=len(others),
        unlabelled_examples=spare,
    )


def with_unique_names(samples: Sequence[Sample]) -> list[Sample]:
    """Return *samples* with unique names, since names identify figures: the second x is `x (2)`.

    Two folders may each hold a test.csv, and the test split is also called `test`.
    """
    taken = {sample.name for sample in samples}
    seen: set[str] = set()
    found = []
    for sample in samples:
        name, number = sample.name, 2
        while name in seen or (number > 2 and name in taken):
            name, number = f"{sample.name} ({number})", number + 1
        seen.add(name)
        found.append(replace(sample, name=name))
    return found


def answer(classifier: Classifier, sample: Sample) -> Answered:
    """Classify *sample*.

    Raises:
        InputError: NOTHING_CLASSIFIED if every text of the sample was refused.
    """
    results = classify_all(classifier, [example.text for example in sample.examples])
    pairs = zip(sample.examples, results, strict=True)
    read = [(example, result) for example, result in pairs if isinstance(result, Prediction)]
    if not read:
        raise InputError(
            f"no text of {sample.name} could be classified: are they empty?",
            reason="NOTHING_CLASSIFIED",
        )
    examples, predictions = zip(*read, strict=True)
    probs = np.array([prediction.probs for prediction in predictions], dtype=np.float64)
    return Answered(
        sample=sample,
        answers=gold_of(examples, classifier.labels, probs),
        examples=examples,
        predictions=predictions,
        failed=len(sample.examples) - len(examples),
    )


def classify_all(classifier: Classifier, texts: Sequence[str]) -> Iterator[Prediction | TextError]:
    """Yield the answer to each text; only some thousand texts are in memory as tokens."""
    for start in range(0, len(texts), _TEXTS_AT_ONCE):
        yield from classifier.classify(texts[start : start + _TEXTS_AT_ONCE])


def gold_of(
    examples: Sequence[Example], labels: tuple[str, ...], probs: np.typing.NDArray[np.float64]
) -> Answers:
    """Return *probs* (rows, labels) with the labels and stars of *examples*, all labelled."""
    stars = [example.stars for example in examples]
    return Answers(
        labels=labels,
        gold=np.array([labels.index(str(example.label)) for example in examples], dtype=np.int64),
        probs=probs,
        stars=None if None in stars else np.array(stars, dtype=np.int64),
    )
