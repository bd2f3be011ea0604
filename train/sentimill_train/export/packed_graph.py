"""Rewrites a graph so that it computes no padding: the tokens of all texts stand in one sequence.

ONNX Runtime has such attention (PackedMultiHeadAttention) on CUDA devices only. So a bundle with an
fp16 graph also has its packed form, for GPUs. The words are looked up in (rows, tokens) as before.
The tokens of texts are gathered from there, and behind the last norm they are put back, with zeros
in between.

PackedMultiHeadAttention adds no bias, and needs none. The bias of the keys adds one number to all
scores of a query, and softmax cancels it. The bias of the values passes through the attention
unchanged, because its weights sum to 1. It is added to the bias of the projection that follows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Final

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

_MS: Final = "com.microsoft"
_TOKENWISE: Final = ("Add", "BiasGelu", "FastGelu", "SkipLayerNormalization")
"""Operators besides MatMul and Attention that may stand between the embeddings and the last norm.
The result of each for a token depends on that token alone."""
_NEW_INPUTS: Final = {
    "token_positions": (TensorProto.INT64, ["n"]),
    "token_offset": (TensorProto.INT32, ["rows", "tokens"]),
    "cumulative_lengths": (TensorProto.INT32, ["ends"]),
}
"""See `sentimill.engine.onnx_cuda.packed_feeds`."""


class _UnknownGraphError(Exception):
    """This module cannot rewrite the graph."""


def pack_graph(data: bytes) -> bytes | None:
    """Return the graph *data* without padding, or None where it is not like ours.

    data: an encoder as `export.onnx` writes it, in fp32 or fp16.
    """
    try:
        model = onnx.load_model_from_string(data)
        _rewrite(_Graph(model.graph))
    except (DecodeError, _UnknownGraphError):
        return None
    packed: bytes = model.SerializeToString()
    return packed


class _Graph:
    """The graph, with its nodes and constants by name."""

    def __init__(self, proto: GraphProto) -> None:
        self.proto = proto
        self.constants = {tensor.name: tensor for tensor in proto.initializer}
        self._index(proto.node)

    def _index(self, nodes: Iterable[NodeProto]) -> None:
        self.nodes = list(nodes)
        self.makers: dict[str, NodeProto] = {}
        self.users: defaultdict[str, list[NodeProto]] = defaultdict(list)
        for node in self.nodes:
            self.makers.update(dict.fromkeys(node.output, node))
            for name in node.input:
                self.users[name].append(node)

    def put(self, replaced: dict[str, list[NodeProto]], gone: set[str]) -> None:
        """Replace each node that makes an output of *replaced*, and remove those of *gone*.

        A node is named by its first output.
        """
        self._index(
            new
            for node in self.nodes
            if node.output[0] not in gone
            for new in replaced.get(node.output[0], [node])
        )

    def made_by(self, name: str, kind: str) -> NodeProto:
        """Return the node of *kind* that makes *name*."""
        node = self.makers.get(name)
        if node is None or node.op_type != kind:
            raise _UnknownGraphError
        return node

    def only_user(self, name: str, kind: str) -> NodeProto:
        """Return the node of *kind* that alone takes *name*."""
        users = self.users[name]
        if len(users) != 1 or users[0].op_type != kind:
            raise _UnknownGraphError
        return users[0]

    def array(self, name: str) -> NDArray[np.generic]:
        """Return the constant *name*."""
        if name not in self.constants:
            raise _UnknownGraphError
        values: NDArray[np.generic] = numpy_helper.to_array(self.constants[name])
        return values

    def add(self, name: str, values: NDArray[np.generic]) -> str:
        """Store a new constant."""
        self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(values), name)
        return name

    def store(self) -> None:
        """Write all back to the graph, without constants that nothing takes any more."""
        del self.proto.node[:]
        self.proto.node.extend(self.nodes)
        del self.proto.initializer[:]
        self.proto.initializer.extend(
            tensor for name, tensor in self.constants.items() if self.users[name]
        )


def _rewrite(graph: _Graph) -> None:
    embeddings = [node for node in graph.nodes if node.op_type == "EmbedLayerNormalization"]
    if len(embeddings) != 1 or len(embeddings[0].output) < 2:
        raise _UnknownGraphError
    states, lengths = embeddings[0].output[:2]
    _fuse_norms(graph)
    norms = [node for node in graph.nodes if node.op_type == "SkipLayerNormalization"]
    if not norms:
        raise _UnknownGraphError
    last = norms[-1].output[0]
    _check_between(graph, states, last, lengths)
    for node in graph.users[lengths]:
        if node.op_type != "Attention":
            raise _UnknownGraphError
    _replace_attention(graph, lengths)
    _gather_and_restore(graph, states, last)
    graph.store()
    graph.proto.input.extend(
        helper.make_tensor_value_info(name, kind, shape)
        for name, (kind, shape) in _NEW_INPUTS.items()
    )


def _fuse_norms(graph: _Graph) -> None:
    """Make one node of each norm and the two sums before it.

    A session does that on a GPU, but only for states in (rows, tokens, channels).
    """
    replaced: dict[str, list[NodeProto]] = {}
    gone: set[str] = set()
    for norm in graph.nodes:
        if norm.op_type != "LayerNormalization":
            continue
        total = graph.made_by(norm.input[0], "Add")
        (biased, skip), (product, bias) = _biased(graph, total)
        epsilon = next((each.f for each in norm.attribute if each.name == "epsilon"), 1e-5)
        node = helper.make_node(
            "SkipLayerNormalization",
            [product, skip, norm.input[1], norm.input[2], bias],
            [norm.output[0]],
            domain=_MS,
            epsilon=epsilon,
        )
        replaced[norm.output[0]] = [node]
        gone |= {total.output[0], biased}
    graph.put(replaced, gone)


def _biased(graph: _Graph, total: NodeProto) -> tuple[tuple[str, str], tuple[str, str]]:
    """Return the terms of the sum *total*, a product with its bias first, and those two parts."""
    for first, second in (total.input, reversed(total.input)):
        inner = graph.makers.get(first)
        if inner is None or inner.op_type != "Add" or len(graph.users[first]) != 1:
            continue
        for product, bias in (inner.input, reversed(inner.input)):
            maker = graph.makers.get(product)
            if bias in graph.constants and maker is not None and maker.op_type == "MatMul":
                return (first, second), (product, bias)
    raise _UnknownGraphError


def _check_between(graph: _Graph, states: str, last: str, lengths: str) -> None:
    """Raise unless every node between *states* and *last* works on each token alone, or attends."""
    inside = {states}
    for node in graph.nodes:  # each comes after the nodes that make its inputs
        if inside.isdisjoint(node.input):
            continue
        others = [name for name in node.input if name not in inside]
        if node.op_type == "Attention":
            known = others[2:] == [lengths]
        elif node.op_type == "MatMul":
            known = others == [node.input[1]] and graph.array(others[0]).ndim == 2
        else:
            known = node.op_type in _TOKENWISE and all(graph.array(o).ndim == 1 for o in others)
        if not known:
            raise _UnknownGraphError
        inside |= {*node.output} - {last}
    if not inside.isdisjoint(made.name for made in graph.proto.output):
        raise _UnknownGraphError


def _replace_attention(graph: _Graph, lengths: str) -> None:
    replaced: dict[str, list[NodeProto]] = {}
    for node in graph.nodes:
        if node.op_type != "Attention":
            continue
        settings = {each.name: each.i for each in node.attribute}
        if set(settings) != {"num_heads"} or [*node.input[3:]] != [lengths]:
            raise _UnknownGraphError
        states, weights, bias, _ = node.input
        made = node.output[0]
        width = graph.array(weights).shape[0]
        if len(graph.array(bias)) != 3 * width:
            raise _UnknownGraphError
        biases = np.split(graph.array(bias), 3)
        parts = [f"{made}_{name}" for name in ("query", "key", "value")]
        nodes = [
            helper.make_node("MatMul", [states, graph.add(f"{part}_weight", values)], [part])
            for part, values in zip(parts, np.split(graph.array(weights), 3, axis=1), strict=True)
        ]
        added = f"{parts[0]}_biased"
        query = [parts[0], graph.add(f"{parts[0]}_bias", biases[0])]
        attention = helper.make_node(
            "PackedMultiHeadAttention",
            [added, *parts[1:], "", "token_offset", "cumulative_lengths"],
            [made],
            domain=_MS,
            num_heads=settings["num_heads"],
        )
        replaced[made] = [*nodes, helper.make_node("Add", query, [added]), attention]
        _move_bias(graph, made, biases[2])
    graph.put(replaced, set())


def _move_bias(graph: _Graph, attended: str, bias: NDArray[np.generic]) -> None:
    """Add *bias*, of the values of *attended*, to the bias of the projection that follows."""
    product = graph.only_user(attended, "MatMul")
    norm = graph.only_user(product.output[0], "SkipLayerNormalization")
    if len(norm.input) < 5 or norm.input[0] != product.output[0]:
        raise _UnknownGraphError
    behind = graph.array(norm.input[4])
    moved = bias.astype(np.float32) @ graph.array(product.input[1]).astype(np.float32)
    total = (behind.astype(np.float32) + moved).astype(behind.dtype)
    norm.input[4] = graph.add(f"{attended}_bias", total)


def _gather_and_restore(graph: _Graph, states: str, last: str) -> None:
    """Gather the tokens of texts from *states*; put their *last* states back where they were."""
    width = graph.array(graph.makers[states].input[2]).shape[1]
    flat, packed, restored = f"{states}_flat", f"{states}_packed", f"{last}_restored"
    embed, norm = graph.makers[states], graph.makers[last]
    for node in graph.nodes:
        for i, name in enumerate(node.input):
            node.input[i] = {states: packed, last: restored}.get(name, name)
    shape = graph.add(f"{flat}_shape", np.array([-1, width]))
    gathered = [
        helper.make_node("Reshape", [states, shape], [flat]),
        helper.make_node("Gather", [flat, "token_positions"], [packed], axis=0),
    ]
    back = helper.make_node("RestorePadding", [last, "token_offset"], [restored], domain=_MS)
    graph.put({states: [embed, *gathered], last: [norm, back]}, set())
