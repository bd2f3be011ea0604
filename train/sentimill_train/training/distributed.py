"""One training in several processes, started by `torchrun`.

Each process has the whole student and learns from its share of the batches of each step. Their
gradients are summed, so all take the same step. DistributedDataParallel of torch is not used: one
all-reduce a step is enough, and the student stays a plain module.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Process:
    """This process, one of *count*; the process with `rank` 0 validates, reports and writes.

    Every process must call each method, in the same order.
    """

    rank: int = 0
    count: int = 1

    def sum_gradients(self, parameters: Sequence[nn.Parameter], extra: Tensor) -> Tensor:
        """Sum the gradients of *parameters* over all processes; return the sum of *extra* (n,)."""
        if self.count == 1:
            return extra
        parts = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
        flat = torch.cat([extra.to(parts[0]), *(part.flatten() for part in parts)])
        dist.all_reduce(flat)
        total, *summed = flat.split([len(extra), *(part.numel() for part in parts)])
        for parameter, gradient in zip(parameters, summed, strict=True):
            parameter.grad = gradient.view_as(parameter)
        answer: Tensor = total.to(extra)
        return answer

    def from_first(self, value: float) -> float:
        """Return the *value* of rank 0."""
        if self.count == 1:
            return value
        sent = torch.tensor([value], dtype=torch.float64)
        dist.broadcast(sent, src=0)
        return float(sent)

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """Return the *tensor* of every process, by rank; all have one shape, on the CPU."""
        if self.count == 1:
            return [tensor]
        found = [torch.empty_like(tensor) for _ in range(self.count)]
        dist.all_gather(found, tensor)
        return found


def current_process() -> Process:
    """Return this process in its `process_group`; without a group it is the only one."""
    if not dist.is_initialized():
        return Process()
    return Process(dist.get_rank(), dist.get_world_size())


@contextmanager
def process_group() -> Iterator[Process]:
    """Join the processes that the environment names (WORLD_SIZE, RANK, ...), if it names any.

    CPU tensors are exchanged with gloo, GPU tensors with NCCL; each process takes the GPU of its
    LOCAL_RANK.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Process()
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group()
    try:
        yield current_process()
    finally:
        leave_process_group()


def leave_process_group() -> None:
    """Leave the process group, if there is one, so that this process continues alone."""
    if dist.is_initialized():
        dist.destroy_process_group()
