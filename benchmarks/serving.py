"""What share of the engine's own offline rate comes out of the gRPC service?

Bound: the same engine in this process, fed with ready token ids in sorted batches, at the best of
several batch budgets; nothing that serves can be faster. The server is a process of its own and
shares the machine with its callers. Rates are useful tokens a second, so that a window need not
hold each text equally often. Offline and served runs take turns, round by round; each ratio is
within one round, and the median over the rounds is reported.

    python benchmarks/serving.py --bundle bundles/mine --data FOLDER [--out results/serving.json]
"""

from __future__ import annotations

import argparse
import asyncio
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import cycle
from pathlib import Path
from statistics import median

import grpc
import numpy as np

from calls import method_of, requests_of
from record import surroundings, write_result
from reviews import read_reviews
from sentimill import Classifier
from sentimill.classifier import plan_batches
from sentimill.text import Encoded
from sentimill.v1 import sentiment_pb2 as pb

LEAD = 0.2
"""Share of a served run that passes before it counts: the queue fills first. A request of 64 texts
takes some ten seconds on two cores, and what counts must hold many of them: with runs of 20 seconds
the ratio of one round went from 0.91 to 1.03."""


@dataclass(frozen=True, slots=True)
class Load:
    """Callers that each send the next request when the last is answered."""

    texts_a_request: int
    callers: int


LOADS = (Load(64, 8), Load(1, 128))


@dataclass(frozen=True, slots=True)
class Served:
    """One served run. useful_share: of the tokens that the engine computed, those of texts."""

    tokens_per_second: float
    texts_per_second: float
    useful_share: float
    p50_seconds: float
    p99_seconds: float


@dataclass(frozen=True, slots=True)
class Server:
    """A running `sentimill serve`."""

    address: str
    metrics: str
    pid: int

    def figures(self) -> dict[str, float]:
        """Return every sample of the server's metrics now."""
        page = urllib.request.urlopen(self.metrics, timeout=30).read().decode()
        lines = (line.rsplit(" ", 1) for line in page.splitlines() if line[0] != "#")
        return {name: float(value) for name, value in lines}

    def tokens(self) -> tuple[float, float]:
        """Return how many useful and how many padded tokens were computed since the start."""
        found = self.figures()
        return found["sentimill_useful_tokens_total"], found["sentimill_padded_tokens_total"]


def main() -> None:
    """Measure and print: a table on stderr, one JSON document on stdout."""
    settings = _settings()
    texts = read_reviews(settings.data, settings.texts)
    classifier = Classifier.load(settings.bundle, engine=settings.engine, threads=settings.threads)
    budget = settings.batch_tokens or classifier.batch_tokens
    rows = [e.ids for e in classifier.encoder.encode(texts) if isinstance(e, Encoded)]
    offline: dict[int, list[float]] = {tokens: [] for tokens in settings.offline_tokens}
    served: dict[Load, list[Served]] = {load: [] for load in LOADS}
    with running_server(settings) as server:
        for round_ in range(settings.rounds + 1):  # the first one warms up
            rates = {tokens: _offline(classifier, rows, tokens) for tokens in offline}
            runs = {load: asyncio.run(drive(server, texts, load, settings)) for load in LOADS}
            if round_:
                for tokens, rate in rates.items():
                    offline[tokens].append(rate)
                for load, run in runs.items():
                    served[load].append(run)
    best = max(offline, key=lambda budget: median(offline[budget]))
    lengths = [classifier.padded_length(len(row)) for row in rows]
    result = {
        "question": "served rate over gRPC by the engine's own best offline rate",
        "engine": asdict(classifier.engine.info()),
        "texts": len(rows),
        "mean_tokens": float(np.mean([len(row) for row in rows])),
        "rounds": settings.rounds,
        "seconds": settings.seconds,
        "batch_tokens": budget,
        "offline_tokens_per_second": {str(b): median(rates) for b, rates in offline.items()},
        "offline_batch_tokens": best,
        "arrival_order_useful_share": in_order([len(row) for row in rows], lengths, budget),
        "loads": [_summary(load, runs, offline[best]) for load, runs in served.items()],
        **surroundings(),
    }
    print(write_result(settings.out, result))  # noqa: T201


def in_order(tokens: Sequence[int], lengths: Sequence[int], budget: int) -> float:
    """Return the useful share of batches that are filled in order of arrival up to *budget*.

    tokens: of each text. lengths: what the engine computes for each. A text longer than the budget
    is a batch of its own.
    """
    padded = rows = longest = 0
    for length in lengths:
        if rows and max(longest, length) * (rows + 1) > budget:
            padded += longest * rows
            rows = longest = 0
        rows += 1
        longest = max(longest, length)
    return sum(tokens) / (padded + longest * rows)


