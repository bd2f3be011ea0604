"""Turns logits into calibrated probabilities, and probabilities into labels and scores.

`Classifier` and the columns of scored files both use these functions, so they always agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Decisions:
    """The decisions for many texts, one value per row.

    best: (rows,) index of the most probable label. score: (rows,) float32, P(positive) -
    P(negative), or None where the labels are not sentiments. confidence: (rows,) float32.
    abstained: (rows,) bool.
    """

    best: NDArray[np.int64]
    score: NDArray[np.float32] | None
    confidence: NDArray[np.float32]
    abstained: NDArray[np.bool_]


def decide(
    probs: NDArray[np.float32],
    labels: Sequence[str],
    threshold: float | None,
    foreign: NDArray[np.bool_],
) -> Decisions:
    """Return the decisions for calibrated *probs* (rows, labels) float32.

    threshold: the confidence below which the model abstains; None for never. foreign: (rows,)
    whether a text is in a language that the model was not made for; it abstains on these too.
    """
    score = None
    if "negative" in labels and "positive" in labels:
        score = probs[:, labels.index("positive")] - probs[:, labels.index("negative")]
    confidence: NDArray[np.float32] = probs.max(axis=1, initial=np.float32(0))
    abstained = (confidence < (threshold or 0.0)) | foreign
    return Decisions(probs.argmax(axis=1), score, confidence, abstained)


def probabilities(logits: NDArray[np.float32], temperature: float) -> NDArray[np.float32]:
    """Return softmax(logits / temperature), (rows, labels) float32; computed in float64."""
    scaled = logits.astype(np.float64) / temperature
    exps = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    probs: NDArray[np.float32] = (exps / exps.sum(axis=1, keepdims=True)).astype(np.float32)
    return probs
