"""Times one engine in reviews a second. As a program it has one thread, for `scaling.py`.

    python -m benchmarks.proof.throughput BUNDLE SECONDS

It imports neither torch nor transformers, so that its process is ready in a moment.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from sentimill import Classifier


def rate_of(run: Callable[[], object], reviews: int, seconds: float) -> float:
    """Return reviews a second over at least *seconds*, after one warm-up."""
    run()
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        run()
        done += reviews
    return done / (time.perf_counter() - began)


def batch_of(classifier: Classifier, rows: int, tokens: int) -> Callable[[], object]:
    """Return an engine call of *rows* reviews, all of *tokens* tokens."""
    unit = np.full(tokens, classifier.bundle.manifest.pad_id + 1, dtype=np.int64)
    return lambda: classifier.run([unit] * rows)


if __name__ == "__main__":
    one = Classifier.load(Path(sys.argv[1]), threads=1)
    call = batch_of(one, 32, min(64, one.bundle.manifest.max_tokens))
    sys.stdout.write(f"{rate_of(call, 32, float(sys.argv[2]))}\n")
