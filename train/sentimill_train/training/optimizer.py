"""AdamW with up to four parameter groups, and a learning rate with linear warm-up and decay."""

from __future__ import annotations

from typing import Final

import torch
from torch import nn

from sentimill_train.model.student import Student

_WEIGHT_DECAY: Final = 0.01
_BETAS: Final = (0.9, 0.98)
_WARM_UP: Final = 0.1  # of all rows seen


def new_optimizer(student: Student, learning_rate: float, head_factor: float) -> torch.optim.AdamW:
    """Return AdamW over the trained parameters of *student*, grouped by head and by weight decay.

    The head learns at *head_factor* times the rate of the encoder. Only matrices get weight decay:
    it would pull biases and LayerNorm weights, the vectors, to zero. `set_rates` scales the
    `highest_lr` of each group.
    """
    found: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in student.named_parameters():
        if parameter.requires_grad:
            key = (name.startswith("head."), parameter.ndim > 1)
            found.setdefault(key, []).append(parameter)
    groups = [
        {
            "params": parameters,
            "highest_lr": learning_rate * (head_factor if head else 1.0),
            "weight_decay": _WEIGHT_DECAY if matrix else 0.0,
        }
        for (head, matrix), parameters in found.items()
    ]
    return torch.optim.AdamW(groups, betas=_BETAS, fused=True)


def set_rates(optimizer: torch.optim.AdamW, done: float) -> None:
    """Set the learning rates for the next step. *done*: the share of all rows seen, 0 to 1."""
    for group in optimizer.param_groups:
        group["lr"] = group["highest_lr"] * learning_rate_at(done)


def learning_rate_at(done: float) -> float:
    """Return the factor on the learning rate. *done*: the share of all rows seen, 0 to 1."""
    if done < _WARM_UP:
        return done / _WARM_UP
    return (1 - done) / (1 - _WARM_UP)
