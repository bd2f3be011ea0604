"""Calibration: the temperature that makes a confidence the chance of being right."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

__all__ = ["find_temperature", "negative_log_likelihood"]

_RANGE: Final = (0.05, 20.0)


def find_temperature(logits: NDArray[np.float32], gold: NDArray[np.int64]) -> float:
    """Return the temperature with the least negative log-likelihood of *gold* (rows,).

    logits: (rows, labels) of the validation split. The target is the label even where a row has a
    teacher's shares: confidence, ECE and the abstention threshold all ask how often the answer is
    right, and a panel that is 70 % sure of the right label is right. (Guo et al. 2017, section
    4.2.) One scalar of a convex-enough curve needs no gradient.
    """
    low, high = np.log(_RANGE)
    found = minimize_scalar(
        lambda log_t: negative_log_likelihood(logits, gold, float(np.exp(log_t))),
        bounds=(low, high),
        method="bounded",
        options={"xatol": 1e-4},
    )
    return float(np.exp(found.x))


def negative_log_likelihood(
    logits: NDArray[np.float32], gold: NDArray[np.int64], temperature: float
) -> float:
    """Return the mean negative log-likelihood of *gold* (rows,) in nats."""
    log_probs = log_softmax(logits.astype(np.float64) / temperature, axis=1)
    return float(-log_probs[np.arange(len(gold)), gold].mean())
