"""AdamW with four groups of parameters, and a learning rate that rises, then falls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import nn

from sentimill_train.model.student import Student

__all__ = ["Group", "learning_rate_at", "new_optimizer", "parameter_groups", "set_rates"]

_WEIGHT_DECAY: Final = 0.01
_BETAS: Final = (0.9, 0.98)
_WARM_UP: Final = 0.1  # of all rows seen


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Parameters that are trained alike; `learning_rate` is its highest."""

    parameters: tuple[nn.Parameter, ...]
    learning_rate: float
    weight_decay: float


def parameter_groups(student: Student, learning_rate: float, head_factor: float) -> list[Group]:
    """Return what is trained of *student* in up to four groups: head or not, decayed or not.

    The head learns at *head_factor* times the rate of the encoder. Biases and LayerNorm weights,
    which are the vectors, are not decayed: decay would only pull them to zero.
    """
    found: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in student.named_parameters():
        if not parameter.requires_grad:
            continue
        found.setdefault((name.startswith("head."), parameter.ndim > 1), []).append(parameter)
    return [
        Group(
            parameters=tuple(parameters),
            learning_rate=learning_rate * (head_factor if head else 1.0),
            weight_decay=_WEIGHT_DECAY if matrix else 0.0,
        )
        for (head, matrix), parameters in found.items()
    ]


def new_optimizer(groups: Sequence[Group]) -> torch.optim.AdamW:
    """Return AdamW over *groups*, in their order; `set_rates` gives it its rates."""
    return torch.optim.AdamW(
        [{"params": list(g.parameters), "weight_decay": g.weight_decay} for g in groups],
        betas=_BETAS,
        fused=True,
    )


def set_rates(optimizer: torch.optim.AdamW, groups: Sequence[Group], done: float) -> None:
    """Set the learning rates for the step after *done* of all rows were seen, 0 to 1."""
    for settings, group in zip(optimizer.param_groups, groups, strict=True):
        settings["lr"] = group.learning_rate * learning_rate_at(done)


def learning_rate_at(done: float) -> float:
    """Return the factor on the learning rate when *done* of all rows were seen, 0 to 1."""
    if done < _WARM_UP:
        return done / _WARM_UP
    return (1 - done) / (1 - _WARM_UP)
