"""`--lora`: adapters learn, the encoder's own weights do not, and the bundle is an ordinary one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from cli_in_process import Sentimill
from sentimill.classifier import Classifier, Prediction
from sentimill.errors import UsageError
from sentimill_train.export.onnx import export_fp32
from sentimill_train.model.lora import Lora, add_adapters, check_lora, lora_of, merge_adapters
from sentimill_train.model.student import Preset, Student, new_student, predict, save_student
from sentimill_train.training.checkpoint import Checkpoint
from sentimill_train.training.loop import Fit, FitConfig, Progress, fit
from train_parts import TWO, VOCABULARY, base, reviews, rows_of, write_base, write_reviews

CONFIG = FitConfig(epochs=2, learning_rate=1e-2, batch_tokens=1024, seed=5)
TRAIN = rows_of(reviews(120))
VALIDATION = rows_of(reviews(40, seed=1))


def pretrained_student(folder: Path) -> Student:
    """Return a student whose encoder comes from a checkpoint."""
    torch.manual_seed(0)
    return new_student("minilm-l6", base(folder), TWO, vocabulary=VOCABULARY)


def copied(student: Student) -> dict[str, Tensor]:
    """Return its weights as they are now."""
    return {name: tensor.clone() for name, tensor in student.state_dict().items()}


def run(
    folder: Path, checkpoint: Checkpoint | None = None, stop_after: int | None = None
) -> tuple[dict[str, Tensor], Fit]:
    """Return the merged weights that one run gives; stop_after: kills it behind so many steps."""
    student = pretrained_student(folder)
    adapters = add_adapters(student, Lora())
    steps = 0

    def watch(progress: Progress) -> None:
        nonlocal steps
        steps += 1
        if steps == stop_after:
            raise KeyboardInterrupt

    found = fit(student, TRAIN, VALIDATION, CONFIG, watch, checkpoint=checkpoint)
    merge_adapters(adapters)
    return copied(student), found


def test_only_adapters_and_the_head_are_learnt(tmp_path: Path) -> None:
    """Every weight of the encoder, its biases, norms and word vectors stay as they were."""
    student = pretrained_student(tmp_path / "base")
    add_adapters(student, Lora())
    before = copied(student)

    fit(student, TRAIN, VALIDATION, CONFIG)

    moved = {
        name for name, was in before.items() if not torch.equal(was, student.state_dict()[name])
    }
    assert moved == {name for name in before if ".lora_" in name or name.startswith("head.")}
    assert len([name for name in moved if ".lora_B." in name]) == 12  # six in each of two layers


def test_what_is_exported_is_the_merged_model(tmp_path: Path) -> None:
    """Names and shapes are those of any student, and graph and adapters give the same logits."""
    student = pretrained_student(tmp_path / "base")
    plain = {name: tensor.shape for name, tensor in student.state_dict().items()}
    adapters = add_adapters(student, Lora(rank=4, alpha=8))
    fit(student, TRAIN, VALIDATION, CONFIG)
    learnt = predict(student, VALIDATION)

    merge_adapters(adapters)

    assert {name: tensor.shape for name, tensor in student.state_dict().items()} == plain
    assert torch.allclose(
        torch.from_numpy(predict(student, VALIDATION)), torch.from_numpy(learnt), atol=1e-5
    )
    (tmp_path / "saved").mkdir()
    save_student(student, tmp_path / "saved")
    graph = export_fp32(tmp_path / "saved")
    assert graph.max_logit_difference <= 1e-5


def test_a_killed_training_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    """The checkpoint holds the adapters as it holds weights."""
    through, _ = run(tmp_path / "a")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "b", Checkpoint(tmp_path / "c", {}, minutes=0), stop_after=7)

    again, fitted = run(tmp_path / "b", Checkpoint(tmp_path / "c", {}, minutes=0))

    assert fitted.epochs == 2
    assert {name for name, was in through.items() if not torch.equal(was, again[name])} == set()


@pytest.mark.slow
def test_the_command_writes_an_ordinary_bundle(tmp_path: Path, sentimill: Sentimill) -> None:
    """It answers, its record has rank and alpha, and the biases of its encoder are the base's."""
    was = load_file(write_base(tmp_path / "base") / "model.safetensors")
    write_reviews(tmp_path / "r.jsonl")

    done = sentimill(
        *("train", "--reviews", tmp_path / "r.jsonl", "--out", tmp_path / "b", "--labels", "found"),
        *("--base", tmp_path / "base", "--lora", "--lora-rank", "4", "--learning-rate", "0.02"),
        *("--no-baselines", "--epochs", "4", "--max-tokens", "48"),
    )

    assert done.code == 0, done.err
    classifier = Classifier.load(tmp_path / "b")
    training = classifier.bundle.manifest.training
    assert (training["lora_rank"], training["lora_alpha"]) == (4, 16)
    (answer,) = classifier.classify(["item xyz was lovely"])
    assert isinstance(answer, Prediction)
    assert answer.label == "positive"
    weights = load_file(tmp_path / "b/model.safetensors")
    assert weights.keys() == {f"bert.{name}" for name in was if "pooler" not in name} | {
        "head.weight",
        "head.bias",
    }
    bias = "encoder.layer.0.output.dense.bias"
    assert torch.equal(weights[f"bert.{bias}"], was[bias])
    weight = "encoder.layer.0.output.dense.weight"
    assert not torch.equal(weights[f"bert.{weight}"], was[weight])


@pytest.mark.parametrize(
    ("preset", "train_embeddings", "named"),
    [("minilm-l6", True, "--train-embeddings"), ("tiny", False, "--preset tiny")],
)
def test_options_that_learn_the_weights_are_refused(
    preset: Preset, train_embeddings: bool, named: str
) -> None:
    """Random weights that stay random would be of no use to anyone."""
    with pytest.raises(UsageError, match=named) as caught:
        check_lora(preset, train_embeddings=train_embeddings)

    assert caught.value.reason == "LORA_ALONE"


def test_rank_and_alpha_need_lora() -> None:
    """Else they would be passed over in silence."""
    assert lora_of(True, None, None) == Lora(rank=8, alpha=16)
    assert lora_of(True, 2, None) == Lora(rank=2, alpha=16)
    assert lora_of(False, None, None) is None
    with pytest.raises(UsageError, match="need --lora") as caught:
        lora_of(False, 4, None)

    assert caught.value.reason == "NO_LORA"
