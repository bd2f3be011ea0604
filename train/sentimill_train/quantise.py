"""int8: the encoder's weight products in whole numbers, with a scale of its own for every token.

Dynamic quantisation with one activation scale a tensor makes a text's answer hang on its batch
mates. Here each row of a product's input (one token's state) is scaled by its own largest value, so
what a text gets is its own to the bit, whatever stands beside it. Weights have a scale a column and
seven bits: without VNNI a CPU adds two products of eight bits in sixteen, which would overflow
(ONNX Runtime, "Quantize ONNX models", reduce_range).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from sentimill.errors import BundleError

__all__ = ["int8_graph", "quantise_weight"]

_MICROSOFT: Final = "com.microsoft"
_WEIGHT_MOST: Final = 63  # of seven bits with a sign
_ACTIVATION_MOST: Final = 127


def int8_graph(fp32: bytes) -> bytes:
    """Return the graph *fp32* of `export_fp32` with its encoder's products in int8.

    Attention, norms, activations, embeddings and the head stay float32: a head of a few columns
    costs nothing, and its rounding would show in every answer.

    Raises:
        BundleError: EXPORT_NOT_FUSED when the graph holds no fused attention to work on.
    """
    model = onnx.load_model_from_string(fp32)
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    products = [n for n in graph.node if n.op_type == "MatMul" and n.input[1] in weights]
    head = products[-1].name if products else ""
    if not any(node.op_type == "Attention" for node in graph.node):
        raise BundleError(
            "int8 needs a graph with fused attention, and this encoder's does not fuse: export it"
            " without int8",
            reason="EXPORT_NOT_FUSED",
        )
    made = _Rewriter(weights)
    nodes: list[NodeProto] = []
    for node in graph.node:
        if node.op_type == "Attention":
            nodes += made.attention(node)
        elif node.op_type == "MatMul" and node.input[1] in weights and node.name != head:
            nodes += made.product(node.input[0], node.input[1], node.output[0])
        else:
            nodes.append(node)
    kept = [tensor for name, tensor in weights.items() if name not in made.replaced]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend([*kept, *made.constants])
    data: bytes = model.SerializeToString()
    return data


def quantise_weight(
    weight: NDArray[np.float32],
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return *weight* (inputs, outputs) as whole numbers from -63 to 63 and a scale a column."""
    scale = np.abs(weight).max(axis=0) / _WEIGHT_MOST
    scale[scale == 0] = 1.0  # a column of zeros stays one
    return np.rint(weight / scale).astype(np.int8), scale.astype(np.float32)


class _Rewriter:
    """Makes the nodes and constants that take the place of float products."""

    def __init__(self, weights: Mapping[str, TensorProto]) -> None:
        self._weights = weights
        self._scaled: set[str] = set()
        self.replaced: set[str] = set()
        self.constants = [
            numpy_helper.from_array(value, f"int8_{name}")
            for name, value in (
                ("one", np.array(1, np.float32)),
                ("smallest", np.array(1e-12, np.float32)),  # a row of zeros stays one
                ("step", np.array(1 / _ACTIVATION_MOST, np.float32)),
                # Half a step more than the zero point: the cast cuts, and so rounds.
                ("middle", np.array(128.5, np.float32)),
                ("zero_point", np.array(128, np.uint8)),
                ("none", np.array(0, np.int8)),
            )
        ]

    def attention(self, node: NodeProto) -> Iterator[NodeProto]:
        """Yield the product for queries, keys and values together, then attention over them."""
        x, weight, bias, mask = node.input[:4]
        (output,) = node.output
        heads = next(a.i for a in node.attribute if a.name == "num_heads")
        parts = [f"{output}_{part}" for part in ("query", "key", "value")]
        yield from self.product(x, weight, f"{output}_all")
        yield helper.make_node("Split", [f"{output}_all"], parts, f"{output}_split", axis=-1)
        yield helper.make_node(
            "MultiHeadAttention",
            [*parts, bias, mask],
            [output],
            f"{output}_attention",
            domain=_MICROSOFT,
            num_heads=heads,
        )

    def product(self, x: str, weight: str, output: str) -> Iterator[NodeProto]:
        """Yield what computes *x* (rows, tokens, inputs) times *weight* into *output*."""
        whole, scale = quantise_weight(numpy_helper.to_array(self._weights[weight]))
        self.replaced.add(weight)
        self.constants.append(numpy_helper.from_array(whole, f"{weight}_int8"))
        self.constants.append(numpy_helper.from_array(scale, f"{weight}_scale"))
        yield from self._scale_rows(x)
        yield helper.make_node(
            "MatMulIntegerToFloat",
            [f"{x}_uint8", f"{weight}_int8", "int8_one", f"{weight}_scale"]
            + ["int8_zero_point", "int8_none"],
            [f"{output}_steps"],
            f"{output}_product",
            domain=_MICROSOFT,
        )
        yield helper.make_node("Mul", [f"{output}_steps", f"{x}_step"], [output], f"{output}_mul")

    def _scale_rows(self, x: str) -> Iterator[NodeProto]:
        """Yield what makes `x_uint8` of *x*, and `x_step` (rows, tokens, 1), what one step is."""
        if x in self._scaled:
            return
        self._scaled.add(x)
        for operator, inputs, output in (
            ("Abs", [x], f"{x}_abs"),
            ("ReduceMax", [f"{x}_abs"], f"{x}_max"),
            ("Max", [f"{x}_max", "int8_smallest"], f"{x}_most"),
            ("Mul", [f"{x}_most", "int8_step"], f"{x}_step"),
            ("Reciprocal", [f"{x}_step"], f"{x}_per_step"),
            ("Mul", [x, f"{x}_per_step"], f"{x}_in_steps"),
            ("Add", [f"{x}_in_steps", "int8_middle"], f"{x}_above_zero"),
            ("Cast", [f"{x}_above_zero"], f"{x}_uint8"),
        ):
            node = helper.make_node(operator, inputs, [output], output)
            if operator == "ReduceMax":
                node.attribute.extend(
                    [helper.make_attribute("axes", [-1]), helper.make_attribute("keepdims", 1)]
                )
            if operator == "Cast":
                node.attribute.append(helper.make_attribute("to", TensorProto.UINT8))
            yield node
