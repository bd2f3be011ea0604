"""Reads the rows that a precision is tested on, and others to fit its temperature on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from sentimill.bundle.reader import Bundle
from sentimill.classifier import encoder_of
from sentimill.errors import TableError
from sentimill_train.data.schema import Columns, Example
from sentimill_train.data.splits import normalise
from sentimill_train.data.tokenized import Rows, tokenise
from sentimill_train.evaluation.labelled_set import read_sample


@dataclass(frozen=True, slots=True)
class GateRows:
    """Rows of the same files; no text is in both.

    judged: the rows that the gate compares, with or without labels. fitted: labelled validation
    rows; none if no file has splits.
    """

    judged: Rows
    fitted: Rows


def read_gate_rows(opened: Bundle, on: tuple[str, ...], columns: Columns) -> GateRows:
    """Return the rows of the files *on* that the model has not learned from.

    All rows of a file without splits are used for the test, and none to fit a temperature: if the
    same rows did both, the result would be too good.

    Raises:
        TableError: a file is not usable, or has no row to test on.
    """
    manifest = opened.manifest
    read = partial(
        read_sample, labels=manifest.labels, trained_on=manifest.trainings, columns=columns
    )
    judged: list[Example] = []
    fitted: list[Example] = []
    for source in on:
        sample = read(source, needs_labels=False)
        judged += [*sample.examples, *sample.unlabelled_examples]
        if sample.part == "test":
            try:
                fitted += read(source, part="validation").examples
            except TableError as error:
                if error.reason != "NO_LABELLED_ROWS":
                    raise
    taken = {normalise(example.text) for example in judged}
    encoder = encoder_of(manifest, opened.read("tokenizer.json"))
    apart = [example for example in fitted if normalise(example.text) not in taken]
    return GateRows(
        tokenise(judged, encoder, manifest.labels)[0], tokenise(apart, encoder, manifest.labels)[0]
    )
