"""One of the processes of a training, as `torchrun` starts it: two_processes.py FOLDER.

It leaves the rows that it learnt from, by epoch, as rows-RANK.json, and rank 0 the weights.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from unittest import mock

import torch
from safetensors.torch import save_file

from sentimill_train.data.tokenized import Rows
from sentimill_train.model.student import Student, to_tensors
from sentimill_train.training import loop as fitting
from sentimill_train.training.checkpoint import Checkpoint
from sentimill_train.training.distributed import process_group
from sentimill_train.training.loop import FitConfig, fit
from train_parts import reviews, rows_of, student

# In float32: bfloat16, where the CPU has it, rounds one batch of 16 rows and two of 8 differently.
CONFIG = FitConfig(epochs=2, learning_rate=3e-3, batch_tokens=1024, patience=2, bf16=False)
ROWS = 148  # 19 batches of up to 8 rows: in the last step one of the two processes has none


def quiet_student(folder: Path) -> Student:
    """Return a student without dropout, whose noise would differ."""
    made = student(folder)
    for module in made.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return made


def main(folder: Path) -> None:
    """Train, and note what was learnt from."""
    seen: list[list[int]] = []

    def noting(model: Student, rows: Rows, chosen: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        seen[-1].extend(chosen)
        return to_tensors(model, rows, chosen)

    # Before it joins: transformers lets none but the first of several processes write a base.
    made = quiet_student(folder / os.environ["RANK"])
    with mock.patch.object(fitting, "to_tensors", noting), process_group() as process:
        seen.append([])
        fit(
            made,
            rows_of(reviews(ROWS)),
            rows_of(reviews(40, seed=1)),
            CONFIG,
            lambda progress: seen.append([]) if progress.epoch_ended else None,
            checkpoint=Checkpoint(folder / "c", {}, minutes=0),
        )
        (folder / f"rows-{process.rank}.json").write_text(json.dumps(seen))
        if process.rank == 0:
            save_file(made.state_dict(), folder / "weights.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
