"""Which texts to label next: those that models are unsure or at odds about, and no two alike.

BADGE (Ash et al. 2020, "Deep Batch Active Learning by Diverse, Uncertain Gradient Lower Bounds")
gives a row the gradient of its loss at the head, as if the label that models give it were right:
(probs - one-hot) times the embedding. It is long where they are unsure, and points elsewhere where
the text, or the doubt, is of another kind. k-means++ then draws rows far from those it has. With
several models their gradients stand side by side, so one that disagrees makes the row longer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from sentimill_train.curation.near_duplicates import jaccard, shingles
from sentimill_train.data.schema import normalise
from sentimill_train.metrics.classification import Floats

__all__ = ["NEAR", "Choice", "choose", "disagreement", "uncertainty"]

NEAR: Final = 0.8
"""Jaccard similarity of word pairs from which on two texts are one, as in `curate`."""

_UNSURE: Final = 0.75  # quantile of uncertainty from which on a row is called uncertain


@dataclass(frozen=True, slots=True)
class Choice:
    """A row to label. reason: what speaks for it, `disputed`, `uncertain`, both, or `different`.

    uncertainty, disagreement: 0 to 1.
    """

    row: int
    reason: str
    uncertainty: float
    disagreement: float


def uncertainty(probs: Floats) -> Floats:
    """Return the entropy of the mean of *probs* (models, rows, labels) over the largest (rows,)."""
    return np.asarray(_entropy(probs.mean(axis=0)) / np.log(probs.shape[2]))


def disagreement(probs: Floats) -> Floats:
    """Return the Jensen-Shannon divergence of the models over its largest: (rows,), 0 for one.

    The entropy of the mean less the mean entropy (McCallum and Nigam 1998, section 3). *probs* is
    (models, rows, labels).
    """
    most = np.log(min(probs.shape[0], probs.shape[2]))
    apart = _entropy(probs.mean(axis=0)) - _entropy(probs).mean(axis=0)
    return np.clip(apart, 0, None) / most if most > 0 else np.zeros(probs.shape[1])


def choose(
    texts: Sequence[str], probs: Floats, points: Floats, budget: int, *, seed: int = 0
) -> list[Choice]:
    """Return up to *budget* of *texts*, none near another, in the order in which they were drawn.

    probs: (models, rows, labels), points: (rows, hidden). The first rows of a large budget are
    those of a smaller one, so labelling may stop anywhere. Fewer come back when the rest repeats
    what was chosen.
    """
    unsure, apart = uncertainty(probs), disagreement(probs)
    disputed = (probs.argmax(axis=2) != probs.argmax(axis=2)[0]).any(axis=0)
    limit = float(np.quantile(unsure, _UNSURE))
    return [
        Choice(
            row=row,
            reason=_reason(bool(disputed[row]), bool(unsure[row] >= limit)),
            uncertainty=float(unsure[row]),
            disagreement=float(apart[row]),
        )
        for row in _draw(texts, _doubts(probs), _unit(points), budget, seed)
    ]


def _draw(
    texts: Sequence[str], doubts: Floats, points: Floats, budget: int, seed: int
) -> list[int]:
    """Draw rows by k-means++ (Arthur and Vassilvitskii 2007) over doubt times point.

    Those products are never made: <a x b, c x d> is <a, c> <b, d>.
    """
    random = np.random.default_rng(seed)
    length = (doubts**2).sum(axis=1) * (points**2).sum(axis=1)
    distance = length.copy()
    chosen: list[int] = []
    known: dict[str, set[str]] = {}
    while len(chosen) < budget and distance.sum() > 0:
        row = int(random.choice(len(distance), p=distance / distance.sum()))
        distance[row] = 0
        text = normalise(texts[row])
        words = shingles(text)
        if text in known or any(jaccard(words, other) >= NEAR for other in known.values()):
            continue
        chosen.append(row)
        known[text] = words
        common = (doubts @ doubts[row]) * (points @ points[row])
        apart = np.clip(length + length[row] - 2 * common, 0, None)
        distance = np.minimum(distance, apart)
    return chosen


def _doubts(probs: Floats) -> Floats:
    """Return probs less the common label, side by side for each model: (rows, models * labels)."""
    models, rows, labels = probs.shape
    common = np.eye(labels)[probs.mean(axis=0).argmax(axis=1)]
    return np.asarray((probs - common).transpose(1, 0, 2).reshape(rows, models * labels))


def _unit(points: Floats) -> Floats:
    return np.asarray(points / np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-12))


def _reason(disputed: bool, uncertain: bool) -> str:
    named = [name for name, so in (("disputed", disputed), ("uncertain", uncertain)) if so]
    return ", ".join(named) or "different"


def _entropy(probs: Floats) -> Floats:
    """Return the entropy over the last axis, in nats."""
    return np.asarray(-(probs * np.log(np.clip(probs, 1e-12, None))).sum(axis=-1))
