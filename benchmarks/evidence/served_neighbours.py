"""What do neighbours cost a server? Texts a second with and without them, under the same load.

    python -m benchmarks.evidence.served_neighbours --bundle bundles/reference --data DIR \
        [--rows 2000] [--out results/served_neighbours.json]

The bound is a server without an index. Three arms take turns of some seconds, each with the machine
to itself: that server; a server with an index whose callers ask for no neighbours; and the same
server with callers who ask for five neighbours of each text. The index holds the real states of
--rows reviews. A ratio divides the rate of a turn by that of the turn without an index in the same
round. The median of the ratios is reported.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Final

from benchmarks.record import surroundings, write_result
from benchmarks.reviews import read_reviews
from benchmarks.serving.loaded_server import Load, drive, running_server, server_options
from sentimill import Classifier
from sentimill.evidence.index import Index
from sentimill.types import NEIGHBOURS

_LOADS: Final = (Load(64, 8), Load(1, 128))
_TEXTS: Final = 1024


def main() -> None:
    """Measure, and write the result as JSON."""
    parser = server_options(__doc__ or "")
    parser.add_argument("--rows", type=int, default=2000, help="reviews in the index")
    parser.add_argument("--rounds", type=int, default=8, help="turns of each, after one to warm up")
    parser.add_argument("--seconds", type=float, default=10.0, help="of a turn")
    settings = parser.parse_args()
    about = surroundings()
    reviews = read_reviews(settings.data, _TEXTS + settings.rows)
    with tempfile.TemporaryDirectory() as work:
        index = Path(work, "index")
        write_index(index, settings, reviews[_TEXTS:])
        loads = measure(settings, index, reviews[:_TEXTS])
    result = {"rows": settings.rows, "neighbours": NEIGHBOURS, "loads": loads, **about}
    sys.stdout.write(write_result(settings.out, result) + "\n")


def write_index(path: Path, settings: argparse.Namespace, texts: list[str]) -> None:
    """Write an index of *texts*, with their real states."""
    classifier = Classifier.load(settings.bundle, threads=settings.threads, states=True)
    _, values = classifier.compute(texts, progress=True)
    made = Index(classifier.bundle.digest)
    ids, labels = [f"r{k}" for k in range(len(values))], ["neutral"] * len(values)
    made.add(ids, labels, ids, values[:, len(classifier.labels) :])
    made.save(path)


def measure(settings: argparse.Namespace, index: Path, texts: list[str]) -> list[dict[str, object]]:
    """Return texts a second of each arm, turn by turn, and the ratios, for each load."""
    found: list[dict[str, object]] = []
    with (
        running_server(settings) as plain,
        running_server(settings, {"--index": index}) as indexed,
    ):
        arms = (
            ("no_index", plain, indexed, 0),
            ("none_asked", indexed, plain, 0),
            ("asked", indexed, plain, NEIGHBOURS),
        )
        for load in _LOADS:
            rates: dict[str, list[float]] = {name: [] for name, *_ in arms}
            for turn in range(settings.rounds + 1):
                for name, server, other, count in arms if turn % 2 else arms[::-1]:
                    with other.stopped():
                        rate = asyncio.run(drive(server, texts, load, settings.seconds, count))
                    if turn:  # the first turn warms up
                        rates[name].append(rate.texts)
            figures = indexed.figures()
            requests = figures["sentimill_index_lookup_seconds_count"]
            found.append(
                {
                    "texts_a_request": load.texts_a_request,
                    "callers": load.callers,
                    "texts_per_second": rates,
                    "none_asked_by_no_index": _ratio(rates["none_asked"], rates["no_index"]),
                    "asked_by_no_index": _ratio(rates["asked"], rates["no_index"]),
                    "lookup_seconds_a_request_so_far": (
                        figures["sentimill_index_lookup_seconds_sum"] / requests
                    ),
                }
            )
    return found


def _ratio(some: list[float], others: list[float]) -> dict[str, float]:
    """Return the median of the ratios, round by round, with the least and the most."""
    ratios = [one / other for one, other in zip(some, others, strict=True)]
    return {"median": statistics.median(ratios), "least": min(ratios), "most": max(ratios)}


if __name__ == "__main__":
    main()
