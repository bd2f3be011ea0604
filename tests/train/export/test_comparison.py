"""Each precision is calibrated by itself, on rows that do not judge it."""

from __future__ import annotations

import hashlib
import random
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from sentimill.bundle.manifest import Manifest, Source
from sentimill.bundle.reader import Bundle
from sentimill.classifier import encoder_of
from sentimill.errors import TableError
from sentimill_train.data.examples import write_examples
from sentimill_train.data.schema import Columns, Example, Split
from sentimill_train.data.tokenized import NO_LABEL, Rows, tokenise
from sentimill_train.export.acceptance import MANY_LABELS, PrecisionCheck
from sentimill_train.export.acceptance_rows import GateRows, read_gate_rows
from sentimill_train.export.comparison import Comparison
from sentimill_train.export.onnx import Run, open_graph
from tiny_bundle import LABELS, write_tiny_bundle

SENSE = {"good": "positive", "bad": "negative", "battery": "neutral"}


def examples(rows: int, split: Split | None, *, seed: int) -> list[Example]:
    """Return reviews of which one in ten has another label than its words say."""
    draw = random.Random(seed)
    made = []
    for i in range(rows):
        word = draw.choice(sorted(SENSE))
        label = SENSE[word] if draw.random() < 0.9 else draw.choice(LABELS)
        text = f"the {word} {' '.join(draw.choices(['fine', 'the', 'battery'], k=4))} {seed} {i}"
        made.append(Example(id=f"{seed}-{i}", text=text, label=label, split=split, source="made"))
    return made


JUDGED = examples(MANY_LABELS, "test", seed=1)


