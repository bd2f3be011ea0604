"""The state of a training between two steps, as a checkpoint stores it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from sentimill_train.model.student import Student


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The progress of a training.

    rows: seen so far, of rows_total in all epochs. loss: running mean. nll, macro_f1: on the
    validation rows, after the last complete epoch. epoch_ended: true if *epoch* has just ended.
    """

    epoch: int
    rows: int
    rows_total: int
    loss: float
    nll: float | None
    macro_f1: float | None
    epoch_ended: bool


@dataclass(slots=True, kw_only=True)
class Position:
    """The state of the loop, without the tensors.

    bf16: whether matrix products are computed in bfloat16, which was measured at the start.
    ended: complete epochs. batches: done in the current epoch. shuffle: the state of the generator
    from which that epoch is planned. loss: running mean. nll, macro_f1: on the validation rows,
    after the last complete epoch; best_nll, best_macro_f1: those of best_epoch. seconds: of the
    runs before this one.
    """

    shuffle: Mapping[str, Any]
    bf16: bool = False
    ended: int = 0
    batches: int = 0
    rows: int = 0
    steps: int = 0
    loss: float = 0.0
    nll: float | None = None
    macro_f1: float | None = None
    best_nll: float | None = None
    best_macro_f1: float = 0.0
    best_epoch: int = 0
    seconds: float = 0.0
    curve: list[Progress] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class TrainingState:
    """All that the next step depends on, except the rows and the options.

    average: the averaged weights, None without averaging. best: the weights of
    `position.best_epoch`.
    """

    student: Student
    optimizer: torch.optim.AdamW
    average: AveragedModel | None
    best: dict[str, Tensor]
    position: Position

    def evaluated_student(self) -> Student:
        """Return the student with averaged weights once averaging has begun, else the student."""
        if self.average is None or int(self.average.n_averaged) == 0:
            return self.student
        return cast(Student, self.average.module)

    def generator(self) -> Tensor:
        """Return the state of the generator for dropout, (bytes,) uint8 on the CPU."""
        state = torch.get_rng_state()
        if self.student.device.type != "cuda":
            return state
        return torch.cat([state, torch.cuda.get_rng_state()])

    def tensors(self, generators: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return every tensor by name; *generators*: the `generator` of each process, by rank."""
        found = {f"student.{n}": tensor for n, tensor in self.student.state_dict().items()}
        found |= {f"best.{name}": tensor for name, tensor in self.best.items()}
        if self.average is not None:
            found |= {f"average.{name}": t for name, t in self.average.state_dict().items()}
        for i, state in self.optimizer.state_dict()["state"].items():
            found |= {f"optimizer.{i}.{name}": tensor for name, tensor in state.items()}
        return found | {f"generator.{rank}": state for rank, state in enumerate(generators)}

    def record(self, seconds: float) -> dict[str, object]:
        """Return the position as values for JSON, after *seconds* of training in all."""
        return {**asdict(self.position), "seconds": seconds}

    def restore(self, tensors: Mapping[str, Tensor], record: Mapping[str, Any], rank: int) -> None:
        """Restore the state that `tensors` and `record` gave, in the process *rank*."""

        def under(prefix: str) -> dict[str, Tensor]:
            return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}

        self.student.load_state_dict(under("student."))
        self.best = under("best.")
        if self.average is not None:
            self.average.load_state_dict(under("average."))
        states: dict[int, dict[str, Tensor]] = {}
        for name, tensor in under("optimizer.").items():
            i, _, key = name.partition(".")
            states.setdefault(int(i), {})[key] = tensor
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": states})
        self._restore_generator(tensors[f"generator.{rank}"])
        self.position = Position(
            **{**record, "curve": [Progress(**each) for each in record["curve"]]}
        )

    def _restore_generator(self, state: Tensor) -> None:
        on_cpu = len(torch.get_rng_state())
        torch.set_rng_state(state[:on_cpu])
        if self.student.device.type == "cuda" and len(state) > on_cpu:  # else saved on a CPU
            torch.cuda.set_rng_state(state[on_cpu:])


def weights_of(student: Student) -> dict[str, Tensor]:
    """Return a copy of the weights of *student*, by name."""
    return {name: tensor.detach().clone() for name, tensor in student.state_dict().items()}
