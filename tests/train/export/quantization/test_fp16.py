"""Smaller files say nearly the same: word vectors in int8, weights in fp16."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from safetensors.numpy import load, save

from sentimill_train.export.onnx import open_graph
from sentimill_train.export.quantization.fp16 import fp16_graph, round_to_fp16, weights_to_fp16
from tiny_bundle import graph


def tensors(data: bytes) -> dict[str, np.typing.NDArray[np.generic]]:
    """Return the constants of a graph."""
    found = onnx.load_model_from_string(data).graph.initializer
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in found}


def test_weights_are_kept_in_fp16_and_whole_numbers_as_they_are(tmp_path: Path) -> None:
    """The file is one that transformers reads: it says what it was made for."""
    floats, ids = np.array([1 / 3, -2.0], np.float32), np.arange(3)

    unused = {"bert.pooler.dense.weight": floats}
    data = weights_to_fp16(save({"weight": floats, "ids": ids, **unused}))

    made = load(data)
    assert made["weight"].dtype == np.float16
    assert np.allclose(made["weight"], floats, atol=1e-3)
    assert made["ids"].tolist() == [0, 1, 2]
    assert made.keys() == {"weight", "ids"}
    assert b'"format":"pt"' in data


def test_a_graph_can_be_run_with_what_fp16_keeps() -> None:
    """It still computes in float32; only its constants are those of fp16."""
    before, after = tensors(graph()), tensors(round_to_fp16(graph()))

    assert after["weights"].dtype == np.float32
    assert np.array_equal(after["weights"], before["weights"].astype(np.float16))
    assert after["last"].dtype == np.int64


def test_a_graph_in_fp16_takes_and_gives_what_the_other_does() -> None:
    """Ids in, float32 logits out; its weights are in fp16."""
    ids = np.array([[1, 4, 6, 2], [1, 5, 0, 0]])
    mask = (ids > 0).astype(np.int64)

    logits = open_graph(fp16_graph(graph()))(ids, mask)

    assert tensors(fp16_graph(graph()))["weights"].dtype == np.float16
    assert logits.dtype == np.float32
    assert np.allclose(logits, open_graph(graph())(ids, mask), atol=1e-2)
