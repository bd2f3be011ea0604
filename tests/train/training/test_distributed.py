"""Two processes train the model that one would, each from its own half of the rows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from repository import SUPPORT
from sentimill.bundle.reader import open_bundle
from sentimill_train.data.examples import write_examples
from sentimill_train.training.distributed import Process, current_process, process_group
from sentimill_train.training.loop import fit
from train_parts import TWO, reviews, rows_of, write_base
from two_processes import CONFIG, ROWS, quiet_student

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def launch(*command: str | Path) -> str:
    """Run *command* in two processes that have joined by gloo, and return what both said."""
    done = subprocess.run(
        [*TORCHRUN, *map(str, command)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_a_process_alone_is_the_first_of_one() -> None:
    """Nothing is joined where nothing was launched."""
    with process_group() as process:
        extra = process.sum_gradients([], torch.tensor([1, 2]))

    assert (process, current_process()) == (Process(0, 1), Process(0, 1))
    assert (extra.tolist(), process.from_first(0.5)) == ([1, 2], 0.5)


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one_with_twice_the_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same weights but for float noise, and every row in one of the two, once an epoch."""
    launch(SUPPORT / "two_processes.py", tmp_path)

    first, second = (json.loads((tmp_path / f"rows-{rank}.json").read_text()) for rank in (0, 1))
    for epoch in range(CONFIG.epochs):
        assert sorted(first[epoch] + second[epoch]) == list(range(ROWS))
        assert min(len(first[epoch]), len(second[epoch])) > ROWS / 3
    one = quiet_student(tmp_path / "one")
    fit(
        one,
        rows_of(reviews(ROWS)),
        rows_of(reviews(40, seed=1)),
        replace(CONFIG, accumulate=2),
    )
    two = load_file(tmp_path / "weights.safetensors")
    for name, tensor in one.state_dict().items():
        torch.testing.assert_close(two[name], tensor, atol=1e-4, rtol=1e-3)


@pytest.mark.slow
def test_one_of_two_processes_reports_and_writes(tmp_path: Path) -> None:
    """The command gives one bundle, as good as that of one process, and says each thing once."""
    write_examples(tmp_path / "r.jsonl", reviews(400))
    base = write_base(tmp_path / "base")
    program = tmp_path / "program.py"
    program.write_text("from sentimill.cli.main import main\nmain()\n")

    said = launch(
        *(program, "train", "--reviews", tmp_path / "r.jsonl", "--out", tmp_path / "b"),
        *("--labels", ",".join(TWO), "--base", base, "--preset", "tiny", "--max-tokens", "48"),
        *("--epochs", "4", "--learning-rate", "5e-3", "--batch-tokens", "1024", "--no-baselines"),
    )

    training = open_bundle(tmp_path / "b").manifest.training
    assert training["processes"] == 2
    assert float(str(training["best_validation_macro_f1"])) >= 0.95
    assert (said.count("epoch 1: "), said.count("trained on")) == (1, 1)
