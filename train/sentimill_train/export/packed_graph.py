"""Rewrites a graph so that it computes no padding: the tokens of all texts form one sequence.

ONNX Runtime has such attention (PackedMultiHeadAttention) only on CUDA devices. So a bundle with an
fp16 graph also has its packed form, for GPUs. The embeddings are computed in (rows, tokens) as
before. Then the tokens of texts are gathered, and after the last norm they are scattered back, with
zeros for padding.

PackedMultiHeadAttention has no key and value bias, and needs none. The key bias adds the same
number to all scores of a query, and softmax cancels it. The value bias passes through the attention
unchanged, because its weights sum to 1, so it is added to the bias of the next projection.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper
from onnxruntime.transformers.fusion_skiplayernorm import (
    FusionBiasSkipLayerNormalization,
    FusionSkipLayerNormalization,
)
from onnxruntime.transformers.onnx_model import OnnxModel

_MS: Final = "com.microsoft"
_TOKENWISE: Final = ("Add", "BiasGelu", "FastGelu", "SkipLayerNormalization")
"""Operators other than MatMul and Attention that may be between the embeddings and the last norm.
Each computes the result for a token only from that token."""
_NEW_INPUTS: Final = {
    "token_positions": (TensorProto.INT64, ["n"]),
    "token_offset": (TensorProto.INT32, ["rows", "tokens"]),
    "cumulative_lengths": (TensorProto.INT32, ["ends"]),
}
"""See `sentimill.engine.onnx_cuda.packed_feeds`."""


class _UnknownGraphError(Exception):
    """This module cannot rewrite the graph."""


def pack_graph(data: bytes) -> bytes | None:
    """Return the packed form of the graph *data*, or None if its structure is not known.

    data: an encoder from `export.onnx`, in fp32 or fp16.
    """
    try:
        model = OnnxModel(onnx.load_model_from_string(data))
        _rewrite(model)
    except (DecodeError, _UnknownGraphError):
        return None
    packed: bytes = model.model.SerializeToString()
    return packed


def _rewrite(model: OnnxModel) -> None:
    embeddings = model.get_nodes_by_op_type("EmbedLayerNormalization")
    if len(embeddings) != 1 or len(embeddings[0].output) < 2:
        raise _UnknownGraphError
    states, lengths = embeddings[0].output[:2]
    # On a GPU, a session would fuse each norm with the two sums before it, but only for states in
    # (rows, tokens, channels).
    FusionSkipLayerNormalization(model, shape_infer=False).apply()
    FusionBiasSkipLayerNormalization(model).apply()
    model.topological_sort()
    norms = model.get_nodes_by_op_type("SkipLayerNormalization")
    if not norms or any(len(norm.input) != 5 for norm in norms):
        raise _UnknownGraphError
    last = norms[-1].output[0]
    _check_between(model, states, last, lengths)
    for node in model.get_nodes_by_op_type("Attention"):
        _replace_attention(model, node)
    for name, (kind, shape) in _NEW_INPUTS.items():
        model.add_input(helper.make_tensor_value_info(name, kind, shape))
    _gather_and_restore(model, states, last, _array(model, embeddings[0].input[2]).shape[1])
    model.update_graph()
    model.topological_sort()


def _check_between(model: OnnxModel, states: str, last: str, lengths: str) -> None:
    """Raise unless all nodes from *states* to *last* are attention, or work on single tokens."""
    inside = {states}
    for node in model.nodes():  # each comes after the nodes that make its inputs
        others = [name for name in node.input if name not in inside]
        if len(others) == len(node.input):
            known = lengths not in others
        elif node.op_type == "Attention":
            known = others[2:] == [lengths]
        elif node.op_type == "MatMul":
            known = others == [node.input[1]] and _array(model, others[0]).ndim == 2
        else:
            known = node.op_type in _TOKENWISE and all(_array(model, o).ndim == 1 for o in others)
        if not known:
            raise _UnknownGraphError
        if len(others) < len(node.input):
            inside |= {*node.output} - {last}
    if not inside.isdisjoint(made.name for made in model.graph().output):
        raise _UnknownGraphError


def _replace_attention(model: OnnxModel, node: NodeProto) -> None:
    settings = {each.name: each.i for each in node.attribute}
    states, weights, bias, _ = node.input
    made = node.output[0]
    width = _array(model, weights).shape[0]
    biases = np.split(_array(model, bias), 3)
    if set(settings) != {"num_heads"} or len(biases[0]) != width:
        raise _UnknownGraphError
    parts = [f"{made}_{name}" for name in ("query", "key", "value")]
    for part, values in zip(parts, np.split(_array(model, weights), 3, axis=1), strict=True):
        weight = _add_constant(model, f"{part}_weight", values)
        model.add_node(helper.make_node("MatMul", [states, weight], [part]))
    added = f"{parts[0]}_biased"
    query_bias = _add_constant(model, f"{parts[0]}_bias", biases[0])
    model.add_node(helper.make_node("Add", [parts[0], query_bias], [added]))
    model.add_node(
        helper.make_node(
            "PackedMultiHeadAttention",
            [added, *parts[1:], "", "token_offset", "cumulative_lengths"],
            [made],
            domain=_MS,
            num_heads=settings["num_heads"],
        )
    )
    model.remove_node(node)
    _move_bias(model, made, biases[2])


def _move_bias(model: OnnxModel, attended: str, bias: NDArray[np.generic]) -> None:
    """Move *bias*, the value bias of *attended*, into the bias of the next projection."""
    product = _only_user(model, attended, "MatMul")
    norm = _only_user(model, product.output[0], "SkipLayerNormalization")
    if norm.input[0] != product.output[0]:
        raise _UnknownGraphError
    behind = _array(model, norm.input[4])
    moved = bias.astype(np.float32) @ _array(model, product.input[1]).astype(np.float32)
    total = (behind.astype(np.float32) + moved).astype(behind.dtype)
    norm.input[4] = _add_constant(model, f"{attended}_bias", total)


def _only_user(model: OnnxModel, name: str, kind: str) -> NodeProto:
    """Return the node that takes *name*; raise unless there is exactly one, and of *kind*."""
    users: list[NodeProto] = model.input_name_to_nodes().get(name, [])
    if len(users) != 1 or users[0].op_type != kind:
        raise _UnknownGraphError
    return users[0]


def _gather_and_restore(model: OnnxModel, states: str, last: str, width: int) -> None:
    """Gather the tokens of texts from *states*, and scatter their *last* states back."""
    flat, packed, restored = f"{states}_flat", f"{states}_packed", f"{last}_restored"
    model.replace_input_of_all_nodes(states, packed)
    model.replace_input_of_all_nodes(last, restored)
    shape = _add_constant(model, f"{flat}_shape", np.array([-1, width]))
    model.add_nodes(
        [
            helper.make_node("Reshape", [states, shape], [flat]),
            helper.make_node("Gather", [flat, "token_positions"], [packed], axis=0),
            helper.make_node("RestorePadding", [last, "token_offset"], [restored], domain=_MS),
        ]
    )


def _array(model: OnnxModel, name: str) -> NDArray[np.generic]:
    tensor = model.get_initializer(name)
    if tensor is None:
        raise _UnknownGraphError
    values: NDArray[np.generic] = numpy_helper.to_array(tensor)
    return values


def _add_constant(model: OnnxModel, name: str, values: NDArray[np.generic]) -> str:
    model.add_initializer(numpy_helper.from_array(np.ascontiguousarray(values), name))
    return name
