"""Who is trained how fast, and when."""

from __future__ import annotations

from pathlib import Path

import pytest

from sentimill_train.model.student import freeze_embeddings
from sentimill_train.training.optimizer import learning_rate_at, new_optimizer
from train_parts import student


def test_the_learning_rate_rises_then_falls_to_zero() -> None:
    """A tenth of the rows to warm up, and a straight line down."""
    rates = [learning_rate_at(done) for done in (0.0, 0.05, 0.1, 0.55, 1.0)]

    assert rates == pytest.approx([0.0, 0.5, 1.0, 0.5, 0.0])


def test_vectors_are_not_decayed_and_the_head_learns_faster(tmp_path: Path) -> None:
    """Biases and LayerNorm weights; every parameter is in one group."""
    made = student(tmp_path)

    groups = new_optimizer(made, 1e-4, 10.0).param_groups

    decayed = {id(p) for g in groups if g["weight_decay"] > 0 for p in g["params"]}
    head = [g for g in groups if any(p is made.head.weight for p in g["params"])]
    assert sum(len(g["params"]) for g in groups) == len(list(made.parameters()))
    for name, parameter in made.named_parameters():
        vector = name.endswith("bias") or "LayerNorm" in name
        assert (id(parameter) in decayed) != vector, name
    assert [g["highest_lr"] for g in head] == pytest.approx([1e-3])


def test_frozen_embeddings_are_not_trained(tmp_path: Path) -> None:
    """The word, position and type vectors are in no group; everything else still is."""
    made = student(tmp_path)
    freeze_embeddings(made)

    groups = new_optimizer(made, 1e-4, 10.0).param_groups
    trained = {id(p) for g in groups for p in g["params"]}

    for name, parameter in made.named_parameters():
        assert (id(parameter) in trained) != (".embeddings." in name), name
