"""Encoders of every family that is promised are trained and exported as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModel,
    BertConfig,
    CamembertConfig,
    DistilBertConfig,
    ModernBertConfig,
    MPNetConfig,
    PreTrainedConfig,
    RobertaConfig,
    XLMRobertaConfig,
)

from sentimill_train.export.acceptance import is_invariant
from sentimill_train.export.onnx import PARITY_LIMIT, export_fp32, graph_logits, open_graph
from sentimill_train.export.quantization.int8 import int8_graph
from sentimill_train.model.pretrained import find_pretrained
from sentimill_train.model.student import new_student, pad_id_of, positions_of, save_student
from sentimill_train.training.loop import FitConfig, fit
from train_parts import TWO, VOCABULARY, reviews, rows_of, tokenizer_json

SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
FAMILIES: dict[str, PreTrainedConfig] = {
    "bert": BertConfig(**SIZES, max_position_embeddings=256),
    "roberta": RobertaConfig(**SIZES, max_position_embeddings=258),
    "distilbert": DistilBertConfig(
        vocab_size=VOCABULARY,
        dim=32,
        n_layers=2,
        n_heads=2,
        hidden_dim=64,
        max_position_embeddings=256,
    ),
    "mpnet": MPNetConfig(**SIZES, max_position_embeddings=258, pad_token_id=1),
    "modernbert": ModernBertConfig(
        **SIZES,
        max_position_embeddings=256,
        pad_token_id=0,
        cls_token_id=2,
        sep_token_id=3,
        bos_token_id=2,
        eos_token_id=3,
    ),
}


@pytest.mark.parametrize("config", [RobertaConfig, XLMRobertaConfig, CamembertConfig, MPNetConfig])
def test_positions_after_the_padding_are_not_counted(config: Any) -> None:
    """A text that needs more of them would stop the training."""
    made = config(**SIZES, max_position_embeddings=514, pad_token_id=1)

    assert positions_of(made) == 512


@pytest.mark.parametrize("family", FAMILIES)
def test_a_checkpoint_is_trained_and_its_graph_says_what_torch_says(
    tmp_path: Path, family: str
) -> None:
    """From a folder of three plain files; every layer learns."""
    torch.manual_seed(1)
    AutoModel.from_config(FAMILIES[family]).save_pretrained(tmp_path / "base")
    (tmp_path / "base" / "tokenizer.json").write_bytes(tokenizer_json())
    base = find_pretrained(str(tmp_path / "base"))
    made = new_student("minilm-l6", base, TWO, vocabulary=VOCABULARY)
    before = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    rows = rows_of(reviews(16))

    found = fit(made, rows, rows, FitConfig(epochs=1, batch_tokens=1024, learning_rate=1e-2))
    save_student(made, tmp_path / "saved")

    assert (found.steps, positions_of(made.config)) == (2, 256)
    trained = [n for n, p in made.named_parameters() if not torch.equal(p, before[n])]
    assert {"head.weight", "head.bias"} < set(trained)
    assert any(".0." in name for name in trained)
    exported = export_fp32(tmp_path / "saved")
    assert exported.max_logit_difference <= PARITY_LIMIT
    pad_id = pad_id_of(made.config)
    int8 = open_graph(int8_graph(exported.data))
    fp32, close = (graph_logits(run, rows, pad_id) for run in (exported.run, int8))
    assert 0 < np.abs(close - fp32).max() < 0.02 * fp32.std(axis=0).max()
    assert is_invariant(int8, rows, pad_id)
