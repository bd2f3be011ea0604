"""int8: whole numbers that say what the floats said, to a text the same in any company."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from sentimill.errors import BundleError
from sentimill_train.export import export_fp32, graph_logits, open_graph
from sentimill_train.precision_gate import is_invariant
from sentimill_train.quantise import int8_graph, quantise_weight
from sentimill_train.student import save_student
from train_parts import reviews, rows_of, student

ROWS = rows_of(reviews(300))


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return the fp32 graph of a tiny student with random weights."""
    folder = tmp_path_factory.mktemp("quantise")
    save_student(student(folder / "base"), folder / "saved")
    return export_fp32(folder / "saved").data


def test_a_weight_comes_back_within_half_a_step_a_column() -> None:
    """Each column has its own step, seven bits, and one of zeros stays zero."""
    draw = np.random.default_rng(0)
    weight = (draw.normal(size=(64, 5)) * [1e-3, 1, 10, 0, 1e3]).astype(np.float32)

    whole, scale = quantise_weight(weight)

    assert whole.dtype == np.int8
    assert np.abs(whole.astype(int)).max(axis=0).tolist() == [63, 63, 63, 0, 63]
    assert (np.abs(whole * scale - weight) <= scale * 0.5001).all()


def test_every_product_of_the_encoder_is_whole_and_the_head_is_not(graph: bytes) -> None:
    """Two layers of four products each; no float weight of theirs is left in the file."""
    model = onnx.load_model_from_string(int8_graph(graph))

    operators = [node.op_type for node in model.graph.node]
    before = onnx.load_model_from_string(graph).graph
    assert operators.count("MatMulIntegerToFloat") == 8
    assert "Attention" not in operators
    constants = {tensor.name for tensor in before.initializer}
    float_products = [n for n in model.graph.node if n.op_type in ("MatMul", "Gemm")]
    assert sum(n.input[1] in constants for n in float_products) == 1
    assert len(int8_graph(graph)) < len(graph)


def test_it_says_nearly_what_fp32_says(graph: bytes) -> None:
    """With random weights, whose logits lie close together, within a few hundredths of a logit."""
    fp32 = graph_logits(open_graph(graph), ROWS, 0)
    int8 = graph_logits(open_graph(int8_graph(graph)), ROWS, 0)

    assert 0 < np.abs(int8 - fp32).max() < 0.05 * np.abs(fp32).max() + 0.02


def test_a_text_gets_the_same_bits_in_any_company(graph: bytes) -> None:
    """Alone, shuffled among 31 others, two of them hostile, and padded as far as the longest."""
    assert is_invariant(open_graph(int8_graph(graph)), ROWS, 0)


def test_one_scale_for_a_whole_batch_is_found_out(graph: bytes, tmp_path: Path) -> None:
    """ONNX Runtime's own dynamic int8 changes bits with the company, and the check says so."""
    from onnxruntime.quantization import quantize_dynamic

    source, target = tmp_path / "fp32.onnx", tmp_path / "int8.onnx"
    source.write_bytes(graph)
    quantize_dynamic(source, target)

    assert not is_invariant(open_graph(target.read_bytes()), ROWS, 0)


def test_a_graph_without_fused_attention_is_refused() -> None:
    """There is nothing to rewrite, and a file that is called int8 and is not would be a lie."""
    from tiny import graph as tiny_graph

    with pytest.raises(BundleError) as caught:
        int8_graph(tiny_graph())

    assert caught.value.reason == "EXPORT_NOT_FUSED"
