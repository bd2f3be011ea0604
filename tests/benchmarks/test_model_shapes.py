"""The operations formula and the large model's shortcuts, against torch itself on a tiny shape."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, BertModel

from benchmarks.proof.decoder import Decoder, make_random
from benchmarks.proof.prompts import PROMPTS
from benchmarks.proof.shapes import DECODERS, MINILM_L6

TINY = DECODERS["tiny"]


def words(text: str) -> list[int]:
    """Tokenise by word, by a hash that is the same in every process."""
    return [zlib.crc32(word.encode()) for word in text.split()]


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    """Return a tiny decoder with random weights, in fp32 so that sums compare closely."""
    torch.manual_seed(0)
    loaded = make_random(TINY, words, dtype=torch.float32, device="cpu")
    return Decoder(loaded, PROMPTS["zero-shot"])


def test_a_shared_instruction_gives_the_same_answer_as_reading_it_anew(decoder: Decoder) -> None:
    """The cached prefix, right padding and the single output row change no probability."""
    texts = ["Broke on day two.", "It is blue.", "A joy, every morning, and it was cheap too."]
    found = decoder.classify(texts)
    for text, probs in zip(texts, found, strict=True):
        ids = torch.tensor([decoder._before + decoder.rows([text])[0]])
        with torch.inference_mode():
            logits = decoder._model(input_ids=ids).logits[0, -1, decoder._label_ids]
        np.testing.assert_allclose(probs, logits.softmax(-1).numpy(), atol=1e-5)


def test_the_decoders_matrix_operations_are_those_that_torch_counts(decoder: Decoder) -> None:
    """Formula without attention against the counter's matrix products; exact."""
    rows = decoder.rows(["x " * 40])
    with FlopCounterMode(display=False) as counter:
        decoder.forward(rows)
    by_name = {str(name): count for name, count in counter.get_flop_counts()["Global"].items()}
    products = sum(count for name, count in by_name.items() if "mm" in name)
    tokens = len(rows[0])
    attention = TINY.flops(cached=0, tokens=0, answers=0)
    expected = 2.0 * TINY.layer_weights * tokens + 2.0 * TINY.hidden * TINY.vocabulary
    assert attention == 0
    assert products == expected


def test_attention_counts_every_pair_of_a_token_and_what_it_sees() -> None:
    """Three tokens after ten cached see 11, 12 and 13 keys: 4d a pair and layer."""
    matrices = 2.0 * TINY.layer_weights * 3
    found = TINY.flops(cached=10, tokens=3, answers=0) - matrices
    assert found == 4 * TINY.hidden * TINY.layers * (11 + 12 + 13)


def test_the_encoders_operations_are_those_that_torch_counts() -> None:
    """MiniLM's shape over 32 tokens: the formula is within 1 % of torch's counter."""
    config = BertConfig(
        hidden_size=384,
        num_hidden_layers=6,
        num_attention_heads=12,
        intermediate_size=1536,
    )
    config._attn_implementation = "eager"
    model = BertModel(config, add_pooling_layer=False)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(input_ids=torch.ones((1, 32), dtype=torch.long))
    assert counter.get_total_flops() == pytest.approx(MINILM_L6.flops(32), rel=0.01)


def test_the_named_shapes_have_the_sizes_of_their_names() -> None:
    """Weights by the shape's own numbers: 0.494, 1.54 and 8.03 thousand million."""
    sizes = {name: shape.weights / 1e9 for name, shape in DECODERS.items()}
    assert sizes["0.5B"] == pytest.approx(0.494, abs=0.001)
    assert sizes["1.5B"] == pytest.approx(1.544, abs=0.001)
    assert sizes["8B"] == pytest.approx(8.03, abs=0.01)