@contextmanager
def running_server(
    settings: argparse.Namespace, more: Mapping[str, object] | None = None
) -> Iterator[Server]:
    """Run `sentimill serve` with *settings* and *more* options, by default on free ports."""
    options: dict[str, object] = {
        "--bundle": settings.bundle,
        "--engine": settings.engine,
        "--port": 0,
        "--metrics-port": 0,
        **({} if settings.threads is None else {"--threads": settings.threads}),
        **({} if settings.batch_tokens is None else {"--batch-tokens": settings.batch_tokens}),
        **(more or {}),
    }
    # Not the script of that name: on a lent machine nothing may be installed.
    command = [sys.executable, "-c", "from sentimill.cli import main; main()", "serve"]
    with subprocess.Popen(
        [*command, *(str(part) for pair in options.items() for part in pair)],
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stderr is not None
            address = metrics = None
            seen = []
            while metrics is None:
                seen.append(line := process.stderr.readline())
                if not line:
                    raise SystemExit("".join(seen))
                address = re.search(r"^serving .* on (\S+)$", line) or address
                metrics = re.search(r"^metrics on (\S+)$", line)
            assert address is not None
            yield Server(address[1], metrics[1], process.pid)
        finally:
            process.terminate()
            process.communicate()


def _offline(classifier: Classifier, rows: Sequence[np.ndarray], budget: int) -> float:
    """Return useful tokens a second of the bare engine."""
    began = time.perf_counter()
    lengths = [classifier.padded_length(len(row)) for row in rows]
    batches = [[rows[i] for i in batch] for batch in plan_batches(lengths, budget)]
    classifier.at_once(classifier.run, batches)
    return sum(map(len, rows)) / (time.perf_counter() - began)


async def drive(
    server: Server, texts: Sequence[str], load: Load, settings: argparse.Namespace
) -> Served:
    """Keep *load* on the server for the seconds of *settings*, and count after the lead."""
    size = load.texts_a_request
    requests = cycle(requests_of(texts, size))
    answers: list[tuple[float, float, bytes]] = []
    end = time.perf_counter() + settings.seconds
    async with grpc.aio.insecure_channel(server.address) as channel:
        call = method_of(channel)

        async def ask() -> None:
            while (began := time.perf_counter()) < end:
                answer = await call(next(requests))
                answers.append((began, time.perf_counter(), answer))

        asking = [asyncio.create_task(ask()) for _ in range(load.callers)]
        await asyncio.sleep(settings.seconds * LEAD)
        counted_from = time.perf_counter()
        before = await asyncio.to_thread(server.tokens)
        await asyncio.sleep(max(0.0, end - time.perf_counter()))
        after = await asyncio.to_thread(server.tokens)
        await asyncio.gather(*asking)
    counted = [a for a in answers if counted_from <= a[1] < end]
    return _counted(counted, end - counted_from, before, after)


def _counted(
    answers: Sequence[tuple[float, float, bytes]],
    seconds: float,
    before: tuple[float, float],
    after: tuple[float, float],
) -> Served:
    """Return what the *answers* of so many *seconds* make.

    By the whole time and not that from the first answer to the last: those of one batch come
    together, so that span would hold one batch more than it took to compute.
    """
    if not answers or after[1] <= before[1]:
        why = "too little was answered in the time that counts: give more --seconds"
        raise SystemExit(why)
    parsed = [pb.ClassifyResponse.FromString(data) for _, _, data in answers]
    if any(one.HasField("error") for answer in parsed for one in answer.results):
        raise SystemExit("a text was answered with an error: the rate would be of nothing")
    latencies = sorted(came - began for began, came, _ in answers)
    texts = [one for answer in parsed for one in answer.results]
    return Served(
        tokens_per_second=sum(one.prediction.tokens for one in texts) / seconds,
        texts_per_second=len(texts) / seconds,
        useful_share=(after[0] - before[0]) / (after[1] - before[1]),
        p50_seconds=latencies[len(latencies) // 2],
        p99_seconds=latencies[len(latencies) * 99 // 100],
    )


def _summary(load: Load, runs: Sequence[Served], offline: Sequence[float]) -> dict[str, object]:
    """Return the medians over the rounds, and the ratio of each round."""
    ratios = [run.tokens_per_second / rate for run, rate in zip(runs, offline, strict=True)]
    found: dict[str, object] = {
        **asdict(load),
        "served_by_offline": median(ratios),
        "served_by_offline_each": ratios,
        **{name: median([asdict(run)[name] for run in runs]) for name in Served.__slots__},
    }
    print(  # noqa: T201
        f"{load.texts_a_request:>3} texts a request, {load.callers:>3} callers:"
        f" {found['texts_per_second']:.1f} texts/s, {found['served_by_offline']:.3f} of offline,"
        f" useful {found['useful_share']:.3f}",
        file=sys.stderr,
    )
    return found


def server_options(says: str) -> argparse.ArgumentParser:
    """Return a parser of what `running_server` and its reviews need; *says*: a docstring."""
    parser = argparse.ArgumentParser(description=says.partition("\n")[0])
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--batch-tokens", type=int, help="of the server, by default its own")
    return parser


def _settings() -> argparse.Namespace:
    parser = server_options(__doc__)
    parser.add_argument("--offline-tokens", type=int, nargs="+", default=[512, 1024, 4096])
    parser.add_argument("--texts", type=int, default=1024)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each served run")
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


if __name__ == "__main__":
    main()
