"""What training carries from one step to the next, and so what a checkpoint has to hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from sentimill_train.model.student import Student

__all__ = ["Carried", "Place", "Progress", "weights_of"]


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


@dataclass(slots=True, kw_only=True)
class Place:
    """Where the loop is: all but its tensors, as a checkpoint has it.

    ended: epochs; batches: taken of the one under way. shuffle: the state of the generator from
    which that one is planned. loss: running mean. score, best: macro-F1 on validation, of the last
    epoch and of best_epoch. seconds: before this run.
    """

    shuffle: Mapping[str, Any]
    ended: int = 0
    batches: int = 0
    rows: int = 0
    steps: int = 0
    loss: float = 0.0
    score: float | None = None
    best: float = -1.0
    best_epoch: int = 0
    seconds: float = 0.0
    curve: list[Progress] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class Carried:
    """All that the next step depends on, but for the rows and the options.

    mean: of the weights so far, where that is wanted. best: the weights of `place.best_epoch`.
    """

    student: Student
    optimiser: torch.optim.AdamW
    mean: AveragedModel | None
    best: dict[str, Tensor]
    place: Place

    def to_judge(self) -> Student:
        """Return the mean where it has begun, else the student."""
        if self.mean is None or int(self.mean.n_averaged) == 0:
            return self.student
        return cast(Student, self.mean.module)

    def generator(self) -> Tensor:
        """Return the state of what dropout draws from (bytes,) uint8, on the CPU."""
        state = torch.get_rng_state()
        if self.student.device.type != "cuda":
            return state
        return torch.cat([state, torch.cuda.get_rng_state()])

    def tensors(self, generators: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return every tensor by name; *generators*: the `generator` of each process, by rank."""
        found = {f"student.{n}": tensor for n, tensor in self.student.state_dict().items()}
        found |= {f"best.{name}": tensor for name, tensor in self.best.items()}
        if self.mean is not None:
            found |= {f"mean.{name}": tensor for name, tensor in self.mean.state_dict().items()}
        for i, state in self.optimiser.state_dict()["state"].items():
            found |= {f"optimiser.{i}.{name}": tensor for name, tensor in state.items()}
        return found | {f"generator.{rank}": state for rank, state in enumerate(generators)}

    def record(self, seconds: float) -> dict[str, object]:
        """Return the place as JSON has it, after *seconds* of training in all."""
        return {**asdict(self.place), "seconds": seconds}

    def restore(self, tensors: Mapping[str, Tensor], record: Mapping[str, Any], rank: int) -> None:
        """Become what was saved by `tensors` and `record`, in the process *rank*."""

        def under(prefix: str) -> dict[str, Tensor]:
            return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}

        self.student.load_state_dict(under("student."))
        self.best = under("best.")
        if self.mean is not None:
            self.mean.load_state_dict(under("mean."))
        states: dict[int, dict[str, Tensor]] = {}
        for name, tensor in under("optimiser.").items():
            i, _, key = name.partition(".")
            states.setdefault(int(i), {})[key] = tensor
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": states})
        self._restore_generator(tensors[f"generator.{rank}"])
        self.place = Place(**{**record, "curve": [Progress(**each) for each in record["curve"]]})

    def _restore_generator(self, state: Tensor) -> None:
        on_cpu = len(torch.get_rng_state())
        torch.set_rng_state(state[:on_cpu])
        if self.student.device.type == "cuda" and len(state) > on_cpu:  # else saved on a CPU
            torch.cuda.set_rng_state(state[on_cpu:])


def weights_of(student: Student) -> dict[str, Tensor]:
    """Return a copy of the weights of *student*, by name."""
    return {name: tensor.detach().clone() for name, tensor in student.state_dict().items()}
