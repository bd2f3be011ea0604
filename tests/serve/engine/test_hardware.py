"""What a machine offers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sentimill.engine.hardware import usable_cores

MAY = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("says", "cores"),
    [("100000 100000", 1), ("50000 100000", 1), ("10000000 100000", MAY), ("max 100000", MAY)],
)
def test_a_quota_is_the_most_that_threads_are_started_for(
    tmp_path: Path, says: str, cores: int
) -> None:
    """Less than one core is one thread; a quota past the machine gives no more than it has."""
    (tmp_path / "cpu.max").write_text(f"{says}\n")

    assert usable_cores(tmp_path / "cpu.max") == cores


def test_without_a_quota_every_core_counts(tmp_path: Path) -> None:
    """As on a machine without control groups."""
    assert usable_cores(tmp_path / "cpu.max") == MAY
