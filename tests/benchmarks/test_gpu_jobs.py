"""The measurement of scoring jobs on a GPU, tried small on the CPU."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

from benchmarks.scoring.gpu_jobs import measure


def test_jobs_over_one_file_and_over_several_are_compared_with_the_engine(
    tmp_path: Path, bundle: Path
) -> None:
    """Each job answers every row."""
    found = measure(tmp_path, bundle, rows=60, files=3, repeats=1, options=["--processes", "2"])

    assert found["share_of_engine"].keys() == {"one", "many"}  # type: ignore[attr-defined]  # a result is JSON
    counts = {
        name: [pq.read_metadata(path).num_rows for path in sorted((tmp_path / name).iterdir())]
        for name in ("one-out", "many-out")
    }
    assert counts == {"one-out": [60], "many-out": [20, 20, 20]}
