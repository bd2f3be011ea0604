"""What do the metrics cost? Compares rate and processor time of servers with and without them.

    python -m benchmarks.serving.metrics_overhead --bundle bundles/mine \
        --out results/metrics-overhead.json

First the counting alone is timed: everything that is observed of one call, with a batch for it,
many times over. The bound is this time relative to the processor time of a whole call. Then two
servers that count and two that do not are asked in turns, in alternating order, and the medians of
the turns are compared. A busy machine changes a rate by far more than the 1 % in question. So the
processor time of the server's threads is reported too, and the difference between two servers of
the same kind shows how far the figures can be trusted.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from timeit import repeat
from typing import Final

import grpc
from prometheus_client import CollectorRegistry

import sentimill.server.lifecycle
from benchmarks.record import surroundings, write_result
from sentimill.errors import SentimillError
from sentimill.observability.metrics import Metrics
from sentimill.server.lifecycle import Serving, run
from sentimill.server.sentiment_service import SERVICE
from sentimill.server.settings import Serve
from sentimill.types import Prediction, Probs
from sentimill.v1 import sentiment_pb2 as pb

CALLERS = 16
TEXT = "the battery is good, the box was not"
TEXTS = (1, 64)
"""Texts in a call."""
KINDS: Final = {"counted": (), "silent": ("--silent",)}
"""The options of a server of each kind."""


class Nothing:
    """A metric that counts nothing."""

    def labels(self, *values: str) -> Nothing:
        """Return itself."""
        return self

    def count(self, *values: object) -> None:
        """Do nothing."""

    inc = dec = set = observe = info = clear = set_to_current_time = count

    def track_inprogress(self) -> nullcontext[None]:
        """Do nothing."""
        return nullcontext()


class Silent(Metrics):
    """Metrics that count nothing at all."""

    def __setattr__(self, name: str, value: object) -> None:
        # A limit, not a count: the status page divides by it.
        kept = isinstance(value, CollectorRegistry | None) or name == "max_waiting_texts"
        super().__setattr__(name, value if kept else Nothing())

    def observe_answers(self, results: Sequence[Prediction | SentimillError]) -> None:
        """Do nothing."""

    def observe_batch(
        self, rows: int, useful: int, padded: int, seconds: float, busy_seconds: float
    ) -> None:
        """Do nothing."""

    def observe_request(
        self, method: str, code: str, seconds: float, trace_id: str | None = None
    ) -> None:
        """Do nothing."""


def serve(bundle: Path, silent: bool) -> None:
    """Serve *bundle* and print the address."""
    if silent:
        sentimill.server.lifecycle.Metrics = Silent  # type: ignore[attr-defined] # for this alone

    def started(serving: Serving) -> None:
        print(serving.address, flush=True)  # noqa: T201 # the benchmark reads it

    run(Serve(bundle=bundle, port=0, metrics_port=0), started)


class Server:
    """One of the servers, as a process."""

    def __init__(self, bundle: Path, *flags: str) -> None:
        command = [
            sys.executable,
            "-m",
            "benchmarks.serving.metrics_overhead",
            "--bundle",
            str(bundle),
            "--serve",
            *flags,
        ]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.address = self._process.stdout.readline().strip()

    def cpu_seconds(self) -> float:
        """Return the processor time of all its threads so far."""
        threads = Path(f"/proc/{self._process.pid}/task").glob("*/schedstat")
        return sum(int(each.read_text().split()[0]) for each in threads) / 1e9

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait()


def counting_us(texts: int) -> float:
    """Return the microseconds that it takes to count a call of *texts* texts in one batch."""
    metrics = Metrics()
    one = Prediction("positive", Probs((0.1, 0.1, 0.8)), 0.7, 0.8, False, False, 12)
    answers: list[Prediction | SentimillError] = [one] * texts

    def count() -> None:
        with metrics.in_flight.track_inprogress():
            for _ in range(2):  # in and out
                metrics.waiting_texts.set(1)
                metrics.waiting_tokens.set(1)
            metrics.tokenize_seconds.observe(0.01)
            metrics.dropped_texts.inc(0)
            metrics.closed_batches.labels("drained").inc()
            metrics.observe_batch(texts, 12 * texts, 12 * texts, 0.01, 0.01)
            metrics.queue_seconds.observe(0.01)
            metrics.observe_answers(answers)
            metrics.observe_request("Classify", "OK", 0.01)

    return median(repeat(count, number=2000, repeat=7)) / 2000 * 1e6


@dataclass(frozen=True, slots=True)
class Turn:
    """The figures of one turn."""

    texts_per_second: float
    cpu_us_per_call: float


async def turn(server: Server, data: bytes, calls: int, texts: int) -> Turn:
    """Make *calls* calls of *texts* texts each, from `CALLERS` callers at once."""
    left = iter(range(calls))

    async def call(channel: grpc.aio.Channel) -> None:
        method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
        method = channel.unary_unary(f"/{SERVICE}/Classify")
        for _ in left:
            await method(data)

    async with grpc.aio.insecure_channel(server.address) as channel:
        await channel.channel_ready()
        cpu_s, began = server.cpu_seconds(), time.perf_counter()
        await asyncio.gather(*(call(channel) for _ in range(CALLERS)))
        seconds = time.perf_counter() - began
        return Turn(
            texts_per_second=calls * texts / seconds,
            cpu_us_per_call=(server.cpu_seconds() - cpu_s) / calls * 1e6,
        )


def compare(servers: dict[str, Server], texts: int, calls: int, turns: int) -> dict[str, object]:
    """Ask all servers in turns, and return medians, overheads and every turn."""
    items = [pb.ClassifyItem(text=TEXT)] * texts
    data = pb.ClassifyRequest(items=items).SerializeToString()
    found: dict[str, list[Turn]] = {name: [] for name in servers}
    for number in range(turns + 1):
        order = list(servers) if number % 2 else list(reversed(servers))
        for name in order:
            one = asyncio.run(turn(servers[name], data, calls, texts))
            if number:  # the first turn warms up
                found[name].append(one)
    rate = _medians(found, lambda one: one.texts_per_second)
    cpu = _medians(found, lambda one: one.cpu_us_per_call)
    return {
        "texts_a_call": texts,
        "calls_a_turn": calls,
        "counting_us_per_call": counting_us(texts),
        "texts_per_second": rate,
        "rate_lost": 1 - rate["counted"] / rate["silent"],
        "rate_apart": _apart(rate),
        "cpu_us_per_call": cpu,
        "cpu_added": cpu["counted"] / cpu["silent"] - 1,
        "cpu_apart": _apart(cpu),
        "turns": {name: [asdict(each) for each in of] for name, of in found.items()},
    }


def _medians(found: dict[str, list[Turn]], figure: Callable[[Turn], float]) -> dict[str, float]:
    """Return the median of each server, and of each kind of server."""
    kinds = {
        kind: [t for name in (f"{kind} one", f"{kind} two") for t in found[name]] for kind in KINDS
    }
    return {name: median(map(figure, turns)) for name, turns in (found | kinds).items()}


def _apart(medians: dict[str, float]) -> float:
    """Return how far two servers of the same kind are apart at most, as a share."""
    return max(abs(medians[f"{kind} one"] / medians[f"{kind} two"] - 1) for kind in KINDS)


def main() -> None:
    """Measure, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True, help="what both servers serve")
    parser.add_argument("--turns", type=int, default=8, help="of each server and size of call")
    parser.add_argument("--texts", type=int, default=6400, help="texts in a turn")
    parser.add_argument("--out", type=Path, help="JSON to write")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--silent", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(given.bundle, given.silent)
        return
    servers = {
        f"{kind} {which}": Server(given.bundle, *flags)
        for which in ("one", "two")
        for kind, flags in KINDS.items()
    }
    try:
        found = [
            compare(servers, texts, max(CALLERS, given.texts // texts), given.turns)
            for texts in TEXTS
        ]
    finally:
        for server in servers.values():
            server.stop()
    facts = {"question": __doc__, "bundle": given.bundle.name, "callers": CALLERS}
    line = write_result(given.out, {**facts, "found": found, "machine": surroundings()})
    print(line)  # noqa: T201 # the result of a program


if __name__ == "__main__":
    main()
