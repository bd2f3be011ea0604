"""Weight interpolation keeps the share of the new weights at which validation is best."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sentimill_train.evaluation.training_evaluation import EvaluationConfig
from sentimill_train.model.lora import Lora
from sentimill_train.model.student import Student, load_student
from sentimill_train.pipeline import Train, Trained
from sentimill_train.training import weight_interpolation
from sentimill_train.training.loop import FitConfig
from sentimill_train.training.state import weights_of
from sentimill_train.training.weight_interpolation import SHARES, interpolate
from train_parts import TWO, reviews, rows_of, write_base, write_reviews

pytestmark = pytest.mark.slow

HEAD = "head.weight"


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Return a student that knows the reviews, from which others go on."""
    folder = tmp_path_factory.mktemp("first")
    return Train(
        reviews=(str(write_reviews(folder / "r.jsonl")),),
        out=folder / "first",
        labels=TWO,
        base=str(write_base(folder / "base")),
        preset="tiny",
        max_tokens=48,
        fit=FitConfig(epochs=3, learning_rate=5e-3, batch_tokens=1024, seed=3),
        evaluation=EvaluationConfig(baselines=False),
    ).run()


def turned(made: Student) -> Student:
    """Return *made* with a head that says the opposite."""
    with torch.no_grad():
        made.head.weight.neg_()
        made.head.bias.neg_()
    return made


def test_what_training_spoilt_is_left_behind(first: Trained) -> None:
    """A head turned round costs more the more of it is kept."""
    made = load_student(first.bundle.path)
    start = weights_of(made)

    share = interpolate(turned(made), start, rows_of(reviews(50)))

    assert share == SHARES[0] == 0.25
    torch.testing.assert_close(made.head.weight, 0.5 * start[HEAD])
    other = "bert.encoder.layer.0.output.dense.weight"
    torch.testing.assert_close(made.state_dict()[other], start[other])


def test_what_training_mended_stays(first: Trained) -> None:
    """From a head turned round, to one that is right."""
    made = load_student(first.bundle.path)
    found = weights_of(made)
    start = weights_of(turned(load_student(first.bundle.path)))

    assert interpolate(made, start, rows_of(reviews(50))) > 0.5
    assert torch.all(torch.sign(made.head.weight) == torch.sign(found[HEAD]))


def test_other_reviews_have_a_quarter_of_a_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """They hold the weights back where the own rows gain little by going further."""
    own, others = rows_of(reviews(5)), rows_of(reviews(6))
    losses = {5: (0.80, 0.70, 0.66, 0.65), 6: (0.30, 0.32, 0.36, 0.50)}
    at: list[int] = []
    monkeypatch.setattr(weight_interpolation, "weights_of", lambda student: {})
    monkeypatch.setattr(
        weight_interpolation, "mix", lambda *given: at.append(SHARES.index(given[-1]))
    )
    monkeypatch.setattr(weight_interpolation, "predict", lambda student, rows: rows)
    monkeypatch.setattr(
        weight_interpolation, "calibrated_nll", lambda rows, gold: losses[len(gold)][at[-1]]
    )
    student: Any = None

    assert interpolate(student, {}, own) == 1
    assert interpolate(student, {}, own, others) == 0.75


def again(first: Trained, out: Path) -> Train:
    """Return a run that goes on from *first* on the same reviews."""
    return Train(
        reviews=(str(write_reviews(out.parent / "r.jsonl")),),
        out=out,
        labels=TWO,
        base=str(first.bundle.path),
        max_tokens=48,
        fit=FitConfig(epochs=1, learning_rate=1e-4, batch_tokens=1024),
        evaluation=EvaluationConfig(baselines=False),
    )


@pytest.mark.parametrize("lora", [None, Lora(rank=2)])
def test_training_that_goes_on_says_how_far(
    first: Trained, tmp_path: Path, lora: Lora | None
) -> None:
    """In the manifest, and in the card where it moved at all."""
    made = replace(again(first, tmp_path / "next"), lora=lora).run()

    share = made.bundle.manifest.training["interpolated_share"]
    assert share in SHARES
    said = "blended with" in made.bundle.read("README.md").decode()
    assert said == (share != 1)
    assert made.test.figures["accuracy"].value == 1.0


@pytest.fixture(scope="module")
def kept(first: Trained, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Return a student that went on from *first*, which is its gate too, and was not blended."""
    run = again(first, tmp_path_factory.mktemp("kept") / "kept")
    gate = EvaluationConfig(gate=first.bundle.path, baselines=False)
    return replace(run, interpolate=False, evaluation=gate).run()


def test_it_need_not(first: Trained, kept: Trained) -> None:
    """And a student with a new head has nowhere to go back to."""
    for made in (first, kept):
        assert made.bundle.manifest.training["interpolated_share"] is None
        assert "blended with" not in made.bundle.read("README.md").decode()


def test_the_base_is_judged_on_the_same_rows(first: Trained, kept: Trained) -> None:
    """Report and card say what both can; random weights were no model before."""
    (base,) = kept.judgement.rivals
    page = kept.bundle.read("report.html").decode()

    assert first.judgement.rivals == ()
    assert base.kind == "base"
    assert base.sets[0].figures["accuracy"] == first.test.figures["accuracy"]
    assert base.sets[0].figures["macro_f1"] == first.test.figures["macro_f1"]
    assert re.fullmatch(
        r"On test, the base first [\d.]+ \(\w{8}\) has an accuracy of 100.0% and a macro-F1 of"
        r" 100.0%; the bundle has 100.0% and 100.0% \(no clear difference\).",
        base.sentence(),
    )
    assert base.sentence() in page
    assert base.sentence() in kept.bundle.read("README.md").decode()
    assert "accuracy before training" in page
    assert re.search(r"Before training, the base first .* labels 100.0% correctly", page)
    assert kept.verdict is not None
    assert kept.verdict.passed
