"""Blends the student's answer with the nearest labelled reviews, and fits the blend's two numbers.

Khandelwal et al. 2020, "Generalization through Memorization", equations 2 and 3: the neighbours
vote for their labels with the softmax of their negative distance, and the answer is a weighted mean
of their votes and of the model's probs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

_WEIGHTS: Final = np.arange(1, 10) / 10
_TEMPERATURES: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)


@dataclass(frozen=True, slots=True)
class Blend:
    """weight: of the neighbours, 0 to 1. temperature: of their similarity, a cosine."""

    weight: float
    temperature: float


def votes(
    similarity: NDArray[np.float32], voted: NDArray[np.int64], labels: int, temperature: float
) -> NDArray[np.float32]:
    """Return the share of each label (rows, labels) among the neighbours of each row.

    similarity: (rows, neighbours). voted: the label of each by its place, -1 where there is none.
    """
    strength = np.where(voted < 0, 0, np.exp((similarity - similarity[:, :1]) / temperature))
    shares = np.stack([(strength * (voted == k)).sum(axis=1) for k in range(labels)], axis=1)
    found: NDArray[np.float32] = (shares / shares.sum(axis=1, keepdims=True)).astype(np.float32)
    return found


def blended(
    probs: NDArray[np.float32],
    similarity: NDArray[np.float32],
    voted: NDArray[np.int64],
    blend: Blend,
) -> NDArray[np.float32]:
    """Return *probs* (rows, labels) mixed with the neighbours' votes; see `votes`."""
    shares = votes(similarity, voted, probs.shape[1], blend.temperature)
    mixed: NDArray[np.float32] = probs + np.float32(blend.weight) * (shares - probs)
    return mixed


def fit_blend(
    probs: NDArray[np.float32],
    gold: NDArray[np.int64],
    similarity: NDArray[np.float32],
    voted: NDArray[np.int64],
) -> Blend:
    """Return the blend with the least negative log-likelihood of the *gold* labels (rows,).

    The weight is 0 unless the gain is larger than two of its standard errors.
    """
    rows = np.arange(len(gold))
    alone = -np.log(np.clip(probs[rows, gold], 1e-6, 1))
    best, least = Blend(0.0, 0.1), float(alone.mean())
    for temperature in _TEMPERATURES:
        for weight in _WEIGHTS.tolist():
            tried = Blend(weight, temperature)
            loss = -np.log(np.clip(blended(probs, similarity, voted, tried)[rows, gold], 1e-6, 1))
            gain = alone - loss
            if loss.mean() < least and gain.mean() > 2 * gain.std() / len(gold) ** 0.5:
                best, least = tried, float(loss.mean())
    return best
