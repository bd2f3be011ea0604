"""Finds the MatMul and Attention nodes to quantize: products of activations with a weight."""

from __future__ import annotations

from dataclasses import dataclass

from onnx import GraphProto, NodeProto

from sentimill.errors import BundleError


@dataclass(frozen=True, slots=True)
class WeightMatMul:
    """A product of activations *x* with a *weight*; these and *output* are names of tensors.

    one_sided: *x* is the output of a GELU, and a bias is added to *output*. attention: the product
    is part of an Attention node and gives queries, keys and values at once.
    """

    x: str
    weight: str
    output: str
    one_sided: bool
    attention: bool


def find_weight_matmuls(graph: GraphProto) -> list[WeightMatMul]:
    """Return the encoder's products of activations and weights in their order, without the head.

    The head stays float32: its few columns cost nothing, and its rounding error would affect every
    answer.

    Raises:
        BundleError: NOTHING_TO_QUANTISE.
    """
    weights = {tensor.name for tensor in graph.initializer}
    made_by = {output: node.op_type for node in graph.node for output in node.output}
    biases = find_biases(graph)
    found = [
        WeightMatMul(
            x=node.input[0],
            weight=node.input[1],
            output=node.output[0],
            one_sided=made_by.get(node.input[0], "").endswith("Gelu") and node.output[0] in biases,
            attention=node.op_type == "Attention",
        )
        for node in graph.node
        if node.op_type in ("Attention", "MatMul") and node.input[1] in weights
    ]
    if len(found) < 2:
        raise BundleError(
            "the graph has no matrix products of activations and weights to quantize: give an"
            " encoder that `sentimill train` exported",
            reason="NOTHING_TO_QUANTISE",
        )
    return found[:-1]


def find_biases(graph: GraphProto) -> dict[str, tuple[NodeProto, int]]:
    """Return the Add nodes of a bias, with the input index of the bias, by the other input."""
    vectors = {tensor.name for tensor in graph.initializer if len(tensor.dims) == 1}
    return {
        node.input[1 - i]: (node, i)
        for node in graph.node
        if node.op_type == "Add"
        for i in range(2)
        if node.input[i] in vectors
    }
