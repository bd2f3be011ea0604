"""How the student's throughput grows: with length, batch, threads, processes and callers.

The bound next to each figure is the machine's measured matrix rate divided by the operations of the
padded batch. No engine can pass it at that precision.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch

from benchmarks.proof.contestants import callers, served
from benchmarks.proof.record import Scaling
from benchmarks.proof.rivals import minilm
from benchmarks.proof.shapes import MINILM_L6
from benchmarks.proof.throughput import batch_of, rate_of
from sentimill import Classifier

_SECONDS_A_DAY: Final = 86_400
_STEP_ROWS: Final = 8
_WORKER: Final = "benchmarks.proof.throughput"


def by_length(classifier: Classifier, matmul_flops: float, seconds: float) -> list[Scaling]:
    """Time batches of 2,048 tokens with longer and longer reviews."""
    longest = classifier.bundle.manifest.max_tokens
    found: list[Scaling] = []
    for tokens in (16, 32, 64, 128, 256):
        if tokens <= longest:
            rows = 2048 // tokens
            rate = rate_of(batch_of(classifier, rows, tokens), rows, seconds)
            bound = matmul_flops / MINILM_L6.flops(tokens)
            found.append(_point("tokens a review", tokens, rate, bound))
    return found


def by_rows(classifier: Classifier, matmul_flops: float, seconds: float) -> list[Scaling]:
    """Time reviews of 64 tokens in larger and larger batches."""
    tokens = min(64, classifier.bundle.manifest.max_tokens)
    bound = matmul_flops / MINILM_L6.flops(tokens)
    return [
        _point(
            "reviews a batch",
            rows,
            rate_of(batch_of(classifier, rows, tokens), rows, seconds),
            bound,
        )
        for rows in (1, 2, 4, 8, 16, 32, 64, 128)
    ]


def by_threads(bundle: Path, cores: int, matmul_flops: float, seconds: float) -> list[Scaling]:
    """Time batches of 32 reviews of 64 tokens with more and more threads, up to the cores."""
    found: list[Scaling] = []
    for threads in _doubling(cores):
        classifier = Classifier.load(bundle, threads=threads)
        tokens = min(64, classifier.bundle.manifest.max_tokens)
        bound = matmul_flops / MINILM_L6.flops(tokens) * threads / cores
        rate = rate_of(batch_of(classifier, 32, tokens), 32, seconds)
        found.append(_point("engine threads", threads, rate, bound))
    return found


def by_processes(bundle: Path, cores: int, matmul_flops: float, seconds: float) -> list[Scaling]:
    """Time as many one-threaded processes as there are cores, each with its own engine, at once."""
    found: list[Scaling] = []
    for count in _doubling(cores):
        command = [sys.executable, "-m", _WORKER, str(bundle), str(seconds)]
        running = [
            subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(count)
        ]
        rate = sum(float(process.communicate()[0]) for process in running)
        bound = matmul_flops / MINILM_L6.flops(64) * count / cores
        found.append(_point("processes", count, rate, bound))
    return found


def by_callers(
    bundle: Path, texts: Sequence[str], counts: Sequence[int], seconds: float
) -> list[Scaling]:
    """Time the gRPC service with more and more callers, 64 reviews a call."""
    with served(bundle) as address:
        return [
            _point(
                "callers",
                count,
                rate_of(callers(address, texts, count=count), len(texts), seconds),
                None,
            )
            for count in counts
        ]


def by_training_rows(
    row_counts: Sequence[int], seconds: float, *, tokens: int = 128
) -> list[Scaling]:
    """Estimate the seconds of a training epoch by its rows, from timed steps of 8 rows.

    value: the number of rows. The field for reviews a second has the rate of the training.
    """
    model = minilm()
    optimiser = torch.optim.AdamW(model.parameters())
    ids = torch.randint(5, model.config.vocab_size, (_STEP_ROWS, tokens))

    def step() -> None:
        loss = model(input_ids=ids, labels=torch.zeros(_STEP_ROWS, dtype=torch.long)).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()

    rate = rate_of(step, _STEP_ROWS, 3 * seconds)
    return [
        Scaling(
            axis="training rows",
            value=rows,
            reviews_per_second=rate,
            note=f"an epoch takes {rows / rate / 60:,.0f} minutes, from timed steps of {_STEP_ROWS}"
            f" rows of {tokens} tokens, {rate:.1f} rows a second",
        )
        for rows in row_counts
    ]


def billion_a_day(
    reviews_per_second: float, usd_hour: float, *, utilisation: float, bytes_a_review: float
) -> list[Scaling]:
    """Return an estimate of the machines, dollars and gigabytes for a billion reviews a day."""
    needed = 1e9 / _SECONDS_A_DAY
    machines = -(-needed // (reviews_per_second * utilisation))
    note = f"at {utilisation:.0%} of the measured rate"
    return [
        Scaling(
            axis="reviews a second",
            value=needed,
            reviews_per_second=needed,
            note=f"a billion over {_SECONDS_A_DAY:,} seconds",
        ),
        Scaling(axis="machines", value=machines, reviews_per_second=needed, note=note),
        Scaling(
            axis="US dollars a day",
            value=machines * usd_hour * 24,
            reviews_per_second=needed,
            note=note,
        ),
        Scaling(
            axis="gigabytes of text a day",
            value=bytes_a_review,  # a billion of them
            reviews_per_second=needed,
            note=f"{bytes_a_review:.0f} bytes a review; {bytes_a_review * needed * 8 / 1e6:.0f}"
            " Mbit/s into the cluster",
        ),
    ]


def _doubling(cores: int) -> list[int]:
    counts = [1]
    while counts[-1] * 2 <= cores:
        counts.append(counts[-1] * 2)
    return counts


def _point(axis: str, value: float, rate: float, bound: float | None) -> Scaling:
    return Scaling(axis=axis, value=value, reviews_per_second=rate, bound=bound)
