"""What the inputs of an encoder's products look like on real text: how large, and how they vary."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper

__all__ = ["States", "see_states"]


@dataclass(frozen=True, slots=True)
class States:
    """One tensor of states over all tokens that were seen.

    largest: (channels,), the largest absolute value. moments: (channels, channels), the sum of
    x xᵀ.
    """

    largest: NDArray[np.float32]
    moments: NDArray[np.float64]

    def divided(self, by: NDArray[np.float32]) -> States:
        """Return the states divided by *by* (channels,)."""
        wide = by.astype(np.float64)
        return States(self.largest / by, self.moments / np.outer(wide, wide))


def see_states(
    graph: bytes, names: Sequence[str], texts: Iterable[NDArray[np.int64]]
) -> dict[str, States]:
    """Return the states in the tensors *names*, each (rows, tokens, channels), of *texts*.

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
    seen: dict[str, States] = {}
    for ids in texts:  # one at a time: a padded token has states too
        feeds = {"input_ids": ids[None], "attention_mask": np.ones_like(ids[None])}
        for name, values in zip(names, session.run(names, feeds), strict=True):
            seen[name] = _with(seen.get(name), values[0])
    if not seen:
        raise ValueError("the states of no text at all were asked for")
    return seen


def _with(seen: States | None, states: NDArray[np.float32]) -> States:
    largest, moments = np.abs(states).max(axis=0), states.T @ states
    if seen is None:
        return States(largest, moments.astype(np.float64))
    return States(np.maximum(seen.largest, largest), seen.moments + moments)
