"""Statistics of the activations on real text: how large each channel is, and how they vary."""

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

    def divided(self, by: NDArray[np.float32]) -> ActivationStats:
        """Return the statistics of the activations divided by *by* (channels,)."""
        wide = by.astype(np.float64)
        return ActivationStats(self.largest / by, self.moments / np.outer(wide, wide))


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
    for ids in texts:  # one at a time: padding would have activations too
        feeds = {"input_ids": ids[None], "attention_mask": np.ones_like(ids[None])}
        for name, values in zip(names, session.run(names, feeds), strict=True):
            seen[name] = _with(seen.get(name), values[0])
    if not seen:
        raise ValueError("activation statistics need at least one text")
    return seen


def _with(seen: ActivationStats | None, states: NDArray[np.float32]) -> ActivationStats:
    largest, moments = np.abs(states).max(axis=0), states.T @ states
    if seen is None:
        return ActivationStats(largest, moments.astype(np.float64))
    return ActivationStats(np.maximum(seen.largest, largest), seen.moments + moments)
