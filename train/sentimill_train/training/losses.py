"""What a student is pulled towards: a teacher's shares where a row has them, its label, or both."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

from sentimill_train.data.tokenized import NO_LABEL

__all__ = ["distil_loss", "hidden_loss", "soften"]

_LEAST: Final = 1e-12  # keeps a row without shares from dividing by zero


def distil_loss(
    logits: Tensor, gold: Tensor, soft: Tensor, soft_weight: float, temperature: float = 1.0
) -> Tensor:
    """Return the loss of each row (rows,).

    logits, soft: (rows, labels); gold: (rows,). A row with shares in *soft* gets
    ``soft_weight * T^2 * KL(soft || student) + (1 - soft_weight) * CE(gold, student)``, a row of
    zeros the cross-entropy alone, and a row of NO_LABEL the KL alone. In the KL the student's
    logits are divided by T, the *temperature*; *soft* is softened already, see `soften`. (Hinton et
    al. 2015, section 2; T^2 keeps the size of its gradient. T is 1 by default: our shares are those
    of a panel, not of a sharp softmax.)
    """
    log_q = F.log_softmax(logits, dim=-1)
    log_p = log_q if temperature == 1 else F.log_softmax(logits / temperature, dim=-1)
    hard = F.nll_loss(log_q, gold, reduction="none", ignore_index=NO_LABEL)
    kl = F.kl_div(log_p, soft, reduction="none").sum(-1) * temperature**2
    weight = torch.where(gold == NO_LABEL, 1.0, soft_weight) * (soft.sum(-1) > 0)
    return weight * kl + (1 - weight) * hard


def soften(shares: Tensor, temperature: float) -> Tensor:
    """Return ``shares^(1/T)`` with each row (rows, labels) summing to 1 again; zeros stay zeros.

    That is what a softmax at T would have given of the logits whose softmax *shares* are.
    """
    if temperature == 1:
        return shares
    raised = shares ** (1 / temperature)
    return raised / raised.sum(-1, keepdim=True).clamp_min(_LEAST)


def hidden_loss(states: Tensor, wanted: Tensor, mask: Tensor) -> Tensor:
    """Return the mean squared difference of each row's token states (rows,), padding left out.

    states, wanted: (rows, tokens, hidden); mask: (rows, tokens), 1 where there is a token.
    """
    apart = (states.float() - wanted.float()).square().mean(-1) * mask
    return apart.sum(1) / mask.sum(1)
