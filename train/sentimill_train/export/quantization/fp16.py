"""Makes fp16 graphs for GPUs, and the fp16 weights of a compact bundle for further training."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper
from onnxruntime.transformers.float16 import convert_float_to_float16
from safetensors.numpy import load, save


def fp16_graph(data: bytes) -> bytes:
    """Return the graph *data* with weights and states in fp16, for a GPU; logits stay float32.

    ONNX Runtime's CPU provider runs it too. Most of its matrix products support only float32, so it
    casts their inputs and outputs.
    """
    model = onnx.load_model_from_string(data)
    made: bytes = convert_float_to_float16(model, keep_io_types=True).SerializeToString()
    return made


def weights_to_fp16(data: bytes) -> bytes:
    """Return the safetensors file *data* with every float32 tensor in fp16.

    The pooler of older bundles, which no student uses, is left out.
    """
    tensors = {
        name: values.astype(np.float16) if values.dtype == np.float32 else values
        for name, values in load(data).items()
        if ".pooler." not in name
    }
    return save(tensors, metadata={"format": "pt"})


def round_to_fp16(data: bytes) -> bytes:
    """Return the graph *data* with every float32 constant rounded to fp16; it computes in float32.

    It gives the same answers as a student with weights from `weights_to_fp16`.
    """
    model = onnx.load_model_from_string(data)
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            values = numpy_helper.to_array(tensor).astype(np.float16).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    made: bytes = model.SerializeToString()
    return made
