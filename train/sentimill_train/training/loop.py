"""The training loop: soft targets where a teacher gave them, hard labels elsewhere."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from sentimill.errors import SentimillError
from sentimill_train.data.tokenized import Rows, plan_epoch
from sentimill_train.metrics.classification import macro_f1_of
from sentimill_train.model.student import Student, predict, to_tensors
from sentimill_train.training.checkpoint import Checkpoint, stop_signals
from sentimill_train.training.distributed import here
from sentimill_train.training.losses import distil_loss, hidden_loss, soften
from sentimill_train.training.optimizer import new_optimiser, parameter_groups, set_rates
from sentimill_train.training.state import Carried, Place, Progress, weights_of
from sentimill_train.training.teacher_model import Larger

__all__ = ["Fit", "FitConfig", "Progress", "fast_dtype", "fit", "seed_everything"]

_CLIP_NORM: Final = 1.0
_TOKENS_PER_ROW: Final = 128
_CURVE_POINTS: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class FitConfig:
    """How to train.

    batch_tokens: padded tokens in one batch; it also has at most batch_tokens / 128 rows, so that
    short reviews do not make few large steps. accumulate: batches in one step. soft_weight: 1
    learns from the teacher's shares alone where a row has them, 0 from the labels alone.
    distil_temperature: softens the shares and the student's own before they are compared; 1 takes
    them as they are. hidden_weight: of the squared difference from the token states of a larger
    student. average_last: the share of all rows, at the end, over whose steps the weights
    are averaged; 0 keeps the last. patience: epochs without a better macro-F1 on validation before
    it stops. bf16: matrix products run in bfloat16 where the hardware is faster at it, see
    `fast_dtype`; without it the weights depend less on the machine.
    """

    epochs: int = 5
    batch_tokens: int = 2048
    accumulate: int = 1
    learning_rate: float = 1e-4
    soft_weight: float = 0.5
    distil_temperature: float = 1.0
    hidden_weight: float = 0.0
    average_last: float = 0.0
    patience: int = 2
    seed: int = 0
    bf16: bool = True

    @property
    def batch_rows(self) -> int:
        """The most rows in one batch."""
        return max(1, self.batch_tokens // _TOKENS_PER_ROW)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """What training did.

    curve: the progress at about a hundred steps, and at the end of each epoch. autocast: the type
    that matrix products ran in. seconds: of all runs, where it went on from a checkpoint.
    interpolated_share: from `interpolate`, None where that was not asked.
    """

    epochs: int
    best_epoch: int
    steps: int
    macro_f1: float
    seconds: float
    device: str
    autocast: str
    threads: int
    processes: int
    curve: tuple[Progress, ...]
    interpolated_share: float | None = None


def fit(
    student: Student,
    train: Rows,
    validation: Rows,
    config: FitConfig,
    watch: Callable[[Progress], None] = lambda progress: None,
    *,
    checkpoint: Checkpoint | None = None,
    larger: Larger | None = None,
) -> Fit:
    """Train *student* in place and leave it with the weights that were best on *validation*.

    The same seed, machine and thread count give the same weights, also where a run goes on from
    the *checkpoint* of one that was killed. The answers of a *larger* student, whose rows are those
    of *train*, take the place of their shares. *watch* is called after every step and after every
    epoch, and may raise to stop. Where other processes have joined this one, all of them call this
    with the same arguments, and N of them take the steps of one with N times as many batches each.

    Raises:
        UsageError: those of `Checkpoint.load`. SentimillError: STOPPED, on SIGINT or SIGTERM when
            there is a checkpoint, which then has the last step.
    """
    seed_everything(config.seed)
    loop = _Loop(student, train, validation, config, watch, checkpoint, larger)
    with stop_signals(caught=checkpoint is not None) as came:
        loop.run(came)
    student.load_state_dict(loop.carried.best)
    student.train(False)
    place = loop.carried.place
    return Fit(
        epochs=place.ended,
        best_epoch=place.best_epoch,
        steps=place.steps,
        macro_f1=place.best,
        seconds=loop.seconds(),
        device=str(student.device),
        autocast="float32" if loop.dtype is None else str(loop.dtype).removeprefix("torch."),
        threads=torch.get_num_threads(),
        processes=loop.processes.count,
        curve=tuple(place.curve),
    )


class _Loop:
    """The loop, and all that it carries from one step to the next."""

    def __init__(
        self,
        student: Student,
        train: Rows,
        validation: Rows,
        config: FitConfig,
        watch: Callable[[Progress], None],
        checkpoint: Checkpoint | None,
        larger: Larger | None,
    ) -> None:
        self.started = time.perf_counter()
        self.student, self.train, self.validation = student, train, validation
        self.config, self.watch, self.checkpoint = config, watch, checkpoint
        self.larger = larger
        self.processes = here()
        # Each process drops other units; the first draws what a single one would.
        torch.manual_seed(config.seed + self.processes.rank)
        self.total = config.epochs * len(train)
        self.dtype = fast_dtype(student.device) if config.bf16 else None
        self.rng = np.random.default_rng(config.seed)
        self.groups = parameter_groups(student, config.learning_rate)
        self.carried = Carried(
            student=student,
            optimiser=new_optimiser(self.groups),
            mean=AveragedModel(student) if config.average_last else None,
            best=weights_of(student),
            place=Place(shuffle=self.rng.bit_generator.state),
        )
        if (saved := checkpoint.load() if checkpoint else None) is not None:
            self.carried.restore(*saved, self.processes.rank)

    @property
    def place(self) -> Place:
        """Where it is."""
        return self.carried.place

    def run(self, came: Sequence[int]) -> None:
        """Go from where it is to the end, or until a signal *came*."""
        place, config = self.place, self.config
        while place.ended < config.epochs:
            if place.ended and place.ended - place.best_epoch >= config.patience:
                break
            self._epoch(came)
            self._judge()
            self._tell(epoch_ended=True)
            self._save()
            if came and self.processes.count == 1:
                break
        if came:
            raise self._stopped(came)

    def seconds(self) -> float:
        """Return how long training took until now."""
        return self.place.seconds + time.perf_counter() - self.started

    def _epoch(self, came: Sequence[int]) -> None:
        place = self.place
        self.rng.bit_generator.state = place.shuffle
        plan = plan_epoch(
            self.train.lengths(),
            batch_tokens=self.config.batch_tokens,
            batch_rows=self.config.batch_rows,
            rng=self.rng,
        )
        self.student.train()
        left = list(plan)[place.batches :]
        for batches in _groups_of(left, self.config.accumulate * self.processes.count):
            step_loss, save, stop = self._step(batches, came)
            place.batches += len(batches)
            place.rows += sum(map(len, batches))
            place.steps += 1
            place.loss = step_loss if place.steps == 1 else 0.98 * place.loss + 0.02 * step_loss
            if (mean := self.carried.mean) is not None and self._late():
                mean.update_parameters(self.student)
            self._tell(epoch_ended=False)
            stop = stop or (len(came) > 0 and self.processes.count == 1)
            if save or stop:
                self._save()
            if stop:
                raise self._stopped(came)
        place.ended, place.batches = place.ended + 1, 0
        place.shuffle = self.rng.bit_generator.state

    def _step(self, batches: Sequence[list[int]], came: Sequence[int]) -> tuple[float, bool, bool]:
        """Learn from *batches* as from one, each process from its share of them.

        Returns the mean loss of this process's share, and whether any process wants to save, and
        to stop: that goes round with the gradients, so that all do it after the same step.
        """
        set_rates(self.carried.optimiser, self.groups, self.place.rows / self.total)
        # Over the full batches' rows: a long review in a batch of few counts as much as a short.
        full = self.config.batch_rows * self.config.accumulate * self.processes.count
        mine = batches[self.processes.rank :: self.processes.count]
        summed = 0.0
        for chosen in mine:
            losses = self._losses(chosen)
            (losses.sum() / full).backward()
            summed += float(losses.detach().mean()) * len(chosen)
        due = self.checkpoint is not None and self.processes.rank == 0 and self.checkpoint.due()
        parameters = [p for group in self.groups for p in group.parameters]
        save, stop = self.processes.sum_gradients(parameters, torch.tensor([due, len(came)]))
        nn.utils.clip_grad_norm_(self.student.parameters(), _CLIP_NORM)
        self.carried.optimiser.step()
        self.carried.optimiser.zero_grad()
        return summed / max(1, sum(map(len, mine))), bool(save), bool(stop)

    def _losses(self, chosen: Sequence[int]) -> Tensor:
        config, device = self.config, self.student.device
        ids, mask = to_tensors(self.student, self.train, chosen)
        gold = torch.from_numpy(self.train.gold[chosen]).to(device)
        temperature = config.distil_temperature
        with _autocast(device, self.dtype):
            logits, states = self.student.read(ids, mask)
        if self.larger is None:
            soft = soften(torch.from_numpy(self.train.soft[chosen]).to(device), temperature)
            return distil_loss(logits, gold, soft, config.soft_weight, temperature)
        with _autocast(device, self.dtype):
            answers, wanted = self.larger.read(chosen)
        soft = (answers / temperature).softmax(-1)
        losses = distil_loss(logits, gold, soft, config.soft_weight, temperature)
        if config.hidden_weight > 0:
            losses = losses + config.hidden_weight * hidden_loss(states, wanted, mask)
        return losses

    def _late(self) -> bool:
        return self.place.rows > (1 - self.config.average_last) * self.total

    def _judge(self) -> None:
        place = self.place
        student = self.carried.to_judge()
        score = 0.0
        if self.processes.rank == 0:
            with _autocast(self.student.device, self.dtype):
                answers = predict(student, self.validation).argmax(1)
            score = macro_f1_of(answers, self.validation.gold)
        place.score = self.processes.from_first(score)
        if place.score > place.best:
            place.best, place.best_epoch = place.score, place.ended
            self.carried.best = weights_of(student)

    def _save(self) -> None:
        if self.checkpoint is None:
            return
        generators = self.processes.gather(self.carried.generator())
        if self.processes.rank == 0:
            record = self.carried.record(self.seconds())
            self.checkpoint.save(self.carried.tensors(generators), record)

    def _stopped(self, came: Sequence[int]) -> SentimillError:
        name = signal.Signals(came[0]).name if came else "a signal to another process"
        folder = self.checkpoint.folder if self.checkpoint else None
        return SentimillError(
            f"stopped by {name} after {self.place.rows} of {self.total} rows: the same command goes"
            f" on from {folder}",
            reason="STOPPED",
        )

    def _tell(self, *, epoch_ended: bool) -> None:
        place = self.place
        progress = Progress(
            epoch=place.ended + (not epoch_ended),
            rows=place.rows,
            rows_total=self.total,
            loss=place.loss,
            macro_f1=place.score,
            epoch_ended=epoch_ended,
        )
        drawn = place.curve[-1].rows if place.curve else 0
        if epoch_ended or place.rows - drawn >= self.total / _CURVE_POINTS:
            place.curve.append(progress)
        self.watch(progress)


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


def _groups_of(batches: list[list[int]], size: int) -> list[list[list[int]]]:
    return [batches[start : start + size] for start in range(0, len(batches), size)]


def _autocast(device: torch.device, dtype: torch.dtype | None) -> torch.autocast:
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)
