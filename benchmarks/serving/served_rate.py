"""What share of the engine's offline rate does the gRPC service reach?

The bound is the same engine in this process, fed with ready token ids in sorted batches, at the
best of several batch budgets; no server can be faster. The server is a separate process and shares
the machine with its callers. A shared machine changes its speed from minute to minute, so server
and engine take turns of some seconds: while the engine runs here, the server and its waiting calls
are stopped (SIGSTOP). Rates are useful tokens a second. A ratio divides the rate of a served turn
by the mean of the offline turns before and after it, and the median is reported. At the end of an
offline turn, one call runs alone on its thread. This is under 1 % of the turn, so a ratio may
exceed 1 by as much.

    python -m benchmarks.serving.served_rate --bundle bundles/mine --data FOLDER \
        [--out results/serving.json]
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle, pairwise
from statistics import median

import numpy as np

from benchmarks.record import surroundings, write_result
from benchmarks.reviews import read_reviews
from benchmarks.serving.loaded_server import (
    Load,
    Server,
    results_of,
    running_server,
    server_options,
    under_load,
)
from sentimill import Classifier
from sentimill.classifier import plan_batches
from sentimill.text.tokenizer import Encoded

LOADS = (Load(64, 8), Load(1, 128))
PARTS = 4
"""The texts are cut into this many parts; an offline turn computes one of them."""


@dataclass(frozen=True, slots=True)
class Turns:
    """Useful tokens a second, in turns: offline, served, offline, served, ..., offline.

    useful_share: of the tokens that the engine computed in a served turn, those of texts.
    """

    offline: list[float]
    served: list[float]
    useful_share: list[float]

    def ratios(self) -> list[float]:
        """Return each served rate divided by the mean of the offline rates before and after it."""
        around = (sum(two) / 2 for two in pairwise(self.offline))
        return [rate / mean for rate, mean in zip(self.served, around, strict=True)]


def main() -> None:
    """Measure and print: a table on stderr, one JSON document on stdout."""
    settings = _settings()
    texts = read_reviews(settings.data, settings.texts)
    classifier = Classifier.load(settings.bundle, engine=settings.engine, threads=settings.threads)
    budget = settings.batch_tokens or classifier.batch_tokens
    rows = [e.ids for e in classifier.encoder.encode(texts) if isinstance(e, Encoded)]
    with running_server(settings) as server:
        rates = {each: _best_of(classifier, rows, each) for each in settings.offline_tokens}
        best = max(rates, key=lambda each: rates[each])
        offline = _offline(classifier, rows, best)
        found = {
            load: asyncio.run(in_turns(server, texts, load, offline, settings)) for load in LOADS
        }
    lengths = [classifier.padded_length(len(row)) for row in rows]
    result = {
        "question": "served rate over gRPC by the engine's own best offline rate",
        "engine": asdict(classifier.engine.info),
        "texts": len(rows),
        "mean_tokens": float(np.mean([len(row) for row in rows])),
        "rounds": settings.rounds,
        "seconds": settings.seconds,
        "batch_tokens": budget,
        "offline_tokens_per_second": {str(each): rate for each, rate in rates.items()},
        "offline_batch_tokens": best,
        "arrival_order_useful_share": in_order([len(row) for row in rows], lengths, budget),
        "loads": [_summary(load, turns) for load, turns in found.items()],
        **surroundings(),
    }
    print(write_result(settings.out, result))  # noqa: T201


def in_order(tokens: Sequence[int], lengths: Sequence[int], budget: int) -> float:
    """Return the useful share of batches that are filled in order of arrival up to *budget*.

    tokens: the tokens of each text. lengths: how many the engine computes for it. A text longer
    than the budget is a batch of its own.
    """
    padded = rows = longest = 0
    for length in lengths:
        if rows and max(longest, length) * (rows + 1) > budget:
            padded += longest * rows
            rows = longest = 0
        rows += 1
        longest = max(longest, length)
    return sum(tokens) / (padded + longest * rows)


def _offline(
    classifier: Classifier, rows: Sequence[np.ndarray], budget: int
) -> Callable[[], float]:
    """Return a function that runs the next part of *rows* and returns useful tokens a second."""
    lengths = [classifier.padded_length(len(row)) for row in rows]
    batches = [[rows[i] for i in batch] for batch in plan_batches(lengths, budget)]
    parts = cycle([batches[i::PARTS] for i in range(PARTS) if batches[i::PARTS]])

    def run() -> float:
        part = next(parts)
        began = time.perf_counter()
        classifier.at_once(classifier.run, part)
        return sum(len(row) for batch in part for row in batch) / (time.perf_counter() - began)

    return run


def _best_of(classifier: Classifier, rows: Sequence[np.ndarray], budget: int) -> float:
    """Return the median rate over all parts. The first run warms up."""
    run = _offline(classifier, rows, budget)
    return median([run() for _ in range(PARTS + 1)][1:])


async def in_turns(
    server: Server,
    texts: Sequence[str],
    load: Load,
    offline: Callable[[], float],
    settings: argparse.Namespace,
) -> Turns:
    """Keep *load* on the server, and let it and *offline* take turns.

    Served tokens are counted as they are computed, because a request of 64 texts is answered as a
    whole, after some ten seconds on two cores.
    """
    turns = Turns([], [], [])

    async def bare() -> None:
        with server.stopped():
            turns.offline.append(await asyncio.to_thread(offline))

    async with under_load(server, texts, load) as answers:
        await asyncio.sleep(settings.lead)
        await bare()
        for _ in range(settings.rounds):
            before, began = await asyncio.to_thread(server.tokens), time.perf_counter()
            await asyncio.sleep(settings.seconds)
            after, ended = await asyncio.to_thread(server.tokens), time.perf_counter()
            useful, padded = (b - a for a, b in zip(before, after, strict=True))
            if not padded:
                why = "nothing was computed in the time that counts: give more --seconds"
                raise SystemExit(why)
            turns.served.append(useful / (ended - began))
            turns.useful_share.append(useful / padded)
            await bare()
    for _, data in answers:
        results_of(data)
    return turns


def _summary(load: Load, turns: Turns) -> dict[str, object]:
    """Return the medians over the turns, and the ratio of each turn."""
    ratios = turns.ratios()
    found: dict[str, object] = {
        **asdict(load),
        "served_by_offline": median(ratios),
        "served_by_offline_each": ratios,
        "tokens_per_second": median(turns.served),
        "useful_share": median(turns.useful_share),
    }
    print(  # noqa: T201
        f"{load.texts_a_request:>3} texts a request, {load.callers:>3} callers:"
        f" {found['tokens_per_second']:.0f} tokens/s, {found['served_by_offline']:.3f} of offline,"
        f" useful {found['useful_share']:.3f}",
        file=sys.stderr,
    )
    return found


def _settings() -> argparse.Namespace:
    parser = server_options(__doc__)
    parser.add_argument("--offline-tokens", type=int, nargs="+", default=[512, 1024, 4096])
    parser.add_argument("--texts", type=int, default=1024)
    parser.add_argument("--lead", type=float, default=15.0, help="seconds until the queue is full")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each served turn")
    parser.add_argument("--rounds", type=int, default=15, help="served turns of each load")
    return parser.parse_args()


if __name__ == "__main__":
    main()
