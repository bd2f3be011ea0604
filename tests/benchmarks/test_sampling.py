"""The table of the sampling benchmark: arms are compared seed by seed, trials say what they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.training.sampling import summary
from benchmarks.training.sampling_table import write_table


def run(arm: str, size: int, seed: int, accuracy: float) -> dict[str, Any]:
    """Return what one run gave."""
    return {"arm": arm, "size": size, "seed": seed, "accuracy": accuracy, "macro_f1": accuracy}


RUNS = [
    *(run("sample", 4, seed, accuracy) for seed, accuracy in ((0, 0.7), (1, 0.8), (2, 0.9))),
    *(run("random", 4, seed, accuracy) for seed, accuracy in ((1, 0.7), (0, 0.65))),
]


def test_arms_are_compared_seed_by_seed() -> None:
    """A seed that one arm lacks is in the mean of the other, and in no difference."""
    table = summary({str(i): each for i, each in enumerate(RUNS)}, (4,))

    assert [(line["arm"], line["runs"]) for line in table] == [("sample", 3), ("random", 2)]
    assert table[0]["accuracy"] == pytest.approx(0.8)
    assert table[0]["gain_by_seed"] == pytest.approx([0.05, 0.1])


@pytest.mark.parametrize("tiny", [None, 4])
def test_a_trial_is_no_result(tmp_path: Path, tiny: int | None) -> None:
    """Its table says so, and a real one does not."""
    state = {
        "settings": {"pool": 10, "test_rows": 5, "tiny": tiny},
        "before": {"accuracy": 0.5, "macro_f1": 0.4},
        "table": summary({str(i): each for i, each in enumerate(RUNS)}, (4, 8)),
        "machine": {"cpu": "c", "cores": 2, "commit": "x", "utc": "now"},
    }

    write_table(tmp_path / "t.md", state)

    said = (tmp_path / "t.md").read_text()
    assert "| 4 | sample | 3 | 0.800 ± 0.100 | 0.800 ± 0.100 | +5.0 pp, +10.0 pp |" in said
    assert "| 8 | sample | 0 |  |  |  |" in said
    assert ("no result" in said) == (tiny is not None)
