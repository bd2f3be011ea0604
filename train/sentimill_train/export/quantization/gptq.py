"""GPTQ: int8 rounding that compensates the error of the rows before it."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

_PAIR_MOST: Final = 127
_PAIR_LIMIT: Final = 128
_DAMPING: Final = 0.01
_BLOCK: Final = 128


def quantize_weight(
    weight: NDArray[np.float32], moments: NDArray[np.float64] | None = None
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return *weight* (inputs, outputs) in int8, and a scale for each column.

    Without VNNI a CPU multiplies two neighbours in a column (rows 0 and 1, 2 and 3, ...) with
    activations of up to 255 and adds the products in 16 bits, which saturate at 32,767. The usual
    remedy is weights of seven bits (ONNX Runtime, "Quantize ONNX models", reduce_range). A weaker
    condition is enough: the sum of two neighbours of the same sign is at most 128. Large weights
    are rarely neighbours, so a step is about two thirds as wide as with seven bits.

    moments: (inputs, inputs), the sum of x xᵀ over typical inputs x. With them the rows are rounded
    one after the other, and later rows compensate the error of earlier ones in the product (GPTQ,
    Frantar et al. 2023, algorithm 1). Without them each weight is rounded to the nearest step.
    """
    pairs = np.pad(weight, ((0, len(weight) % 2), (0, 0))).reshape(-1, 2, weight.shape[1])
    most = np.maximum(
        np.maximum(pairs, 0).sum(axis=1).max(axis=0), np.maximum(-pairs, 0).sum(axis=1).max(axis=0)
    )
    scale = (most / _PAIR_MOST).astype(np.float32)
    scale[scale == 0] = 1.0  # a column of zeros stays zero
    steps = (weight / scale).astype(np.float64)
    whole = np.rint(steps) if moments is None else _in_turn(steps, moments)
    return whole.astype(np.int8), scale


def _in_turn(steps: NDArray[np.float64], moments: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return *steps* as whole numbers; later rows compensate the error of earlier ones."""
    rows = len(steps)
    damped = moments + np.eye(rows) * max(_DAMPING * float(np.diag(moments).mean()), 1e-12)
    upper = np.linalg.cholesky(np.linalg.inv(damped)).T
    left = steps.copy()
    whole = np.zeros_like(steps)
    for start in range(0, rows, _BLOCK):
        end = min(start + _BLOCK, rows)
        errors = np.zeros((end - start, steps.shape[1]))
        for i in range(start, end):
            before = whole[i - 1] if i % 2 else np.zeros_like(left[i])
            room = _PAIR_LIMIT - np.maximum(before, 0), _PAIR_LIMIT - np.maximum(-before, 0)
            highest, lowest = (np.minimum(one, _PAIR_MOST) for one in room)
            whole[i] = np.clip(np.rint(left[i]), -lowest, highest)
            errors[i - start] = (left[i] - whole[i]) / upper[i, i]
            left[i + 1 : end] -= np.outer(upper[i, i + 1 : end], errors[i - start])
        left[end:] -= upper[start:end, end:].T @ errors
    return whole
