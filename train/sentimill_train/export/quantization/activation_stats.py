"""Statistics of activations on real text: the largest value and the second moments of channels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper


@dataclass(frozen=True, slots=True)
class ActivationStats:
    """Statistics of one activation tensor over all tokens.

    largest: (channels,), the largest absolute value. moments: (channels, channels), the sum of
    x xᵀ.
    """

    largest: NDArray[np.float32]
    moments: NDArray[np.float64]


def collect_activation_stats(
    graph: bytes, names: Sequence[str], texts: Iterable[NDArray[np.int64]]
) -> dict[str, ActivationStats]:
    """Return the statistics of the tensors *names*, each (rows, tokens, channels), on *texts*.

    texts: the ids (tokens,) of a few dozen reviews.

    Raises:
        ValueError: no text.
    """
    model = onnx.load_model_from_string(graph)
    model.graph.output.extend(
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names
    )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    seen: dict[str, ActivationStats] = {}
    for ids in texts:  # one at a time, because padding would have activations too
        feeds = {"input_ids": ids[None], "attention_mask": np.ones_like(ids[None])}
        for name, (states,) in zip(names, session.run(names, feeds), strict=True):
            largest, moments = np.abs(states).max(axis=0), (states.T @ states).astype(np.float64)
            if name in seen:
                largest = np.maximum(seen[name].largest, largest)
                moments += seen[name].moments
            seen[name] = ActivationStats(largest, moments)
    if not seen:
        raise ValueError("activation statistics need at least one text")
    return seen
