"""The GPU's script, run small on a CPU: it says so, and its unpadded student is exact."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.proof import run_gpu as bench_gpu
from benchmarks.proof.contestants import Senders
from benchmarks.proof.record import read_proof
from benchmarks.proof.varlen import VarlenStudent


@pytest.mark.slow
def test_a_review_gets_the_same_logits_alone_and_among_others() -> None:
    """Reviews laid end to end do not see one another."""
    model = VarlenStudent(dtype=torch.float32, device="cpu")
    draw = np.random.default_rng(0)
    rows = [draw.integers(5, 1000, size) for size in (3, 17, 8)]
    together = model.forward(rows)
    for i, row in enumerate(rows):
        alone = model.forward([row])[0]
        torch.testing.assert_close(together[i], alone, atol=1e-5, rtol=1e-5)


def test_a_bundle_without_fp16_is_refused_before_anything_is_measured(bundle: Path) -> None:
    """It would run on the CPU of a GPU machine; the message says how to make one."""
    with pytest.raises(SystemExit, match=r"has fp32 and no fp16.*--precision fp16"):
        bench_gpu.check_half(bundle)


def test_a_bundle_must_be_named() -> None:
    """The reference student has int8 alone."""
    with pytest.raises(SystemExit):
        bench_gpu.main([])


def test_a_review_without_an_answer_is_no_rate() -> None:
    """Rates are of answers: what is missing ends the run."""
    one = Senders("127.0.0.1:1", ["good", "bad"], callers=1, times=1)
    with pytest.raises(SystemExit, match="failed a review"):
        one.check()


@pytest.mark.slow
def test_without_a_gpu_the_record_says_that_its_figures_are_a_cpus(
    bundle: Path, tmp_path: Path
) -> None:
    """Every path runs, the lengths are those the bundle takes, and `missing` names the GPU."""
    out = tmp_path / "gpu.json"
    small = "--shape tiny --reviews 8 --large-reviews 2 --rounds 1 --batch-tokens 512 --callers 2"
    small += " --workers 1 2"
    bench_gpu.main(["--bundle", str(bundle), "--out", str(out), *small.split()])
    proof = read_proof(out)
    assert any("GPU" in line for line in proof.missing)
    assert {speed.path for speed in proof.speeds} == {"forward", "engine", "grpc"}
    assert len(proof.ratios) == 2
    assert [point.value for point in proof.scaling] == [16, 64, 128, 256, 512, 1024]
    assert all(point.reviews_per_second > 0 for point in proof.scaling)
