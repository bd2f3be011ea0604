"""Half the layers beside the whole, tried on a tiny bundle."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from statistics import median

from benchmarks.training.fewer_layers import speed


def test_both_answer_the_same_texts_in_turns(bundle: Path, tmp_path: Path) -> None:
    """A ratio a turn: what a busy machine does to one of them it does to both."""
    found = speed(Namespace(whole=bundle, half=bundle, data=tmp_path, texts=8, turns=3))

    assert found["texts"] == 8
    assert len(found["times_as_fast_each"]) == 3
    assert found["times_as_fast"] == median(found["times_as_fast_each"])
    assert set(found["texts_per_second"]) == {"whole", "half"}
