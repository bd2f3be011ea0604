"""Times contestants in turns, after a warm-up and over several rounds, and computes their ratios.

The speed of a machine drifts. Contestants that take turns drift together, so the ratio of two times
of the same round is steadier than either time.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from benchmarks.proof.record import Ratio, Speed


def race(runs: Mapping[str, Callable[[], object]], *, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each contestant, one entry a round. Each runs once to warm up."""
    for run in runs.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - began)
    return seconds


def ratio_of(
    student: Speed, large: Speed, *, factor: float = 1.0, basis: str = "measured", seed: int = 0
) -> Ratio:
    """Return how many times as fast the student is, with a bootstrap 95 % interval over the rounds.

    factor: multiplies the ratio for another shape of the large model, such as the operations of the
    bigger shape divided by those of the measured one.
    """
    pairs = np.array(student.rates) / np.array(large.rates) * factor
    draw = np.random.default_rng(seed)
    medians = np.median(draw.choice(pairs, size=(2000, len(pairs))), axis=1)
    low, high = np.quantile(medians, [0.025, 0.975])
    return Ratio(
        student=student.name,
        large=large.name,
        basis=basis,
        value=float(np.median(pairs)),
        low=float(low),
        high=float(high),
        halves=_halves(pairs.tolist()),
    )


def _halves(pairs: Sequence[float]) -> tuple[float, float]:
    middle = max(1, len(pairs) // 2)
    return statistics.median(pairs[:middle]), statistics.median(pairs[middle:] or pairs)
