"""Training beside bare forward and backward, tried on a tiny student."""

from __future__ import annotations

from pathlib import Path
from statistics import median

import pytest
import torch

from benchmarks.training.token_rate import Bare, Batch, frozen, measured
from train_parts import reviews, rows_of, student


def test_all_arms_learn_the_same_batches_in_turns(tmp_path: Path) -> None:
    """Each has a ratio a turn: what a busy machine does to one arm it does to all."""
    found = measured(student(tmp_path), rows_of(reviews(48)), turns=3)

    assert found["arms"].keys() >= {"loop", "bare", "optimizer", "embeddings", "math_attention"}
    for arm in found["arms"].values():
        assert arm["tokens_per_second"] > 0
        assert len(arm["of_bare"]["each"]) == 3
    assert found["arms"]["bare"]["of_bare"]["each"] == [1, 1, 1]
    loop = found["arms"]["loop"]["of_bare"]
    assert loop["times_as_fast"] == median(loop["each"])
    assert found["arms"]["optimizer"]["ms_of_a_step"].keys() == {
        *("forward", "backward", "clip", "optimizer")
    }


def test_a_copy_in_bfloat16_gives_its_gradients_to_the_weights(tmp_path: Path) -> None:
    """They are those of the float32 student but for the precision of bfloat16."""
    plain = frozen(student(tmp_path))
    for module in plain.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    copy = frozen(plain)
    torch.nn.Module.to(copy.encoder, torch.bfloat16)
    ids = torch.randint(5, 60, (4, 9), generator=torch.Generator().manual_seed(0))
    batch = Batch(ids, torch.ones_like(ids), torch.tensor([0, 1, 1, 0]))
    layer = plain.get_parameter("bert.encoder.layer.0.output.dense.weight")
    torch.nn.functional.cross_entropy(plain(batch.ids, batch.mask), batch.gold).backward()
    assert layer.grad is not None
    wanted = layer.grad.clone()

    arm = Bare(student=copy, dtype=None, weights=plain)
    parts = arm.turn([batch, batch])

    assert parts.keys() == {"cast", "forward", "backward"}
    assert layer.grad.dtype == torch.float32
    assert float((layer.grad - wanted).norm() / wanted.norm()) == pytest.approx(0, abs=0.05)
