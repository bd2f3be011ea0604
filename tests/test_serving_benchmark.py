"""The serving benchmark: what it compares with, and that it runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from serving import in_order

PROGRAM = Path(__file__).parent.parent / "benchmarks/serving.py"


@pytest.mark.parametrize(
    ("lengths", "budget", "expected"),
    [
        ([10, 10, 10], 30, 1.0),
        ([10, 2, 10], 20, 22 / 30),  # 10 and 2 pad to 20, then 10 alone
        ([50, 1], 20, 1.0),  # longer than the budget: alone
        ([2, 10, 2, 10], 40, 24 / 40),
    ],
)
def test_arrival_order_fills_a_batch_until_the_next_text_does_not_fit(
    lengths: list[int], budget: int, expected: float
) -> None:
    """It is what a queue without a choice does, and the last batch counts too."""
    assert in_order(lengths, lengths, budget) == pytest.approx(expected)


@pytest.mark.slow
def test_the_benchmark_runs_on_a_tiny_bundle(bundle: Path, tmp_path: Path) -> None:
    """One round of a moment: figures for both loads, from a server that is gone afterwards."""
    out = tmp_path / "serving.json"
    options = {"bundle": bundle, "data": tmp_path, "out": out, "threads": 1, "texts": 128}
    options |= {"seconds": 0.5, "rounds": 1, "offline-tokens": 512}
    arguments = [str(part) for k, v in options.items() for part in (f"--{k}", v)]
    done = subprocess.run(
        [sys.executable, PROGRAM, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    loads = [(load["texts_a_request"], load["callers"]) for load in found["loads"]]
    assert loads == [(64, 8), (1, 128)]
    for load in found["loads"]:
        assert 0 < load["served_by_offline"] < 1
        assert 0 < load["useful_share"] <= 1
        assert 0 < load["p50_seconds"] <= load["p99_seconds"]