def sharper(graph: Run) -> Run:
    """Return a precision that is half as sure again of everything as *graph*."""

    def run(ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
        return graph(ids, mask) * np.float32(1.5)

    return run


def checked(bundle: Bundle, fitted: list[Example]) -> PrecisionCheck:
    """Return what the gate says of `sharper`, calibrated on *fitted*."""

    def rows(chosen: list[Example]) -> Rows:
        encoder = encoder_of(bundle.manifest, bundle.read("tokenizer.json"))
        return tokenise(chosen, encoder, LABELS)[0]

    gate = Comparison(bundle, GateRows(rows(JUDGED), rows(fitted)), lambda stage: None)
    return gate.check("int8", sharper(open_graph(gate.fp32)))


def test_a_precision_that_is_surer_gets_a_higher_temperature(tmp_path: Path) -> None:
    """Calibrated by itself it answers as fp32 does, which is what is compared and written."""
    bundle = write_tiny_bundle(tmp_path / "b")

    found = checked(bundle, examples(300, "validation", seed=2))

    assert found.temperature == pytest.approx(1.5, rel=0.01)
    assert found.fitted_on == 300
    assert found.ece_change is not None
    assert abs(found.ece_change.value) < 1e-3
    assert found.passed


def test_where_the_rows_come_from_does_not_move_the_temperature(tmp_path: Path) -> None:
    """On rows that are all right both would be sharper, and fp32 keeps the one of its training."""
    bundle = write_tiny_bundle(tmp_path / "b")
    easy = [replace(e, label=SENSE[e.text.split()[1]]) for e in examples(300, "validation", seed=2)]

    found = checked(bundle, easy)

    assert found.temperature == pytest.approx(1.5, rel=0.05)


def test_without_rows_to_fit_on_it_is_that_of_fp32(tmp_path: Path) -> None:
    """And the gate sees what that costs, in the calibration and in the golden texts."""
    bundle = write_tiny_bundle(tmp_path / "b")

    found = checked(bundle, examples(20, "validation", seed=2))

    assert (found.temperature, found.fitted_on) == (1.0, 0)
    assert not found.golden
    assert not found.passed


def test_a_threshold_is_chosen_anew(tmp_path: Path) -> None:
    """With the target that training had, at this precision's own confidences."""

    def with_target(manifest: Manifest) -> Manifest:
        return msgspec.structs.replace(manifest, threshold=0.9, training={"target_error": 0.3})

    bundle = write_tiny_bundle(tmp_path / "b", change=with_target)
    plain = write_tiny_bundle(tmp_path / "plain", threshold=0.9)
    rows = examples(300, "validation", seed=2)

    assert checked(plain, rows).threshold is None
    found = checked(bundle, rows).threshold
    assert found is not None
    assert 0.33 < found < 0.9


def texts(rows: Rows) -> set[bytes]:
    """Return the rows as bytes."""
    bounds = zip(rows.starts[:-1], rows.starts[1:], strict=True)
    return {rows.ids[start:end].tobytes() for start, end in bounds}


def read(tmp_path: Path, *files: list[Example]) -> GateRows:
    """Return what is read of *files*."""
    names = []
    for number, rows in enumerate(files):
        write_examples(tmp_path / f"{number}.jsonl", rows)
        names.append(str(tmp_path / f"{number}.jsonl"))
    return read_gate_rows(write_tiny_bundle(tmp_path / "b"), tuple(names), Columns())


def labelled(*words: str, split: Split | None) -> list[Example]:
    """Return one positive review a word."""
    return [
        Example(id=word, text=f"good {word}", label="positive", split=split, source="made")
        for word in words
    ]


def test_validation_rows_are_fitted_on_and_test_rows_judge(tmp_path: Path) -> None:
    """Train rows do neither."""
    split = labelled("bad", split="train") + labelled("the", "fine", split="validation")

    rows = read(tmp_path, split + labelled("battery", split="test"))

    assert (len(rows.judged), len(rows.fitted)) == (1, 2)
    assert not texts(rows.judged) & texts(rows.fitted)


def test_a_text_that_judges_is_not_fitted_on(tmp_path: Path) -> None:
    """Though another of the files has it for validation."""
    mine = labelled("the", "fine", split="validation") + labelled("battery", split="test")

    rows = read(tmp_path, mine, labelled("fine", split="test"))

    assert (len(rows.judged), len(rows.fitted)) == (2, 1)
    assert not texts(rows.judged) & texts(rows.fitted)


def test_a_file_without_splits_judges_alone(tmp_path: Path) -> None:
    """All its rows are needed for that."""
    rows = read(tmp_path, labelled("the", "fine", "battery", split=None))

    assert (len(rows.judged), len(rows.fitted)) == (3, 0)


def test_a_file_with_test_rows_alone_judges_alone(tmp_path: Path) -> None:
    """It has none for validation, which is no error."""
    rows = read(tmp_path, labelled("the", "fine", split="test"))

    assert (len(rows.judged), len(rows.fitted)) == (2, 0)


def test_rows_without_a_label_judge_too(tmp_path: Path) -> None:
    """Agreement with fp32 needs none; a temperature does."""
    bare = [replace(e, label=None) for e in labelled("the", "fine", split=None)]
    for_test = [replace(e, label=None) for e in labelled("battery", split="test")]
    for_validation = [replace(e, label=None) for e in labelled("good", split="validation")]

    rows = read(tmp_path, bare, for_test + for_validation)

    assert rows.judged.gold.tolist() == [-1, -1, -1]
    assert len(rows.fitted) == 0


def test_rows_without_a_label_of_a_file_that_was_trained_on_do_not_judge(tmp_path: Path) -> None:
    """A teacher may have taught by them."""
    mine = labelled("the", split="test") + labelled("fine", split="train")
    bare = [replace(e, label=None) for e in labelled("battery", split="test")]
    write_examples(tmp_path / "mine.jsonl", mine + bare)
    digest = hashlib.sha256((tmp_path / "mine.jsonl").read_bytes()).hexdigest()
    source = Source(name="mine.jsonl", sha256=digest, rows=3)
    bundle = write_tiny_bundle(
        tmp_path / "b", change=lambda made: msgspec.structs.replace(made, sources=(source,))
    )

    rows = read_gate_rows(bundle, (str(tmp_path / "mine.jsonl"),), Columns())

    assert NO_LABEL not in rows.judged.gold.tolist()
    assert len(rows.judged) >= 1


def test_a_file_that_cannot_be_read_is_an_error_still(tmp_path: Path) -> None:
    """Only the want of validation rows is let pass."""
    with pytest.raises(TableError):
        read_gate_rows(
            write_tiny_bundle(tmp_path / "b"), (str(tmp_path / "none.jsonl"),), Columns()
        )
