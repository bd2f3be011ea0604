"""Smaller files: a graph in fp16, word vectors in int8, weights to train on in fp16."""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper
from onnxruntime.transformers.float16 import convert_float_to_float16
from safetensors.numpy import load, save

from sentimill.errors import BundleError

__all__ = ["fp16_graph", "half_graph", "half_weights", "short_positions", "small_embeddings"]

_MOST: Final = 127
_POSITIONS: Final = "position_embeddings.weight"
_OFFSET: Final = 2  # RoBERTa numbers positions from behind its padding id
_TABLES: Final = {"EmbedLayerNormalization": 2, "Gather": 0}  # which input is looked up


def small_embeddings(data: bytes) -> bytes:
    """Return the graph *data* with its word vectors in int8 and a scale a word.

    ONNX Runtime makes float32 of them again when it loads the file, by folding the two nodes in
    front: so nothing is slower, and the room is saved on disk alone.

    Raises:
        BundleError: NO_EMBEDDINGS.
    """
    model = onnx.load_model_from_string(data)
    graph = model.graph
    tables = {tensor.name: tensor for tensor in graph.initializer}
    looked_up = {_table_of(node) for node in graph.node} & tables.keys()
    words = [
        tables[name]
        for name in looked_up
        if tables[name].data_type == TensorProto.FLOAT and len(tables[name].dims) == 2
    ]
    if not words:
        raise BundleError(
            "the graph looks no word vectors up: it is none that `sentimill train` exports",
            reason="NO_EMBEDDINGS",
        )
    tensor = max(words, key=lambda found: found.dims[0] * found.dims[1])
    vectors = numpy_helper.to_array(tensor)
    scale = np.abs(vectors).max(axis=1, keepdims=True) / _MOST
    scale[scale == 0] = 1.0  # a word of zeros stays one
    name = tensor.name
    graph.initializer.remove(tensor)
    graph.initializer.extend(
        [
            numpy_helper.from_array(np.rint(vectors / scale).astype(np.int8), f"{name}_int8"),
            numpy_helper.from_array(scale.astype(np.float32), f"{name}_scale"),
        ]
    )
    nodes = [
        helper.make_node("Cast", [f"{name}_int8"], [f"{name}_steps"], to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{name}_steps", f"{name}_scale"], [name]),
        *graph.node,
    ]
    del graph.node[:]
    graph.node.extend(nodes)
    made: bytes = model.SerializeToString()
    return made


def short_positions(data: bytes, tokens: int) -> bytes:
    """Return the graph *data* without vectors for positions behind *tokens*, which are never read.

    A graph of another make, without such a table, is returned as it is.
    """
    model = onnx.load_model_from_string(data)
    for tensor in model.graph.initializer:
        if tensor.name.endswith(_POSITIONS):
            kept = numpy_helper.to_array(tensor)[: tokens + _OFFSET]
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(kept), tensor.name))
    made: bytes = model.SerializeToString()
    return made


def fp16_graph(data: bytes) -> bytes:
    """Return the graph *data* with weights and states in fp16, for a GPU; logits stay float32.

    ONNX Runtime's CPU provider runs it too: it knows most products in float32 alone, and so casts
    their states there and back.
    """
    model = onnx.load_model_from_string(data)
    made: bytes = convert_float_to_float16(model, keep_io_types=True).SerializeToString()
    return made


def half_weights(data: bytes) -> bytes:
    """Return the safetensors file *data* with every float32 tensor in fp16.

    The pooler, which no student uses and older bundles hold, is left out.
    """
    tensors = {
        name: values.astype(np.float16) if values.dtype == np.float32 else values
        for name, values in load(data).items()
        if ".pooler." not in name
    }
    return save(tensors, metadata={"format": "pt"})


def half_graph(data: bytes) -> bytes:
    """Return the graph *data* with every float32 constant rounded to what fp16 can say.

    It computes in float32: what a student says whose weights were kept by `half_weights`.
    """
    model = onnx.load_model_from_string(data)
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            values = numpy_helper.to_array(tensor).astype(np.float16).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    made: bytes = model.SerializeToString()
    return made


def _table_of(node: NodeProto) -> str:
    place = _TABLES.get(node.op_type)
    return "" if place is None or len(node.input) <= place else str(node.input[place])
