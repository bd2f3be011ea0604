"""How far to go from the weights that training began with to those that it found.

A student that learns a few hundred reviews of one kind forgets a part of what it knew of others.
Weights between the two ends keep most of both (Wortsman et al. 2022, "Robust fine-tuning of
zero-shot models").
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from torch import Tensor

from sentimill.classifier import probabilities
from sentimill_train.calibration.temperature import find_temperature
from sentimill_train.data.tokenized import Rows
from sentimill_train.metrics.classification import nll_of
from sentimill_train.model.student import Student, predict
from sentimill_train.training.state import weights_of

__all__ = ["SHARES", "interpolate", "mix"]

SHARES: Final = tuple(eighths / 8 for eighths in range(2, 9))
"""The shares of what training found that are tried."""


def interpolate(student: Student, start: Mapping[str, Tensor], validation: Rows) -> float:
    """Move *student* back towards *start* to where the loss on *validation* is least.

    start: the weights (`weights_of`) that its training began with. The loss is that of calibrated
    answers, which the bundle will give. Returned is the share of what training found that is left,
    one of `SHARES`: 1 leaves *student* as it is.
    """
    found = weights_of(student)
    losses = {}
    for share in SHARES:
        mix(student, start, found, share)
        logits = predict(student, validation)
        probs = probabilities(logits, find_temperature(logits, validation.gold))
        losses[share] = nll_of(probs.astype(np.float64), validation.gold)
    best = min(losses, key=lambda share: losses[share])
    mix(student, start, found, best)
    return best


def mix(
    student: Student, start: Mapping[str, Tensor], found: Mapping[str, Tensor], share: float
) -> None:
    """Give *student* the weights that lie *share* of the way from *start* to *found*."""
    student.load_state_dict(
        {
            name: start[name].lerp(tensor, share) if tensor.is_floating_point() else tensor
            for name, tensor in found.items()
        }
    )
