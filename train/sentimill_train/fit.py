"""The training loop: soft targets where a teacher gave them, hard labels elsewhere."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from sentimill_train.losses import distil_loss, soften
from sentimill_train.measures import macro_f1_of
from sentimill_train.student import Student, predict, to_tensors
from sentimill_train.tokens import Rows, plan_epoch

__all__ = [
    "Fit",
    "FitConfig",
    "Group",
    "Progress",
    "fast_dtype",
    "fit",
    "learning_rate_at",
]

_HEAD_FACTOR: Final = 10.0  # the head starts from noise, the encoder from a good place
_WEIGHT_DECAY: Final = 0.01
_BETAS: Final = (0.9, 0.98)
_CLIP_NORM: Final = 1.0
_WARM_UP: Final = 0.1  # of all rows seen
_TOKENS_PER_ROW: Final = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class FitConfig:
    """How to train.

    batch_tokens: padded tokens in one step; a step also has at most batch_tokens / 128 rows, so
    that short reviews do not make few large steps. soft_weight: 1 learns from the teacher's shares
    alone where a row has them, 0 from the labels alone. distil_temperature: softens the shares and
    the student's own before they are compared; 1 takes them as they are. patience: epochs without a
    better macro-F1 on validation before it stops.
    """

    epochs: int = 5
    batch_tokens: int = 2048
    learning_rate: float = 1e-4
    soft_weight: float = 0.5
    distil_temperature: float = 1.0
    patience: int = 2
    seed: int = 0

    @property
    def batch_rows(self) -> int:
        """The most rows in one step."""
        return max(1, self.batch_tokens // _TOKENS_PER_ROW)


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where training is.

    rows: seen so far, of rows_total in all epochs. loss: running mean. macro_f1: on validation,
    of the last epoch that ended; epoch_ended says that this one just did.
    """

    epoch: int
    rows: int
    rows_total: int
    loss: float
    macro_f1: float | None
    epoch_ended: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """What training did. `autocast` is the type that matrix products ran in."""

    epochs: int
    best_epoch: int
    steps: int
    macro_f1: float
    seconds: float
    device: str
    autocast: str
    threads: int


def fit(
    student: Student,
    train: Rows,
    validation: Rows,
    config: FitConfig,
    watch: Callable[[Progress], None] = lambda progress: None,
) -> Fit:
    """Train *student* in place and leave it with the weights that were best on *validation*.

    The same seed, machine and thread count give the same weights. *watch* is called after every
    step and after every epoch, and may raise to stop.
    """
    started = time.perf_counter()
    seed_everything(config.seed)
    rng = np.random.default_rng(config.seed)
    dtype = fast_dtype(student.device)
    groups = parameter_groups(student, config.learning_rate)
    optimiser = torch.optim.AdamW(
        [{"params": list(g.parameters), "weight_decay": g.weight_decay} for g in groups],
        betas=_BETAS,
        fused=True,
    )
    best, best_epoch, best_weights = -1.0, 0, _weights(student)
    total = config.epochs * len(train)
    seen, steps, loss, epoch = 0, 0, 0.0, 0
    score: float | None = None

    def tell(epoch_ended: bool) -> None:
        watch(
            Progress(
                epoch=epoch,
                rows=seen,
                rows_total=total,
                loss=loss,
                macro_f1=score,
                epoch_ended=epoch_ended,
            )
        )

    for epoch in range(1, config.epochs + 1):
        student.train()
        for chosen in _batches(train, config, rng):
            for settings, group in zip(optimiser.param_groups, groups, strict=True):
                settings["lr"] = group.learning_rate * learning_rate_at(seen / total)
            step_loss = _step(student, train, chosen, config, dtype)
            optimiser.step()
            optimiser.zero_grad()
            seen, steps = seen + len(chosen), steps + 1
            loss = step_loss if steps == 1 else 0.98 * loss + 0.02 * step_loss
            tell(epoch_ended=False)
        with _autocast(student.device, dtype):
            score = macro_f1_of(predict(student, validation).argmax(1), validation.gold)
        if score > best:
            best, best_epoch, best_weights = score, epoch, _weights(student)
        tell(epoch_ended=True)
        if epoch - best_epoch >= config.patience:
            break
    student.load_state_dict(best_weights)
    student.train(False)
    return Fit(
        epochs=epoch,
        best_epoch=best_epoch,
        steps=steps,
        macro_f1=best,
        seconds=time.perf_counter() - started,
        device=str(student.device),
        autocast="float32" if dtype is None else str(dtype).removeprefix("torch."),
        threads=torch.get_num_threads(),
    )


def learning_rate_at(done: float) -> float:
    """Return the factor on the learning rate when *done* of all rows were seen, 0 to 1."""
    if done < _WARM_UP:
        return done / _WARM_UP
    return (1 - done) / (1 - _WARM_UP)


def fast_dtype(device: torch.device) -> torch.dtype | None:
    """Return bfloat16 where the hardware multiplies it faster than float32, else None.

    On a CPU that means AVX512-BF16 or AMX; without them it is emulated, and slower. Measured on an
    EPYC with AVX512-BF16: 383 against 122 GFLOP/s at (1024, 384) x (384, 1536).
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else None
    if device.type != "cpu":
        return None
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    fast = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    return torch.bfloat16 if fast else None


def seed_everything(seed: int) -> None:
    """Seed every generator that training may draw from."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def _batches(train: Rows, config: FitConfig, rng: np.random.Generator) -> Iterator[list[int]]:
    return plan_epoch(
        train.lengths(), batch_tokens=config.batch_tokens, batch_rows=config.batch_rows, rng=rng
    )


def _step(
    student: Student,
    train: Rows,
    chosen: list[int],
    config: FitConfig,
    dtype: torch.dtype | None,
) -> float:
    """Add the gradients of one batch, and return its mean loss."""
    ids, mask = to_tensors(student, train, chosen)
    gold = torch.from_numpy(train.gold[chosen]).to(student.device)
    soft = torch.from_numpy(train.soft[chosen]).to(student.device)
    soft = soften(soft, config.distil_temperature)
    with _autocast(student.device, dtype):
        logits = student(ids, mask)
    losses = distil_loss(logits, gold, soft, config.soft_weight, config.distil_temperature)
    # Over the full batch's rows: a long review in a batch of few counts as much as a short one.
    (losses.sum() / config.batch_rows).backward()
    nn.utils.clip_grad_norm_(student.parameters(), _CLIP_NORM)
    return float(losses.detach().mean())


def _autocast(device: torch.device, dtype: torch.dtype | None) -> torch.autocast:
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Parameters that are trained alike; `learning_rate` is its highest."""

    parameters: tuple[nn.Parameter, ...]
    learning_rate: float
    weight_decay: float


def parameter_groups(student: Student, learning_rate: float) -> list[Group]:
    """Return what is trained of *student* in up to four groups: head or not, decayed or not.

    Biases and LayerNorm weights, which are the vectors, are not decayed: it would only pull them
    to zero.
    """
    found: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in student.named_parameters():
        if not parameter.requires_grad:
            continue
        found.setdefault((name.startswith("head."), parameter.ndim > 1), []).append(parameter)
    return [
        Group(
            parameters=tuple(parameters),
            learning_rate=learning_rate * (_HEAD_FACTOR if head else 1.0),
            weight_decay=_WEIGHT_DECAY if matrix else 0.0,
        )
        for (head, matrix), parameters in found.items()
    ]


def _weights(student: Student) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in student.state_dict().items()}
