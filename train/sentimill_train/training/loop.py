"""The training loop: it learns soft labels where rows have them, and hard labels elsewhere."""

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
from sentimill_train.calibration.temperature import calibrated_nll
from sentimill_train.data.tokenized import Rows, plan_epoch
from sentimill_train.metrics.classification import macro_f1_of
from sentimill_train.model.autocast import autocast, fast_dtype, training_attention
from sentimill_train.model.student import Student, predict, to_tensors
from sentimill_train.training.checkpoint import Checkpoint, stop_signals
from sentimill_train.training.distributed import current_process
from sentimill_train.training.losses import distil_loss, hidden_loss
from sentimill_train.training.optimizer import new_optimizer, set_rates
from sentimill_train.training.state import Position, Progress, TrainingState, weights_of
from sentimill_train.training.teacher_model import Teacher

__all__ = ["Fit", "FitConfig", "Progress", "fit", "seed_everything"]

_CLIP_NORM: Final = 1.0
_TOKENS_PER_ROW: Final = 128
_CURVE_POINTS: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class FitConfig:
    """How to train.

    batch_tokens: padded tokens in one batch; it also has at most batch_tokens / 128 rows, because
    short reviews would else make few large steps. accumulate: batches in one step. soft_weight: 1
    learns only from the soft labels of a row that has them, 0 only from the labels.
    distil_temperatures: soften the soft labels and the student's probs before they are compared;
    the loss is the mean over them; 1 changes nothing. hidden_weight: weight of the squared
    difference from the token states of a teacher. head_factor: the learning rate of the head,
    relative to that of the encoder; a new head starts from noise, a trained one does not.
    average_last: the weights are averaged over the steps of this last share of all rows; 0 keeps
    the last weights. patience: early stopping after so many epochs without a lower loss on the
    validation rows. bf16: compute matrix products in bfloat16 where the hardware is faster at it,
    see `fast_dtype`; without it the weights depend less on the machine.
    """

    epochs: int = 5
    batch_tokens: int = 2048
    accumulate: int = 1
    learning_rate: float = 1e-4
    soft_weight: float = 0.5
    distil_temperatures: tuple[float, ...] = (1.0,)
    hidden_weight: float = 0.0
    head_factor: float = 10.0
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
    """The record of a training.

    nll, macro_f1: of the best epoch, on the validation rows. curve: the progress at about a hundred
    steps, and at the end of each epoch. autocast: the dtype of matrix products. seconds: includes
    the runs before, if this one continued a checkpoint. interpolated_share: from `interpolate`;
    None if it was not called.
    """

    epochs: int
    best_epoch: int
    steps: int
    nll: float
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
    teacher: Teacher | None = None,
) -> Fit:
    """Train *student* in place and leave it with the weights that were best on *validation*.

    The same seed, machine and thread count give the same weights, even if a run continues the
    *checkpoint* of a killed one. *teacher* has the same rows as *train*, and gives its token states
    if `hidden_weight` is above 0. *watch* is called after every step and after every epoch, and may
    raise to stop. In a process group all processes call this with the same arguments. N processes
    take the same steps as a single one with N times the `accumulate`.

    Raises:
        UsageError: those of `Checkpoint.load`. SentimillError: STOPPED, on SIGINT or SIGTERM if
            there is a checkpoint, which then includes the last step.
    """
    seed_everything(config.seed)
    loop = _Loop(student, train, validation, config, watch, checkpoint, teacher)
    with stop_signals(caught=checkpoint is not None) as signals:
        loop.run(signals)
    student.load_state_dict(loop.state.best)
    student.train(False)
    position = loop.position
    return Fit(
        epochs=position.ended,
        best_epoch=position.best_epoch,
        steps=position.steps,
        nll=position.best_nll if position.best_nll is not None else float("nan"),
        macro_f1=position.best_macro_f1,
        seconds=loop.seconds(),
        device=str(student.device),
        autocast="float32" if loop.dtype is None else str(loop.dtype).removeprefix("torch."),
        threads=torch.get_num_threads(),
        processes=loop.process.count,
        curve=tuple(position.curve),
    )


