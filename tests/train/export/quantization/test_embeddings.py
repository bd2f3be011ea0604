"""Tables of word vectors and positions, made smaller on disk."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from sentimill.errors import BundleError
from sentimill_train.export.onnx import open_graph
from sentimill_train.export.quantization.embeddings import quantize_embeddings, trim_positions
from tiny_bundle import graph


def tensors(data: bytes) -> dict[str, np.typing.NDArray[np.generic]]:
    """Return the constants of a graph."""
    found = onnx.load_model_from_string(data).graph.initializer
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in found}


def test_word_vectors_come_back_within_half_a_step_a_word() -> None:
    """A word of zeros stays one, and the table of floats is gone from the file."""
    before = tensors(graph())["weights"].astype(np.float32)
    made = tensors(quantize_embeddings(graph()))

    assert "weights" not in made
    assert made["weights_int8"].dtype == np.int8
    back = made["weights_int8"].astype(np.float32) * made["weights_scale"].astype(np.float32)
    assert np.abs(back - before).max() <= np.abs(before).max() / 127 / 2
    assert not back[before.any(axis=1) == 0].any()


def test_a_graph_with_small_word_vectors_answers_the_same() -> None:
    """The weights of the tiny graph are whole thirds of a step, so nothing is lost at all."""
    ids = np.array([[1, 4, 6, 2], [1, 5, 0, 0]])
    mask = (ids > 0).astype(np.int64)

    before, after = (
        open_graph(data)(ids, mask) for data in (graph(), quantize_embeddings(graph()))
    )

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

    assert np.array_equal(tensors(trim_positions(data, 4))[name], table[:6])
    assert np.array_equal(
        tensors(trim_positions(graph(), 4))["weights"], tensors(graph())["weights"]
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
        quantize_embeddings(helper.make_model(made).SerializeToString())

    assert caught.value.reason == "NO_EMBEDDINGS"
