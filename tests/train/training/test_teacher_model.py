"""A teacher classifier gives its shares, and its states, to a smaller student."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import BertConfig, BertForSequenceClassification

from sentimill.errors import UsageError
from sentimill_train.data.examples import write_examples
from sentimill_train.data.schema import Example
from sentimill_train.evaluation.training_evaluation import EvaluationConfig
from sentimill_train.model.student import predict, save_student
from sentimill_train.pipeline import Train
from sentimill_train.training.loop import FitConfig, fit
from sentimill_train.training.targets import mix_shares
from sentimill_train.training.teacher_model import Teacher, load_teacher
from train_parts import TWO, VOCABULARY, reviews, rows_of, student, tokenizer_json, write_base

pytestmark = pytest.mark.slow

UNLABELLED = [replace(example, label=None) for example in reviews(160)]


def saved(folder: Path, *, sure: float = 1.0, labels: tuple[str, ...] = TWO) -> Path:
    """Write a student, whose answers are as *sure* as wanted, as a folder to learn from."""
    made = student(folder / "base", labels=labels, seed=3)
    made.head.weight.data *= sure
    save_student(made, folder / "large")
    (folder / "large" / "tokenizer.json").write_bytes(tokenizer_json())
    return folder / "large"


def load(folder: Path, examples: list[Example], labels: tuple[str, ...] = TWO) -> Teacher:
    """Load it as training does."""
    return load_teacher(folder, labels, examples, max_tokens=32, truncation="head-tail")


def test_a_student_answers_as_it_predicts(tmp_path: Path) -> None:
    """A bundle is such a folder; the states are those that it pools."""
    teacher = load(saved(tmp_path), UNLABELLED[:6])

    logits, states = teacher.read([4, 1])

    expected = predict(teacher.model, teacher.rows)[[4, 1]]  # type: ignore[arg-type] # a student
    np.testing.assert_allclose(logits.numpy(), expected, atol=1e-6)
    assert states.shape == (2, int(teacher.rows.lengths()[[1, 4]].max()), 32)
    assert not logits.requires_grad
    assert not teacher.model.training


def test_a_checkpoint_of_transformers_answers_in_our_order_of_labels(tmp_path: Path) -> None:
    """Its own order, and the case of its labels, are its own business."""
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=10,
        id2label={0: "POSITIVE", 1: "NEGATIVE"},
        label2id={"POSITIVE": 0, "NEGATIVE": 1},
    )
    model = BertForSequenceClassification(config)
    model.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes(tokenizer_json())
    teacher = load(tmp_path, UNLABELLED[:3])

    logits, states = teacher.read([0])

    ids = torch.from_numpy(teacher.rows.ids[: teacher.rows.starts[1]].astype(np.int64))
    with torch.no_grad():
        expected = model.train(False)(input_ids=ids[None]).logits[:, [1, 0]]
    torch.testing.assert_close(logits, expected)
    assert states.shape == (1, len(ids), 16)
    assert teacher.rows.lengths().max() == 10


def test_other_labels_are_refused(tmp_path: Path) -> None:
    """With both sets of names."""
    with pytest.raises(UsageError, match="has the labels negative, positive, not a, b") as caught:
        load(saved(tmp_path), UNLABELLED[:2], labels=("a", "b"))

    assert caught.value.reason == "LABELS_DIFFER"


def test_a_checkpoint_that_is_no_classifier_is_refused(tmp_path: Path) -> None:
    """An encoder alone has labels of nobody's choice."""
    with pytest.raises(UsageError) as caught:
        load(write_base(tmp_path), UNLABELLED[:2])

    assert caught.value.reason == "LABELS_DIFFER"


def test_states_are_compared_only_where_they_can_be(tmp_path: Path) -> None:
    """The same tokens, and as many numbers for each."""
    teacher = load(saved(tmp_path), UNLABELLED[:5])
    small = student(tmp_path / "small")

    teacher.check_states(small, rows_of(UNLABELLED[:5]))
    with pytest.raises(UsageError, match="--hidden-weight") as caught:
        teacher.check_states(small, rows_of(UNLABELLED[1:6]))

    assert caught.value.reason == "HIDDEN_DIFFERS"


def test_a_student_learns_the_answers_on_rows_without_a_label(tmp_path: Path) -> None:
    """And the states, with --hidden-weight, nearer than without."""
    teacher = load(saved(tmp_path, sure=20), UNLABELLED)
    answers = teacher.logits(range(len(UNLABELLED)), None)
    rows = mix_shares(rows_of(UNLABELLED), answers, 0.5)
    wanted, wanted_states = teacher.read(range(40))
    apart, states_apart = [], []
    for hidden_weight, epochs in ((0.0, 0), (0.0, 6), (3.0, 6)):
        small = student(tmp_path / "small", seed=9)
        config = FitConfig(
            epochs=max(1, epochs),
            batch_tokens=1024,
            learning_rate=5e-3 if epochs else 1e-12,
            soft_weight=1,
            hidden_weight=hidden_weight,
            patience=9,
        )
        fit(small, rows, rows_of(reviews(40, seed=1)), config, teacher=teacher)
        logits = torch.from_numpy(predict(small, rows)[:40])
        kl = F.kl_div(logits.log_softmax(-1), wanted.softmax(-1), reduction="batchmean")
        apart.append(float(kl))
        states_apart.append(states_of(small, teacher, wanted_states))

    untrained, trained, with_states = apart
    assert max(trained, with_states) < untrained / 2
    assert states_apart[2] < 0.8 * states_apart[1]


def states_of(small: object, teacher: Teacher, wanted: torch.Tensor) -> float:
    """Return how far the token states of the first rows are from *wanted*."""
    found = Teacher(source=teacher.source, model=small, rows=teacher.rows, order=(0, 1))  # type: ignore[arg-type] # a student
    return float((found.read(range(40))[1] - wanted).square().mean())


def test_the_command_learns_from_a_larger_student_and_says_so(tmp_path: Path) -> None:
    """With the rows that have no label; the manifest has the name and the hash of its weights."""
    bare = [replace(e, id=f"bare-{e.id}", label=None) for e in reviews(60, seed=8)]
    write_examples(tmp_path / "r.jsonl", [*reviews(200), *bare])
    config = Train(
        reviews=(str(tmp_path / "r.jsonl"),),
        out=tmp_path / "b",
        labels=TWO,
        base=str(write_base(tmp_path / "six", layers=6)),
        preset="minilm-l3",
        max_tokens=48,
        teacher_bundle=saved(tmp_path),
        fit=FitConfig(epochs=1, batch_tokens=1024, hidden_weight=1),
        evaluation=EvaluationConfig(baselines=False),
    )

    found = config.run()

    training = found.bundle.manifest.training
    assert (training["teacher_bundle"], training["hidden_weight"]) == ("large", 1)
    assert len(str(training["teacher_bundle_sha256"])) == 64
    assert int(str(training["rows_spare"])) == len(found.parted.spare) > 40
    assert (training["preset"], training["rows_unlabelled"]) == (
        "minilm-l3",
        found.parted.unlabelled,
    )
    with pytest.raises(UsageError, match="needs a --teacher-bundle"):
        replace(config, out=tmp_path / "c", teacher_bundle=None).run()
