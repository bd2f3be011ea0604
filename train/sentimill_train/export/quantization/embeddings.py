"""Makes tables smaller: word vectors in int8, and only the positions that the model reads."""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from sentimill.errors import BundleError

_MOST: Final = 127
_POSITIONS: Final = "position_embeddings.weight"
_OFFSET: Final = 2  # RoBERTa numbers positions from its padding id + 1
_TABLES: Final = {"EmbedLayerNormalization": 2, "Gather": 0}  # the index of the table input


def quantize_embeddings(data: bytes) -> bytes:
    """Return the graph *data* with its word vectors in int8 and a scale for each word.

    ONNX Runtime folds the two new nodes into float32 vectors when it loads the file. So the file is
    smaller, and the graph is as fast as before.

    Raises:
        BundleError: NO_EMBEDDINGS.
    """
    model = onnx.load_model_from_string(data)
    graph = model.graph
    looked_up = {n.input[_TABLES[n.op_type]] for n in graph.node if n.op_type in _TABLES}
    words = [
        each
        for each in graph.initializer
        if each.name in looked_up and each.data_type == TensorProto.FLOAT and len(each.dims) == 2
    ]
    if not words:
        raise BundleError(
            "the graph has no table of word vectors: use a bundle that `sentimill train` wrote",
            reason="NO_EMBEDDINGS",
        )
    tensor = max(words, key=lambda found: found.dims[0] * found.dims[1])
    vectors = numpy_helper.to_array(tensor)
    scale = np.abs(vectors).max(axis=1, keepdims=True) / _MOST
    scale[scale == 0] = 1.0  # a vector of zeros stays zero
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


def trim_positions(data: bytes, tokens: int) -> bytes:
    """Return the graph *data* without vectors for positions after *tokens*, which are never read.

    A graph without such a table is returned as it is.
    """
    model = onnx.load_model_from_string(data)
    for tensor in model.graph.initializer:
        if tensor.name.endswith(_POSITIONS):
            kept = numpy_helper.to_array(tensor)[: tokens + _OFFSET]
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(kept), tensor.name))
    made: bytes = model.SerializeToString()
    return made
