"""Weights in eight bits: no sum of two overflows, and later rows make up for earlier ones."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from sentimill_train.export.quantization.gptq import quantize_weight


def normal(*shape: int) -> NDArray[np.float32]:
    """Return random values, a few of them large."""
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    values[6] *= 9
    return values


def moments_of(states: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the sum of x xᵀ."""
    return (states.T @ states).astype(np.float64)


def correlated(rows: int, channels: int) -> NDArray[np.float32]:
    """Return states that have a mean and move together, as those of an encoder do."""
    draw = np.random.default_rng(1)
    made = draw.normal(size=(rows, 8)) @ draw.normal(size=(8, channels))
    made += 2 * draw.normal(size=channels) + draw.normal(size=(rows, channels)) / 3
    return made.astype(np.float32)


def test_a_weight_comes_back_within_half_a_step_a_column() -> None:
    """Each column has its own step, and one of zeros stays zero."""
    weight = normal(64, 5) * np.array([1e-3, 1, 10, 0, 1e3], np.float32)

    whole, scale = quantize_weight(weight)

    assert whole.dtype == np.int8
    assert (np.abs(whole * scale - weight) <= scale * 0.5001).all()


@pytest.mark.parametrize("in_turn", [False, True])
def test_two_neighbours_of_one_sign_come_to_128_at_most(in_turn: bool) -> None:
    """That is what 16 bits hold with activations of 255; alone a weight may use eight bits."""
    moments = moments_of(correlated(300, 385)) if in_turn else None

    whole = quantize_weight(normal(385, 40), moments)[0].astype(int)

    pairs = whole[:384].reshape(-1, 2, 40)
    assert np.maximum(pairs, 0).sum(axis=1).max() <= 128
    assert np.maximum(-pairs, 0).sum(axis=1).max() <= 128
    assert 100 < np.abs(whole).max() <= 127


def test_rows_rounded_in_turn_lose_less_on_states_like_those_seen() -> None:
    """Less than half of what the nearest whole numbers lose, on states that were not seen."""
    states = correlated(1200, 200)
    weight = normal(200, 40)

    def lost(moments: NDArray[np.float64] | None) -> float:
        whole, scale = quantize_weight(weight, moments)
        return float(np.abs(states[600:] @ (whole * scale - weight)).mean())

    assert lost(moments_of(states[:600])) < lost(None) / 2


def integer_product(states: NDArray[np.uint8], weight: NDArray[np.int8]) -> NDArray[np.float32]:
    """Return what this machine's ONNX Runtime makes of the product, zero points of zero."""
    constants: dict[str, NDArray[np.generic]] = {
        "w": weight,
        "one": np.array(1, np.float32),
        "scale": np.ones(weight.shape[1], np.float32),
        "zero": np.array(0, np.uint8),
        "none": np.array(0, np.int8),
    }
    inputs = ["x", "w", "one", "scale", "zero", "none"]
    made = helper.make_graph(
        [helper.make_node("MatMulIntegerToFloat", inputs, ["y"], domain="com.microsoft")],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, ["rows", len(weight)])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", weight.shape[1]])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(made, opset_imports=opsets, ir_version=8)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    result: NDArray[np.float32] = session.run(None, {"x": states})[0]
    return result


@pytest.mark.parametrize("rows", [1, 2, 7, 80])
def test_the_worst_states_do_not_overflow_here(rows: int) -> None:
    """255 wherever a column is of one sign, nothing elsewhere: the sum is that of whole numbers."""
    whole = quantize_weight(normal(384, 40))[0]
    signs = np.concatenate([whole.T > 0, whole.T < 0])
    states = np.where(signs, 255, 0).astype(np.uint8)[:rows]

    expected = states.astype(int) @ whole.astype(int)

    assert np.array_equal(integer_product(states, whole), expected)
