"""Weight interpolation: blends the new weights with the old ones, so that the model forgets less.

A student that learns a few hundred reviews of one kind forgets part of what it knew about others.
Weights between the old and the new ones keep most of both (Wortsman et al. 2022, "Robust
fine-tuning of zero-shot models").
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from torch import Tensor

from sentimill_train.calibration.temperature import calibrated_nll
from sentimill_train.data.tokenized import Rows
from sentimill_train.model.student import Student, predict
from sentimill_train.training.state import weights_of

SHARES: Final = (0.25, 0.5, 0.75, 1.0)
"""The shares of the new weights that are tried."""

_MOST_ROWS: Final = 4000  # all shares are compared on the same rows
_TIE: Final = 1e-4  # nats: shares this close to the best are ties; the smallest forgets least
OTHERS: Final = 0.25
"""The weight of the loss on other reviews: low, because the user trains for the own ones. A tenth
chose the same share in both domains that were tried (benchmarks/results/own_reviews.md)."""


def interpolate(
    student: Student, start: Mapping[str, Tensor], own: Rows, others: Rows | None = None
) -> float:
    """Move *student* towards *start*, to where its loss on *own* and *others* is lowest.

    start: the weights (`weights_of`) from before training. own: validation rows. others: labelled
    reviews of other kinds, on which it should still answer well. The loss is that of calibrated
    answers, as the bundle will give them. Returns the share of the new weights, one of `SHARES`; 1
    leaves *student* as it is.
    """
    chosen = np.random.default_rng(0).permutation(len(own))[:_MOST_ROWS]
    own = own.take(np.sort(chosen))
    found = weights_of(student)
    losses = {}
    for share in SHARES:
        mix(student, start, found, share)
        losses[share] = calibrated_nll(predict(student, own), own.gold)
        if others is not None:
            losses[share] += OTHERS * calibrated_nll(predict(student, others), others.gold)
    lowest = min(losses.values())
    best = min(share for share, loss in losses.items() if loss <= lowest + _TIE)
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
