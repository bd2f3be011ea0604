"""Smaller files say nearly the same: word vectors in int8, weights in fp16."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load, save

from sentimill.errors import BundleError
from sentimill_train.export.onnx import open_graph
from sentimill_train.export.quantization.fp16 import (
    fp16_graph,
    half_graph,
    half_weights,
    short_positions,
    small_embeddings,
)
from tiny_bundle import graph


def tensors(data: bytes) -> dict[str, np.typing.NDArray[np.generic]]:
    """Return the constants of a graph."""
    found = onnx.load_model_from_string(data).graph.initializer
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in found}


def test_word_vectors_come_back_within_half_a_step_a_word() -> None:
    """A word of zeros stays one, and the table of floats is gone from the file."""
    before = tensors(graph())["weights"].astype(np.float32)
    made = tensors(small_embeddings(graph()))

    assert "weights" not in made
    assert made["weights_int8"].dtype == np.int8
    back = made["weights_int8"].astype(np.float32) * made["weights_scale"].astype(np.float32)
    assert np.abs(back - before).max() <= np.abs(before).max() / 127 / 2
    assert not back[before.any(axis=1) == 0].any()


def test_a_graph_with_small_word_vectors_answers_the_same() -> None:
    """The weights of the tiny graph are whole thirds of a step, so nothing is lost at all."""
    ids = np.array([[1, 4, 6, 2], [1, 5, 0, 0]])
    mask = (ids > 0).astype(np.int64)

    before, after = (open_graph(data)(ids, mask) for data in (graph(), small_embeddings(graph())))

    assert np.allclose(before, after, atol=1e-6)


def test_only_positions_that_are_read_are_kept() -> None:
    """Two more than the longest text, for families that count from behind their padding id."""
    value = helper.make_tensor_value_info
    table = np.arange(20, dtype=np.float32).reshape(10, 2)
    name = "bert.embeddings.position_embeddings.weight"
    made = helper.make_graph(
        [helper.make_node("Gather", [name, "places"], ["out"])],
        "positions",
        [value("places", TensorProto.INT64, ["rows"])],
        [value("out", TensorProto.FLOAT, ["rows", 2])],
        [numpy_helper.from_array(table, name)],
    )
    data = helper.make_model(made).SerializeToString()

    assert np.array_equal(tensors(short_positions(data, 4))[name], table[:6])
    assert np.array_equal(
        tensors(short_positions(graph(), 4))["weights"], tensors(graph())["weights"]
    )


def test_a_graph_that_looks_nothing_up_is_refused() -> None:
    """There is nothing to make smaller."""
    made = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "nothing",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )

    with pytest.raises(BundleError) as caught:
        small_embeddings(helper.make_model(made).SerializeToString())

    assert caught.value.reason == "NO_EMBEDDINGS"


def test_weights_are_kept_in_fp16_and_whole_numbers_as_they_are(tmp_path: Path) -> None:
    """The file is one that transformers reads: it says what it was made for."""
    floats, ids = np.array([1 / 3, -2.0], np.float32), np.arange(3)

    unused = {"bert.pooler.dense.weight": floats}
    data = half_weights(save({"weight": floats, "ids": ids, **unused}))

    made = load(data)
    assert made["weight"].dtype == np.float16
    assert np.allclose(made["weight"], floats, atol=1e-3)
    assert made["ids"].tolist() == [0, 1, 2]
    assert made.keys() == {"weight", "ids"}
    assert b'"format":"pt"' in data


def test_a_graph_can_be_run_with_what_fp16_keeps() -> None:
    """It still computes in float32; only its constants are those of fp16."""
    before, after = tensors(graph()), tensors(half_graph(graph()))

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
