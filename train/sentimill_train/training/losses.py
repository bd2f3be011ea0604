"""The training losses: for a label, for soft labels, for both, and for a teacher's token states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

from sentimill_train.data.tokenized import NO_LABEL

_LEAST: Final = 1e-12  # keeps a row without shares from dividing by zero


def distil_loss(
    logits: Tensor,
    gold: Tensor,
    soft: Tensor,
    soft_weight: float,
    temperatures: Sequence[float] = (1.0,),
    allowed: Tensor | None = None,
) -> Tensor:
    """Return the loss of each row (rows,).

    logits, soft: (rows, labels); gold: (rows,); allowed: (rows, labels) bool. A row with soft
    labels gets ``soft_weight * KL + (1 - soft_weight) * CE``, a row of zeros in *soft* only the
    cross-entropy, and a row of NO_LABEL only the KL.

    KL is the mean over *temperatures* of ``T^2 * KL(soften(soft, T) || student at T)``. (Hinton et
    al. 2015, section 2: T^2 keeps the size of the gradient. The default is 1, because the votes of
    several annotators are less sharp than a softmax.)

    CE is the partial-label loss: it compares only the labels that were *allowed*. A row from a set
    without neutral reviews then teaches nothing about neutral.
    """
    known = logits if allowed is None else logits.masked_fill(~allowed, -torch.inf)
    log_q = F.log_softmax(known, dim=-1)
    hard = F.nll_loss(log_q, gold, reduction="none", ignore_index=NO_LABEL)
    kl = torch.stack(
        [
            F.kl_div(F.log_softmax(logits / t, -1), soften(soft, t), reduction="none").sum(-1)
            * t**2
            for t in temperatures
        ]
    ).mean(0)
    weight = torch.where(gold == NO_LABEL, 1.0, soft_weight) * (soft.sum(-1) > 0)
    return weight * kl + (1 - weight) * hard


def soften(shares: Tensor, temperature: float) -> Tensor:
    """Return ``shares^(1/T)`` (rows, labels), scaled so that rows sum to 1; zero rows stay zero.

    If *shares* are the softmax of logits, this is the softmax of the same logits divided by T.
    """
    if temperature == 1:
        return shares
    raised = shares ** (1 / temperature)
    return raised / raised.sum(-1, keepdim=True).clamp_min(_LEAST)


def hidden_loss(states: Tensor, wanted: Tensor, mask: Tensor) -> Tensor:
    """Return the mean squared difference of each row's token states (rows,), without padding.

    states, wanted: (rows, tokens, hidden); mask: (rows, tokens), 1 where there is a token.
    """
    difference = (states.float() - wanted.float()).square().mean(-1) * mask
    return difference.sum(1) / mask.sum(1)
