"""int8 answers nearly as fp32 does, and the same to a text in any batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from sentimill.errors import BundleError
from sentimill_train.export.acceptance import is_invariant
from sentimill_train.export.onnx import export_fp32, graph_logits, open_graph
from sentimill_train.export.quantization.int8 import int8_graph
from sentimill_train.export.quantization.weight_matmuls import find_weight_matmuls
from sentimill_train.model.student import load_student, save_student
from tiny_bundle import graph as tiny_graph
from train_parts import reviews, rows_of, student

ROWS = rows_of(reviews(300))


@pytest.fixture(scope="module")
def graph(loud_graph: bytes) -> bytes:
    """Return the graph that is quantized."""
    return loud_graph


def texts() -> list[NDArray[np.int64]]:
    """Return a few rows as a calibration takes them."""
    return [ROWS.ids[ROWS.starts[i] : ROWS.starts[i + 1]].astype(np.int64) for i in range(20)]


def test_every_product_of_the_encoder_is_whole_and_the_head_is_not(graph: bytes) -> None:
    """Two layers of six products each; no float weight of theirs is left in the file."""
    made = int8_graph(graph)
    model = onnx.load_model_from_string(made)

    operators = [node.op_type for node in model.graph.node]
    before = onnx.load_model_from_string(graph).graph
    assert operators.count("MatMulIntegerToFloat") == 12
    assert not {"Attention", "SkipLayerNormalization"} & set(operators)
    constants = {tensor.name for tensor in before.initializer}
    float_products = [n for n in model.graph.node if n.op_type in ("MatMul", "Gemm")]
    assert sum(n.input[1] in constants for n in float_products) == 1
    assert len(made) < len(graph)


def test_what_comes_out_of_a_gelu_is_counted_from_its_least_value(graph: bytes) -> None:
    """One such product a layer."""
    products = find_weight_matmuls(onnx.load_model_from_string(graph).graph)

    assert [product.one_sided for product in products] == [False, False, False, True] * 2


def test_it_says_nearly_what_fp32_says_and_more_nearly_when_it_has_seen_states(
    graph: bytes,
) -> None:
    """Within a twentieth of the spread of the logits."""
    fp32 = graph_logits(open_graph(graph), ROWS, 0)

    def moved(made: bytes) -> float:
        return float(np.abs(graph_logits(open_graph(made), ROWS, 0) - fp32).mean())

    blind, seen = moved(int8_graph(graph)), moved(int8_graph(graph, texts()))

    assert 0 < seen < blind < 0.05 * fp32.std(axis=0).max()


def test_a_channel_that_is_always_large_is_divided(tmp_path: Path) -> None:
    """Fifty times larger: about seven times; a channel that is never large is not blown up."""
    save_student(student(tmp_path / "base"), tmp_path / "saved")
    made = load_student(tmp_path / "saved")
    made.state_dict()["bert.embeddings.LayerNorm.weight"][3] *= 50
    save_student(made, tmp_path / "saved")
    data = export_fp32(tmp_path / "saved").data
    first = find_weight_matmuls(onnx.load_model_from_string(data).graph)[0]

    constants = onnx.load_model_from_string(int8_graph(data, texts())).graph.initializer

    (by,) = [numpy_helper.to_array(t) for t in constants if t.name == f"{first.x}_per_channel"]
    others = np.delete(by, 3)
    assert by.shape == (32,)
    assert 4 < np.median(others) / by[3] < 12
    assert others.max() / others.min() < 4


def test_values_can_stay_floats_with_weights_in_int8(graph: bytes) -> None:
    """Two of the twelve products are floats again, and the file is hardly larger."""
    whole, made = int8_graph(graph, texts()), int8_graph(graph, texts(), float_values=True)

    operators = [node.op_type for node in onnx.load_model_from_string(made).graph.node]
    assert operators.count("MatMulIntegerToFloat") == 10
    assert len(made) < 1.05 * len(whole)
    assert is_invariant(open_graph(made), ROWS, 0)
    fp32, found = (graph_logits(open_graph(data), ROWS, 0) for data in (graph, made))
    assert 0 < np.abs(found - fp32).mean() < 0.05 * fp32.std(axis=0).max()


def test_padding_is_left_out_of_attention_to_the_bit(graph: bytes) -> None:
    """Attention is given no mask: a wider head takes padded keys out, whatever ids they have."""
    run = open_graph(int8_graph(graph, texts()))
    ids = np.array([[2, 7, 9, 11, 0, 0, 0, 0], [2, 8, 5, 6, 7, 8, 9, 3]])
    mask = np.array([[1, 1, 1, 1, 0, 0, 0, 0], [1] * 8])
    other = ids.copy()
    other[0, 4:] = 13

    assert run(ids, mask)[0].tobytes() == run(other, mask)[0].tobytes()
    assert run(ids, np.ones_like(mask))[0].tobytes() != run(other, np.ones_like(mask))[0].tobytes()


def test_a_text_gets_the_same_bits_in_any_batch(graph: bytes) -> None:
    """Alone, shuffled among 31 others, two of them hostile, and padded as far as the longest."""
    assert is_invariant(open_graph(int8_graph(graph, texts())), ROWS, 0)


@pytest.mark.parametrize("tokens", [34, 67])
def test_a_text_whose_last_query_is_alone_in_its_block_gets_the_same_bits(
    graph: bytes, tokens: int
) -> None:
    """Queries go in blocks of 33 here, twice a head and one, and one alone is added up otherwise.

    Alone, and padded to three lengths with a text as long.
    """
    run = open_graph(int8_graph(graph, texts()))
    rng = np.random.default_rng(tokens)
    ids = rng.integers(1, 40, (1, tokens))
    alone = run(ids, np.ones_like(ids))[0]

    for width in (tokens + 1, tokens + 4, 128):
        both = np.zeros((2, width), np.int64)
        both[0, :tokens], both[1] = ids, rng.integers(1, 40, width)
        assert run(both, (both != 0).astype(np.int64))[0].tobytes() == alone.tobytes()


def test_each_layer_makes_up_for_its_own_steps(tmp_path: Path) -> None:
    """In an untrained student all biases are the same zeros, and the exporter keeps one of them."""
    save_student(student(tmp_path / "base"), tmp_path / "saved")
    made = onnx.load_model_from_string(int8_graph(export_fp32(tmp_path / "saved").data)).graph

    end = "output/dense/MatMul_output_0_bias"
    first, second = (numpy_helper.to_array(t) for t in made.initializer if t.name.endswith(end))
    assert not np.array_equal(first, second)


def test_attention_that_it_does_not_know_is_refused(graph: bytes) -> None:
    """One with a score a pair of tokens, for instance, would lose it silently."""
    model = onnx.load_model_from_string(graph)
    node = next(n for n in model.graph.node if n.op_type == "Attention")
    node.attribute.append(helper.make_attribute("unidirectional", 1))

    with pytest.raises(BundleError, match="unidirectional") as caught:
        int8_graph(model.SerializeToString())

    assert caught.value.reason == "ATTENTION_UNKNOWN"


def test_one_scale_for_a_whole_batch_is_found_out(graph: bytes, tmp_path: Path) -> None:
    """ONNX Runtime's own dynamic int8 changes bits with the batch, and the check says so."""
    from onnxruntime.quantization import quantize_dynamic

    source, target = tmp_path / "fp32.onnx", tmp_path / "int8.onnx"
    source.write_bytes(graph)
    quantize_dynamic(source, target, extra_options={"DefaultTensorType": TensorProto.FLOAT})

    assert not is_invariant(open_graph(target.read_bytes()), ROWS, 0)


def test_a_graph_without_products_is_refused() -> None:
    """There is nothing to rewrite, and a file that is called int8 and is not would be a lie."""
    with pytest.raises(BundleError) as caught:
        int8_graph(tiny_graph())

    assert caught.value.reason == "NOTHING_TO_QUANTISE"
