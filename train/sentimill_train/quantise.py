"""int8: the encoder's weight products in whole numbers, with a scale of its own for every token.

Dynamic quantisation with one activation scale a tensor makes a text's answer hang on its batch
mates. Here each row of a product's input (one token's state) is scaled by its own largest value, so
what a text gets is its own to the bit, whatever stands beside it.

Three things keep the rounding small (docs/precisions.md): weights of eight bits that make up for
each other (`sentimill_train.rounding`); outliers of the states, which take the steps from all other
channels, moved into the weights (SmoothQuant, Xiao et al. 2023, equation 4, alpha 0.5); and what
comes out of a GELU, which is hardly ever negative, counted from its least value up.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from sentimill.errors import BundleError
from sentimill_train.rounding import round_weight
from sentimill_train.states import States, see_states

__all__ = ["Product", "find_products", "int8_graph"]

_MICROSOFT: Final = "com.microsoft"
_LEAST_CHANNEL: Final = 0.01
"""Of the mean over the channels: one that the texts never woke must not grow without bound."""
_GELU_LEAST: Final = -0.1702
"""Just below the least value of GELU, by erf or by tanh."""


@dataclass(frozen=True, slots=True)
class Product:
    """A product of states with a weight, by the names of *x*, *weight* and *output*.

    one_sided: *x* comes out of a GELU, and a norm with a bias of its own follows. attention: it
    gives queries, keys and values in one.
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
    norms = _norms(graph)
    found = [
        Product(
            x=node.input[0],
            weight=node.input[1],
            output=node.output[0],
            one_sided=made_by.get(node.input[0], "").endswith("Gelu") and node.output[0] in norms,
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


def int8_graph(
    fp32: bytes,
    texts: Iterable[NDArray[np.int64]] | None = None,
    *,
    float_attention: bool = False,
) -> bytes:
    """Return the graph *fp32* of `export_fp32` with its encoder's products in int8.

    Attention, norms, activations, embeddings and the head stay float32.

    texts: the ids (tokens,) of a few dozen reviews, to see what states look like; without them
    weights are rounded to the nearest, and outliers stay where they are. float_attention: queries,
    keys and values are computed in float32, from weights in int8: no larger a file, nearer to fp32,
    and less fast.

    Raises:
        BundleError: NOTHING_TO_QUANTISE.
    """
    model = onnx.load_model_from_string(fp32)
    graph = model.graph
    products = {product.output: product for product in find_products(graph)}
    inputs = list(dict.fromkeys(product.x for product in products.values()))
    made = _Rewriter(graph, {} if texts is None else see_states(fp32, inputs, texts))
    nodes: list[NodeProto] = []
    for node in graph.node:
        product = products.get(node.output[0])
        if product is None:
            nodes.append(node)
        elif product.attention and float_attention:
            nodes += [*made.stored(product), node]
        elif product.attention:
            nodes += made.attention(node, product)
        else:
            nodes += made.product(product, product.output)
    kept = [tensor for tensor in graph.initializer if tensor.name not in made.replaced]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend([*kept, *made.constants])
    data: bytes = model.SerializeToString()
    return data


def _norms(graph: GraphProto) -> dict[str, NodeProto]:
    """Return the norms that add a bias, by the product that they follow."""
    return {
        node.input[0]: node
        for node in graph.node
        if node.op_type == "SkipLayerNormalization" and len(node.input) == 5
    }


class _Rewriter:
    """Makes the nodes and constants that take the place of float products."""

    def __init__(self, graph: GraphProto, states: Mapping[str, States]) -> None:
        self._tensors = {tensor.name: tensor for tensor in graph.initializer}
        self._norms = _norms(graph)
        self._states = states
        self._divided_by: dict[str, NDArray[np.float32]] = {}
        self._scaled: set[str] = set()
        self.replaced: set[str] = set()
        self.constants: list[TensorProto] = []
        self._constant("int8_one", np.array(1, np.float32))
        self._constant("int8_smallest", np.array(1e-12, np.float32))  # a row of zeros stays one
        self._constant("int8_step", np.array(1 / 127, np.float32))
        # Half a step more than the zero point: the cast cuts, and so rounds.
        self._constant("int8_middle", np.array(128.5, np.float32))
        self._constant("int8_zero_point", np.array(128, np.uint8))
        self._constant("int8_none", np.array(0, np.int8))
        self._constant("int8_least", np.array(-_GELU_LEAST, np.float32))
        self._constant("int8_step_one_sided", np.array(1 / 255, np.float32))
        self._constant("int8_half", np.array(0.5, np.float32))
        self._constant("int8_zero_point_one_sided", np.array(0, np.uint8))

    def attention(self, node: NodeProto, product: Product) -> Iterator[NodeProto]:
        """Yield the product for queries, keys and values together, then attention over them."""
        _, _, bias, mask = node.input[:4]
        output = product.output
        heads = next(a.i for a in node.attribute if a.name == "num_heads")
        parts = [f"{output}_{part}" for part in ("query", "key", "value")]
        yield from self.product(product, f"{output}_all")
        yield _node("Split", [f"{output}_all"], parts, axis=-1)
        yield helper.make_node(
            "MultiHeadAttention",
            [*parts, bias, mask],
            [output],
            f"{output}_attention",
            domain=_MICROSOFT,
            num_heads=heads,
        )

    def stored(self, product: Product) -> Iterator[NodeProto]:
        """Yield what makes the weight again of int8, which ONNX Runtime does once, as it loads."""
        name, states = product.weight, self._states.get(product.x)
        weight = numpy_helper.to_array(self._tensors[name])
        self._whole(name, weight, states)
        yield _node("Cast", [f"{name}_int8"], [f"{name}_steps"], to=TensorProto.FLOAT)
        yield _node("Mul", [f"{name}_steps", f"{name}_scale"], [name])

    def product(self, product: Product, output: str) -> Iterator[NodeProto]:
        """Yield what computes *product* into *output*."""
        x, name = product.x, product.weight
        weight = numpy_helper.to_array(self._tensors[name])
        states = self._states.get(x)
        if states is not None and not product.one_sided:
            # Where two products share their input, the first one decides.
            by = self._divided_by.setdefault(x, _evening(states, weight))
            weight, states = weight * by[:, None], states.divided(by)
        rounded = self._whole(name, weight, states)
        if product.one_sided:
            self._shift(product, rounded)
        if x not in self._scaled:
            self._scaled.add(x)
            yield from self._one_sided(x) if product.one_sided else self._two_sided(x)
        zero_point = f"int8_zero_point{'_one_sided' if product.one_sided else ''}"
        yield helper.make_node(
            "MatMulIntegerToFloat",
            [f"{x}_uint8", f"{name}_int8", "int8_one", f"{name}_scale", zero_point, "int8_none"],
            [f"{output}_steps"],
            f"{output}_product",
            domain=_MICROSOFT,
        )
        yield _node("Mul", [f"{output}_steps", f"{x}_step"], [output])

    def _whole(
        self, name: str, weight: NDArray[np.float32], states: States | None
    ) -> NDArray[np.float32]:
        """Keep *weight* in int8 and a scale a column, and return what it is then."""
        whole, scale = round_weight(weight, None if states is None else states.moments)
        self.replaced.add(name)
        self._constant(f"{name}_int8", whole)
        self._constant(f"{name}_scale", scale)
        rounded: NDArray[np.float32] = whole.astype(np.float32) * scale
        return rounded

    def _shift(self, product: Product, weight: NDArray[np.float32]) -> None:
        """Take what counting from the least value up adds to every row out of the bias."""
        norm = self._norms[product.output]
        bias = numpy_helper.to_array(self._tensors[norm.input[4]])
        name = f"{norm.input[4]}_shifted"
        self._constant(name, (bias + _GELU_LEAST * weight.sum(axis=0)).astype(np.float32))
        norm.input[4] = name

    def _two_sided(self, x: str) -> Iterator[NodeProto]:
        """Yield what makes `x_uint8` of *x*, and `x_step` (rows, tokens, 1), what one step is."""
        even = x
        if x in self._divided_by:
            # In BERT the norm that made x cannot divide it, for x is also added to what comes
            # behind. This costs a hundredth of the product.
            even = f"{x}_even"
            self._constant(f"{x}_per_channel", (1 / self._divided_by[x]).astype(np.float32))
            yield _node("Mul", [x, f"{x}_per_channel"], [even])
        yield _node("Abs", [even], [f"{x}_abs"])
        yield _node("ReduceMax", [f"{x}_abs"], [f"{x}_largest"], axes=[-1], keepdims=1)
        yield _node("Max", [f"{x}_largest", "int8_smallest"], [f"{x}_most"])
        yield _node("Mul", [f"{x}_most", "int8_step"], [f"{x}_step"])
        yield _node("Reciprocal", [f"{x}_step"], [f"{x}_per_step"])
        yield _node("Mul", [even, f"{x}_per_step"], [f"{x}_in_steps"])
        yield _node("Add", [f"{x}_in_steps", "int8_middle"], [f"{x}_above_zero"])
        yield _node("Cast", [f"{x}_above_zero"], [f"{x}_uint8"], to=TensorProto.UINT8)

    def _one_sided(self, x: str) -> Iterator[NodeProto]:
        """Yield the same for *x* out of a GELU: steps from its least value to the row's largest."""
        yield _node("ReduceMax", [x], [f"{x}_largest"], axes=[-1], keepdims=1)
        yield _node("Add", [f"{x}_largest", "int8_least"], [f"{x}_most"])
        yield _node("Mul", [f"{x}_most", "int8_step_one_sided"], [f"{x}_step"])
        yield _node("Reciprocal", [f"{x}_step"], [f"{x}_per_step"])
        yield _node("Mul", [f"{x}_per_step", "int8_least"], [f"{x}_steps_of_least"])
        yield _node("Add", [f"{x}_steps_of_least", "int8_half"], [f"{x}_zero"])
        yield _node("Mul", [x, f"{x}_per_step"], [f"{x}_in_steps"])
        yield _node("Add", [f"{x}_in_steps", f"{x}_zero"], [f"{x}_above_zero"])
        yield _node("Cast", [f"{x}_above_zero"], [f"{x}_uint8"], to=TensorProto.UINT8)

    def _constant(self, name: str, value: NDArray[np.generic]) -> None:
        self.constants.append(numpy_helper.from_array(value, name))


def _evening(states: States, weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return what to divide each channel (inputs,) of *states* by, and multiply *weight* with."""
    largest, weights = (
        np.maximum(values, max(_LEAST_CHANNEL * float(values.mean()), 1e-12))
        for values in (states.largest, np.abs(weight).max(axis=1))
    )
    return np.sqrt(largest / weights).astype(np.float32)


def _node(
    operator: str,
    inputs: list[str],
    outputs: list[str],
    *,
    axes: list[int] | None = None,
    axis: int | None = None,
    keepdims: int | None = None,
    to: int | None = None,
) -> NodeProto:
    return helper.make_node(
        operator, inputs, outputs, outputs[0], axes=axes, axis=axis, keepdims=keepdims, to=to
    )
