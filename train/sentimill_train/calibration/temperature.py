"""Calibration: fits the temperature that makes confidence a probability, and the threshold."""

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
    """The calibration on the validation split. abstention: None if no target error was given."""

    temperature: float
    abstention: Abstention | None

    @property
    def threshold(self) -> float | None:
        """The confidence below which the bundle abstains; None means never."""
        return None if self.abstention is None else self.abstention.threshold


def calibrate(
    logits: NDArray[np.float32], gold: NDArray[np.int64], target_error: float | None
) -> Calibration:
    """Return the temperature of *logits* (rows, labels) and the threshold for *target_error*.

    Both come from the same validation rows. That is sound, because a temperature changes no
    predicted label, so the errors that choose the threshold stay the same.
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
    the hard label even if a row has soft labels: confidence, ECE and the abstention threshold are
    about how often the answer is right, and a teacher that is 70 % sure of the right label is
    right. The target is smoothed by one virtual row for each label (Platt 1999, section 2.2), since
    a small split without an error would otherwise give a temperature of zero. The search uses no
    gradient, because it is over one scalar.
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

    This is the loss of the answers that a bundle will give, because its logits are divided by that
    temperature.
    """
    probs = probabilities(logits, find_temperature(logits, gold))
    return nll_of(probs.astype(np.float64), gold)
