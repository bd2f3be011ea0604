"""What of an encoder's graph int8 takes the place of: its products of states and weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from onnx import GraphProto, NodeProto, helper

from sentimill.errors import BundleError

__all__ = ["Product", "find_biases", "find_products", "make_node", "unfuse_norms"]


@dataclass(frozen=True, slots=True)
class Product:
    """A product of states with a weight, by the names of *x*, *weight* and *output*.

    one_sided: *x* comes out of a GELU, and a bias is added to *output*. attention: it gives
    queries, keys and values in one.
    """

    x: str
    weight: str
    output: str
    one_sided: bool
    attention: bool


def find_products(graph: GraphProto) -> list[Product]:
    """Return the encoder's products of states and weights, without the head, in their order.

    The head stays float32: a few columns cost nothing, and its rounding would show in every answer.

    Raises:
        BundleError: NOTHING_TO_QUANTISE.
    """
    weights = {tensor.name for tensor in graph.initializer}
    made_by = {output: node.op_type for node in graph.node for output in node.output}
    biases = find_biases(graph)
    found = [
        Product(
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
            "the graph has no products of states and weights to make int8 of: it is no encoder"
            " that `sentimill train` exports",
            reason="NOTHING_TO_QUANTISE",
        )
    return found[:-1]


def unfuse_norms(graph: GraphProto) -> None:
    """Write each norm that is fused with the sums before it as what it computes.

    `export_fp32` does not fuse them, other exporters do. A CPU takes a quarter of the time so.
    """
    nodes: list[NodeProto] = []
    for node in graph.node:
        nodes += _unfused(node) if node.op_type == "SkipLayerNormalization" else [node]
    del graph.node[:]
    graph.node.extend(nodes)


def _unfused(node: NodeProto) -> Iterator[NodeProto]:
    output, x, skip, *norm = node.output[0], *node.input
    for other in [*norm[2:], skip]:
        added = f"{output}_and_{other}"
        yield make_node("Add", [x, other], [added])
        x = added
    epsilon = next(a.f for a in node.attribute if a.name == "epsilon")
    yield make_node("LayerNormalization", [x, *norm[:2]], [output], axis=-1, epsilon=epsilon)


def find_biases(graph: GraphProto) -> dict[str, tuple[NodeProto, int]]:
    """Return the sums that add a bias, and which input that is, by what it is added to."""
    vectors = {tensor.name for tensor in graph.initializer if len(tensor.dims) == 1}
    return {
        node.input[1 - i]: (node, i)
        for node in graph.node
        if node.op_type == "Add"
        for i in range(2)
        if node.input[i] in vectors
    }


def make_node(operator: str, inputs: list[str], outputs: list[str], **attributes: Any) -> NodeProto:
    """Return a node that has the name of its first output."""
    return helper.make_node(operator, inputs, outputs, outputs[0], **attributes)
