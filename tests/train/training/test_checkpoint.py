"""A killed training goes on to the very weights of one that was not killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from checkpoint_runs import assert_same, at_call, nothing, trained
from repository import SUPPORT
from sentimill.errors import UsageError
from sentimill_train.data.examples import write_examples
from sentimill_train.evaluation.training_evaluation import EvaluationConfig
from sentimill_train.pipeline import Train
from sentimill_train.training import checkpoint as checkpoints
from sentimill_train.training import loop
from sentimill_train.training.checkpoint import Checkpoint
from sentimill_train.training.loop import Fit, FitConfig
from server_process import COMMAND
from train_parts import TWO, reviews, write_base

pytestmark = pytest.mark.slow


class Killed(BaseException):
    """Stands for a kill: no code of ours catches it."""


def die() -> None:
    """Be killed."""
    raise Killed


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Tensor], Fit]:
    """Return what a run gives that nobody interrupts."""
    return trained(tmp_path_factory.mktemp("whole"), None, at_call(0, nothing))


# 8 steps an epoch, and the ninth call says that it ended.
@pytest.mark.parametrize("calls", [(1,), (8,), (9,), (4, 7, 12), (26,), (27,)])
def test_a_run_killed_after_any_step_ends_with_the_same_weights(
    tmp_path: Path, whole: tuple[dict[str, Tensor], Fit], calls: tuple[int, ...]
) -> None:
    """In the middle of an epoch, at its end, twice, and behind the last step of all."""
    for number in calls:
        with pytest.raises(Killed):
            trained(tmp_path, Checkpoint(tmp_path / "c", {}, minutes=0), at_call(number, die))

    found = trained(tmp_path, Checkpoint(tmp_path / "c", {}, minutes=0), at_call(0, nothing))

    assert_same(found, whole)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_after_the_step_and_saves(tmp_path: Path, number: signal.Signals) -> None:
    """However long ago the last checkpoint was; the handlers are put back."""
    program = SUPPORT / "stopped_training.py"
    done = subprocess.run(
        [sys.executable, program, tmp_path, str(int(number))],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"STOPPED stopped by {number.name} after 48 of 360")


def test_a_killed_run_continues_in_the_type_that_it_began_in(
    tmp_path: Path, whole: tuple[dict[str, Tensor], Fit], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine, the second measurement may find the other type to be faster."""
    with pytest.raises(Killed):
        trained(tmp_path, Checkpoint(tmp_path / "c", {}, minutes=0), at_call(4, die))
    other = None if whole[1].autocast == "bfloat16" else torch.bfloat16
    monkeypatch.setattr(loop, "fast_dtype", lambda _device: other)

    found = trained(tmp_path, Checkpoint(tmp_path / "c", {}, minutes=0), at_call(0, nothing))

    assert_same(found, whole)


def test_the_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    """With each thing that differs: values where a person knows them."""
    Checkpoint(tmp_path, {"--seed": 3, "--base": "a" * 64, "--lora": None}).save({}, {})

    with pytest.raises(UsageError) as caught:
        Checkpoint(tmp_path, {"--seed": 4, "--base": "b" * 64, "--lora": None}).load()

    assert caught.value.reason == "CHECKPOINT_DIFFERS"
    assert "(--seed was 3, now 4; --base changed)" in str(caught.value)


def test_a_file_that_is_no_checkpoint_is_named(tmp_path: Path) -> None:
    """Instead of a traceback of the library that reads it."""
    (tmp_path / "checkpoint.safetensors").write_bytes(b"nonsense")

    with pytest.raises(UsageError, match="delete it") as caught:
        Checkpoint(tmp_path, {}).load()

    assert caught.value.reason == "CHECKPOINT_UNREADABLE"


def test_a_kill_while_it_is_written_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is replaced whole, or not at all."""
    checkpoint = Checkpoint(tmp_path, {})
    checkpoint.save({"a": torch.ones(3)}, {"ended": 1})

    def half(tensors: object, path: Path, header: object) -> None:
        path.write_bytes(b"half of it")
        raise Killed

    monkeypatch.setattr(checkpoints, "save_file", half)
    with pytest.raises(Killed):
        checkpoint.save({"a": torch.zeros(3)}, {"ended": 2})

    found = checkpoint.load()
    assert found is not None
    assert (found[0]["a"].tolist(), found[1]) == ([1, 1, 1], {"ended": 1})


def test_a_real_kill_loses_nothing(tmp_path: Path) -> None:
    """SIGKILL to the program, and the same options again: the bundle of a run that ran through."""
    write_examples(tmp_path / "r.jsonl", reviews(300))
    config = Train(
        reviews=(str(tmp_path / "r.jsonl"),),
        out=tmp_path / "killed",
        labels=TWO,
        base=str(write_base(tmp_path / "base")),
        preset="tiny",
        max_tokens=48,
        fit=FitConfig(epochs=6, learning_rate=2e-3, batch_tokens=1024, patience=6),
        evaluation=EvaluationConfig(baselines=False),
        checkpoint=tmp_path / "c",
    )
    command = [*COMMAND, "train", "--reviews", config.reviews[0]]
    command += ["--out", str(config.out), "--labels", ",".join(TWO), "--base", str(config.base)]
    command += ["--preset", "tiny", "--max-tokens", "48", "--epochs", "6", "--patience", "6"]
    command += ["--learning-rate", "2e-3", "--batch-tokens", "1024", "--no-baselines"]
    command += ["--checkpoint", str(tmp_path / "c"), "--checkpoint-minutes", "0"]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    ) as process:
        assert process.stderr is not None
        said = [line for line in iter(process.stderr.readline, "") if kill_at(line, process)]
    assert said == []
    assert process.returncode == -signal.SIGKILL
    assert not config.out.exists()
    (saved,) = (tmp_path / "c").glob("*.safetensors")

    found = config.run()
    whole = replace(config, out=tmp_path / "whole", checkpoint=None).run()

    name = "model.safetensors"
    assert found.bundle.manifest.files[name] == whole.bundle.manifest.files[name]
    assert found.fit.curve == whole.fit.curve
    assert not saved.exists()


def kill_at(line: str, process: subprocess.Popen[str]) -> bool:
    """Kill the program when it says that the first epoch ended; say whether that came too late."""
    if line.startswith("epoch 1:"):
        process.kill()
    return line.startswith("epoch 6:")
