"""int8 quantization of the encoder's matrix products with weights, with a scale for every token.

Usual dynamic quantization has one activation scale for a whole tensor, so the answer to a text
depends on the other texts of its batch. Here each row of an input, the activations of one token, is
scaled by its own largest value. So a text gets the same bits in any batch.

Three methods keep the rounding error small (docs/precisions.md). GPTQ rounds the weights (`gptq`).
SmoothQuant (Xiao et al. 2023, equation 4, alpha 0.5) moves outliers of the activations into the
weights, because an outlier makes the steps of all other channels wide. Outputs of GELU, which are
hardly ever negative, are quantized from their least value up.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, TypeVar

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, numpy_helper
from onnx.helper import make_node

from sentimill.errors import BundleError
from sentimill_train.export.quantization.activation_stats import (
    ActivationStats,
    collect_activation_stats,
)
from sentimill_train.export.quantization.gptq import quantize_weight
from sentimill_train.export.quantization.weight_matmuls import (
    WeightMatMul,
    find_biases,
    find_weight_matmuls,
)

_MICROSOFT: Final = "com.microsoft"
_LEAST_CHANNEL: Final = 0.01
"""The least size of a channel, as a share of the mean: unused channels must not be scaled up."""
_T = TypeVar("_T", bound=np.generic)
_MASK: Final = "attention_mask"
_UNSEEN: Final = -1e4
"""The number added to a product of query and key at padding. Divided by the root of the channels
(-1,768 at 32, -884 at 128) it is far below -104, and e to the -104 is 0 in float32."""
_GELU_LEAST: Final = -0.1702
"""Just below the least value of GELU, by erf or by tanh."""


def int8_graph(
    fp32: bytes, texts: Iterable[NDArray[np.int64]] | None = None, *, float_values: bool = False
) -> bytes:
    """Return the graph *fp32* of `export_fp32` with the encoder's products with weights in int8.

    The products inside attention, norms, activations, embeddings and the head stay float32.

    texts: the ids (tokens,) of a few dozen reviews, for the statistics of the activations. Without
    them weights are rounded to the nearest step, and outliers stay. float_values: the values of
    attention, which go directly into its output, are computed in float32 from weights in int8. The
    file is as small, the answers are closer to fp32, and the graph is a little slower.

    Raises:
        BundleError: NOTHING_TO_QUANTISE, or ATTENTION_UNKNOWN.
    """
    model = onnx.load_model_from_string(fp32)
    graph = model.graph
    products = {product.output: product for product in find_weight_matmuls(graph)}
    inputs = list(dict.fromkeys(product.x for product in products.values()))
    made = _Rewriter(graph, {} if texts is None else collect_activation_stats(fp32, inputs, texts))
    nodes: list[NodeProto] = []
    for node in graph.node:
        product = products.get(node.output[0])
        if product is not None and product.attention:
            nodes += made.attention(node, product, float_values=float_values)
        elif product is not None:
            nodes += made.product(product)
        else:
            nodes.append(node)
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend([*kept, *made.constants.values()])
    data: bytes = model.SerializeToString()
    return data


class _Rewriter:
    """Creates the nodes and constants that replace float products."""

    def __init__(self, graph: GraphProto, states: Mapping[str, ActivationStats]) -> None:
        self._tensors = {tensor.name: tensor for tensor in graph.initializer}
        self._biases = find_biases(graph)
        self._states = states
        self._divided_by: dict[str, NDArray[np.float32]] = {}
        self._quantized: set[str] = set()
        self.constants: dict[str, TensorProto] = {}
        self._one = self._constant("int8_one", np.array(1, np.float32))
        self._last = self._constant("int8_last", np.array([-1], np.int64))

    def product(self, product: WeightMatMul) -> Iterator[NodeProto]:
        """Yield the nodes that compute *product*."""
        whole, scale = self._round(product)
        if product.one_sided:
            self._shift(product, whole.astype(np.float32) * scale)
        yield from self._quantize(product)
        yield from self._multiply(product, whole, scale, product.output)

    def attention(
        self, node: NodeProto, product: WeightMatMul, *, float_values: bool
    ) -> Iterator[NodeProto]:
        """Yield three products, for queries, keys and values, then attention over them.

        Without a mask, MultiHeadAttention on the CPU works in blocks that stay in a core's cache,
        and takes two thirds of the time. So the mask is put into one more channel of each head: a
        query has 1 there, and a key 0, or a large negative number if its token is padding.

        If the last block has only one query, its sums are added in another order than with more. So
        one query is appended, and its output is cut off: then no other query is ever alone.
        """
        _only(node)
        output, bias = product.output, self._array(node.input[2])
        heads = next(a.i for a in node.attribute if a.name == "num_heads")
        wide = bias.shape[0] // 3 // heads
        whole, scale = self._round(product)
        yield from self._quantize(product)
        yield from self._unseen_keys(heads, wide)
        query, key, value = parts = [f"{output}_{part}" for part in ("query", "key", "value")]
        biases: list[NDArray[np.float32]] = []
        split = (np.split(each, 3, axis=-1) for each in (whole, scale, bias))
        for part, steps, scales, vector in zip(parts, *split, strict=True):
            more = 0 if part == value else 1
            of = _wider(steps, heads, more, 0), _wider(scales, heads, more, 1)
            biases.append(_wider(vector, heads, more, 1 if part == query else 0))
            if part == value and float_values:
                # ONNX Runtime computes the weight as it loads the graph.
                weight = self._weight(part, *of)
                floats, restored = f"{part}_steps", f"{part}_weight"
                yield make_node("Cast", weight[:1], [floats], to=TensorProto.FLOAT)
                yield make_node("Mul", [floats, weight[1]], [restored])
                yield make_node("MatMul", [self._evened(product.x), restored], [part])
            else:
                yield from self._multiply(product, *of, part)
        all_biases = self._constant(f"{output}_bias", np.concatenate(biases))
        one_query = self._constant("int8_one_query", np.array([0, 0, 0, 0, 1, 0], np.int64))
        yield make_node("Add", [key, "int8_unseen"], [f"{key}_seen"])
        yield make_node("Pad", [query, one_query], [f"{query}_and_one"])
        yield make_node(
            "MultiHeadAttention",
            [f"{query}_and_one", f"{key}_seen", value, all_biases],
            [f"{output}_and_one"],
            domain=_MICROSOFT,
            num_heads=heads,
            scale=wide**-0.5,
        )
        first = self._constant("int8_first", np.array([0], np.int64))
        tokens = self._constant("int8_axis_of_tokens", np.array([1], np.int64))
        yield make_node("Slice", [f"{output}_and_one", first, self._last, tokens], [output])

    def _unseen_keys(self, heads: int, wide: int) -> Iterator[NodeProto]:
        """Yield, once, the nodes of the mask (rows, tokens, heads * (wide + 1)) to add to keys."""
        if "int8_unseen_channels" in self.constants:
            return
        channels = _wider(np.zeros(heads * wide, np.float32), heads, 1, _UNSEEN)
        name = self._constant("int8_unseen_channels", channels)
        yield make_node("Unsqueeze", [_MASK, self._last], ["int8_mask"])
        yield make_node("Cast", ["int8_mask"], ["int8_mask_float"], to=TensorProto.FLOAT)
        yield make_node("Sub", [self._one, "int8_mask_float"], ["int8_padding"])
        yield make_node("Mul", ["int8_padding", name], ["int8_unseen"])

    def _multiply(
        self,
        product: WeightMatMul,
        whole: NDArray[np.int8],
        scale: NDArray[np.float32],
        output: str,
    ) -> Iterator[NodeProto]:
        """Yield the nodes of the int8 product of x with *whole*, and of its scaling to float32."""
        x, side = product.x, "_one_sided" if product.one_sided else ""
        zero = np.array(0 if product.one_sided else 128, np.uint8)
        zero_point = self._constant(f"int8_zero_point{side}", zero)
        none = self._constant("int8_none", np.array(0, np.int8))
        weight, weight_scale = self._weight(output, whole, scale)
        yield make_node(
            "MatMulIntegerToFloat",
            [f"{x}_uint8", weight, self._one, weight_scale, zero_point, none],
            [f"{output}_steps"],
            domain=_MICROSOFT,
        )
        yield make_node("Mul", [f"{output}_steps", f"{x}_step"], [output])

    def _weight(self, name: str, whole: NDArray[np.int8], scale: NDArray[np.float32]) -> list[str]:
        """Store a weight in int8 with a scale for each column, and return their names."""
        return [
            self._constant(f"{name}_weight_int8", whole),
            self._constant(f"{name}_weight_scale", scale),
        ]

    def _round(self, product: WeightMatMul) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
        """Move outliers of x into the weight; return it in int8, and a scale for each column."""
        x, weight = product.x, self._array(product.weight)
        states = self._states.get(x)
        if states is None:
            return quantize_weight(weight)
        if product.one_sided:
            return quantize_weight(weight, states.moments)
        # If two products share their input, the first one decides.
        by = self._divided_by.setdefault(x, _evening(states, weight))
        wide = by.astype(np.float64)
        return quantize_weight(weight * by[:, None], states.moments / np.outer(wide, wide))

    def _evened(self, x: str) -> str:
        return f"{x}_even" if x in self._divided_by else x

    def _shift(self, product: WeightMatMul, weight: NDArray[np.float32]) -> None:
        """Correct the bias, because x is quantized as its distance from the least value of GELU."""
        added, place = self._biases[product.output]
        bias = self._array(added.input[place])
        shifted = (bias + _GELU_LEAST * weight.sum(axis=0)).astype(np.float32)
        # The new bias has its own name, because products may share a bias.
        added.input[place] = self._constant(f"{product.output}_bias", shifted)

    def _quantize(self, product: WeightMatMul) -> Iterator[NodeProto]:
        """Yield the nodes that compute `x_uint8` from x, and `x_step` (rows, tokens, 1), its scale.

        QuantizeLinear has a scale for each index of one axis, so all tokens form one axis there.
        """
        x = product.x
        if x in self._quantized:
            return
        self._quantized.add(x)
        even = self._evened(x)
        scales = [f"{x}_tokens", f"{x}_scales"]
        if product.one_sided:
            # The range is from the least value of GELU to the largest of the row. A zero point for
            # each row would be rounded, with the same error in every channel, which adds up.
            least = self._constant("int8_least", np.array(-_GELU_LEAST, np.float32))
            step = self._constant("int8_step_one_sided", np.array(1 / 255, np.float32))
            even = f"{x}_above_least"
            yield make_node("Add", [x, least], [even])
            yield make_node("ReduceMax", [even], [f"{x}_most"], axes=[-1], keepdims=1)
        else:
            # A row of zeros stays zero.
            smallest = self._constant("int8_smallest", np.array(1e-12, np.float32))
            step = self._constant("int8_step", np.array(1 / 127, np.float32))
            if x in self._divided_by:
                # In BERT the division cannot be moved into the norm before it, because x is also
                # added to a later state. It costs a hundredth of the product.
                inverse = (1 / self._divided_by[x]).astype(np.float32)
                yield make_node("Mul", [x, self._constant(f"{x}_per_channel", inverse)], [even])
            yield make_node("ReduceMax", [even], [f"{x}_largest"], axes=[-1], keepdims=1)
            yield make_node("ReduceMin", [even], [f"{x}_least"], axes=[-1], keepdims=1)
            yield make_node("Neg", [f"{x}_least"], [f"{x}_below"])
            yield make_node("Max", [f"{x}_largest", f"{x}_below", smallest], [f"{x}_most"])
        channels = len(self._array(product.weight))
        shape = self._constant(f"int8_tokens_of_{channels}", np.array([-1, channels], np.int64))
        yield make_node("Mul", [f"{x}_most", step], [f"{x}_step"])
        yield make_node("Shape", [x], [f"{x}_shape"])
        yield make_node("Reshape", [even, shape], scales[:1])
        yield make_node("Reshape", [f"{x}_step", self._last], scales[1:])
        if not product.one_sided:
            yield make_node("Shape", scales[1:], [f"{x}_count"])
            middle = numpy_helper.from_array(np.array([128], np.uint8))
            yield make_node("ConstantOfShape", [f"{x}_count"], [f"{x}_zero_points"], value=middle)
            scales.append(f"{x}_zero_points")
        yield make_node("QuantizeLinear", scales, [f"{x}_whole"], axis=0)
        yield make_node("Reshape", [f"{x}_whole", f"{x}_shape"], [f"{x}_uint8"])

    def _array(self, name: str) -> NDArray[np.float32]:
        return numpy_helper.to_array(self._tensors[name])

    def _constant(self, name: str, value: NDArray[np.generic]) -> str:
        """Store a constant, unless it is stored already, and return its name."""
        self.constants.setdefault(name, numpy_helper.from_array(value, name))
        return name


def _only(node: NodeProto) -> None:
    """Raise BundleError ATTENTION_UNKNOWN unless *node* is attention of a plain encoder."""
    known = {"num_heads", "mask_filter_value"}
    more = sorted({attribute.name for attribute in node.attribute} - known)
    if more or any(node.input[4:]):
        raise BundleError(
            f"attention {node.name!r} has {more or 'more inputs'}, which int8 does not support:"
            " use the fp32 bundle",
            reason="ATTENTION_UNKNOWN",
        )


def _wider(values: NDArray[_T], heads: int, more: int, value: float) -> NDArray[_T]:
    """Return *values* (..., heads * channels) with *more* channels of *value* after each head."""
    split = values.reshape(*values.shape[:-1], heads, -1)
    widths = [(0, 0)] * (split.ndim - 1) + [(0, more)]
    wide: NDArray[_T] = np.pad(split, widths, constant_values=value)
    return wide.reshape(*values.shape[:-1], -1)


def _evening(states: ActivationStats, weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the divisor (inputs,) of each channel of *states*, which multiplies *weight*."""
    largest, weights = (
        np.maximum(values, max(_LEAST_CHANNEL * float(values.mean()), 1e-12))
        for values in (states.largest, np.abs(weight).max(axis=1))
    )
    return np.sqrt(largest / weights).astype(np.float32)
