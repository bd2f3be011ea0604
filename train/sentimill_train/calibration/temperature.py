"""Calibration: the temperature that makes confidence a probability, and the threshold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from sentimill.classifier import probabilities
from sentimill_train.calibration.abstention import Abstention, choose_threshold
from sentimill_train.metrics.classification import Answers, nll_of

_RANGE: Final = (0.05, 20.0)


@dataclass(frozen=True, slots=True)
class Calibration:
    """What the validation split decided. abstention: None where no target error was asked for."""

    temperature: float
    abstention: Abstention | None

    @property
    def threshold(self) -> float | None:
        """The confidence below which the bundle abstains; None, it never does."""
        return None if self.abstention is None else self.abstention.threshold


def calibrate(
    logits: NDArray[np.float32], gold: NDArray[np.int64], target_error: float | None
) -> Calibration:
    """Return the temperature of *logits* (rows, labels) and the threshold for *target_error*.

    Both come from the same validation rows: one scalar fitted on them moves no answer, and so
    leaves the errors that the threshold is chosen by as they were.
    """
    temperature = find_temperature(logits, gold)
    if target_error is None:
        return Calibration(temperature, None)
    answers = Answers((), gold, probabilities(logits, temperature).astype(np.float64))
    chosen = choose_threshold(answers.confidence, answers.correct, target_error=target_error)
    return Calibration(temperature, chosen)


def find_temperature(logits: NDArray[np.float32], gold: NDArray[np.int64]) -> float:
    """Return the temperature with the least negative log-likelihood of *gold* (rows,).

    logits: (rows, labels) of the validation split. (Guo et al. 2017, section 4.2.) The target is
    the label even where a row has a teacher's shares: confidence, ECE and the abstention threshold
    all ask how often the answer is right, and a panel that is 70 % sure of the right label is
    right. It is smoothed by one imagined row a label (Platt 1999, section 2.2), or a small split
    without an error would ask for a temperature of zero. One scalar needs no gradient.
    """
    rows, labels = logits.shape
    target = np.full((rows, labels), 1 / (rows + labels))
    target[np.arange(rows), gold] = (rows + 1) / (rows + labels)
    wide = logits.astype(np.float64)
    found = minimize_scalar(
        lambda log_t: -(target * log_softmax(wide / np.exp(log_t), axis=1)).sum(1).mean(),
        bounds=tuple(np.log(_RANGE)),
        method="bounded",
        options={"xatol": 1e-4},
    )
    return float(np.exp(found.x))


def calibrated_nll(logits: NDArray[np.float32], gold: NDArray[np.int64]) -> float:
    """Return the mean negative log-likelihood of *gold* (rows,) at its best temperature, in nats.

    This is the loss of the answers that a bundle will give; how sure the raw logits are is no
    matter, since the temperature mends it.
    """
    probs = probabilities(logits, find_temperature(logits, gold))
    return nll_of(probs.astype(np.float64), gold)