class _Loop:
    """The loop, and its state between two steps."""

    def __init__(
        self,
        student: Student,
        train: Rows,
        validation: Rows,
        config: FitConfig,
        watch: Callable[[Progress], None],
        checkpoint: Checkpoint | None,
        teacher: Teacher | None,
    ) -> None:
        self.started = time.perf_counter()
        self.student, self.train, self.validation = student, train, validation
        self.config, self.watch, self.checkpoint = config, watch, checkpoint
        self.teacher = teacher
        self.process = current_process()
        # Dropout differs between processes; the first draws the same as a single process.
        torch.manual_seed(config.seed + self.process.rank)
        self.total = config.epochs * len(train)
        fast = config.bf16 and fast_dtype(student.device) is not None
        self.rng = np.random.default_rng(config.seed)
        self.state = TrainingState(
            student=student,
            optimizer=new_optimizer(student, config.learning_rate, config.head_factor),
            average=AveragedModel(student) if config.average_last else None,
            best=weights_of(student),
            position=Position(
                shuffle=self.rng.bit_generator.state,
                bf16=bool(self.process.from_first(float(fast))),  # one choice for all processes
            ),
        )
        if (saved := checkpoint.load() if checkpoint else None) is not None:
            self.state.restore(*saved, self.process.rank)
        self.position = self.state.position
        self.dtype = torch.bfloat16 if self.position.bf16 else None

    def run(self, signals: Sequence[int]) -> None:
        """Run from the current position to the end, or until there are *signals*."""
        position, config = self.position, self.config
        while position.ended < config.epochs:
            if position.ended and position.ended - position.best_epoch >= config.patience:
                break
            self._epoch(signals)
            self._validate()
            self._tell(epoch_ended=True)
            self._save()
            if signals and self.process.count == 1:
                break
        if signals:
            raise self._stopped(signals)

    def seconds(self) -> float:
        """Return how long training has taken so far."""
        return self.position.seconds + time.perf_counter() - self.started

    def _epoch(self, signals: Sequence[int]) -> None:
        position = self.position
        self.rng.bit_generator.state = position.shuffle
        plan = plan_epoch(
            self.train.lengths(),
            batch_tokens=self.config.batch_tokens,
            batch_rows=self.config.batch_rows,
            rng=self.rng,
        )
        self.student.train()
        left = list(plan)[position.batches :]
        for batches in _groups_of(left, self.config.accumulate * self.process.count):
            step_loss, save, stop = self._step(batches, signals)
            position.batches += len(batches)
            position.rows += sum(map(len, batches))
            position.steps += 1
            first = position.steps == 1
            position.loss = step_loss if first else 0.98 * position.loss + 0.02 * step_loss
            late = position.rows > (1 - self.config.average_last) * self.total
            if late and self.state.average is not None:
                self.state.average.update_parameters(self.student)
            self._tell(epoch_ended=False)
            stop = stop or (len(signals) > 0 and self.process.count == 1)
            if save or stop:
                self._save()
            if stop:
                raise self._stopped(signals)
        position.ended, position.batches = position.ended + 1, 0
        position.shuffle = self.rng.bit_generator.state

    def _step(
        self, batches: Sequence[list[int]], signals: Sequence[int]
    ) -> tuple[float, bool, bool]:
        """Take one step on *batches*, each process computing its share of them.

        Returns the mean loss of the share of this process, and whether any process wants to save,
        or to stop. These wishes are summed with the gradients, so all follow after the same step.
        """
        set_rates(self.state.optimizer, self.position.rows / self.total)
        # Dividing by the rows of full batches makes a long review, in a batch of few, count as
        # much as a short one.
        full = self.config.batch_rows * self.config.accumulate * self.process.count
        mine = batches[self.process.rank :: self.process.count]
        summed = 0.0
        for chosen in mine:
            losses = self._losses(chosen)
            (losses.sum() / full).backward()
            summed += float(losses.detach().mean()) * len(chosen)
        due = self.checkpoint is not None and self.process.rank == 0 and self.checkpoint.due()
        parameters = [p for group in self.state.optimizer.param_groups for p in group["params"]]
        save, stop = self.process.sum_gradients(parameters, torch.tensor([due, len(signals)]))
        nn.utils.clip_grad_norm_(self.student.parameters(), _CLIP_NORM)
        self.state.optimizer.step()
        self.state.optimizer.zero_grad()
        return summed / max(1, sum(map(len, mine))), bool(save), bool(stop)

    def _losses(self, chosen: Sequence[int]) -> Tensor:
        """Return the weighted loss of each of the *chosen* rows (rows,)."""
        config, device, train = self.config, self.student.device, self.train
        ids, mask = to_tensors(self.student, train, chosen)
        gold, soft, weight, allowed = (
            torch.from_numpy(each[chosen]).to(device)
            for each in (train.gold, train.soft, train.weight, train.allowed)
        )
        with autocast(device, self.dtype), training_attention(device, self.dtype, ids.shape[1]):
            logits, states = self.student.read(ids, mask)
        losses = distil_loss(
            logits, gold, soft, config.soft_weight, config.distil_temperatures, allowed
        )
        if self.teacher is not None and config.hidden_weight > 0:
            with autocast(device, self.dtype):
                _, wanted = self.teacher.read(chosen)
            losses = losses + config.hidden_weight * hidden_loss(states, wanted, mask)
        return losses * weight

    def _validate(self) -> None:
        position = self.position
        nll = macro_f1 = 0.0
        if self.process.rank == 0:
            with autocast(self.student.device, self.dtype):
                logits = predict(self.state.evaluated_student(), self.validation)
            nll = calibrated_nll(logits, self.validation.gold)
            macro_f1 = macro_f1_of(logits.argmax(1), self.validation.gold)
        position.nll = self.process.from_first(nll)
        position.macro_f1 = self.process.from_first(macro_f1)
        if position.best_nll is None or position.nll < position.best_nll:
            position.best_nll, position.best_macro_f1 = position.nll, position.macro_f1
            position.best_epoch = position.ended
            self.state.best = weights_of(self.state.evaluated_student())

    def _save(self) -> None:
        if self.checkpoint is None:
            return
        generators = self.process.gather(self.state.generator())
        if self.process.rank == 0:
            record = self.state.record(self.seconds())
            self.checkpoint.save(self.state.tensors(generators), record)

    def _stopped(self, signals: Sequence[int]) -> SentimillError:
        name = signal.Signals(signals[0]).name if signals else "a signal to another process"
        folder = self.checkpoint.folder if self.checkpoint else None
        return SentimillError(
            f"stopped by {name} after {self.position.rows} of {self.total} rows: the same command"
            f" continues from {folder}",
            reason="STOPPED",
        )

    def _tell(self, *, epoch_ended: bool) -> None:
        position = self.position
        progress = Progress(
            epoch=position.ended + (not epoch_ended),
            rows=position.rows,
            rows_total=self.total,
            loss=position.loss,
            nll=position.nll,
            macro_f1=position.macro_f1,
            epoch_ended=epoch_ended,
        )
        drawn = position.curve[-1].rows if position.curve else 0
        if epoch_ended or position.rows - drawn >= self.total / _CURVE_POINTS:
            position.curve.append(progress)
        self.watch(progress)


def seed_everything(seed: int) -> None:
    """Seed every random generator that training may use."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def _groups_of(batches: list[list[int]], size: int) -> list[list[list[int]]]:
    return [batches[start : start + size] for start in range(0, len(batches), size)]
