"""What do the metrics cost? Processor time of a server a call, with metrics and without.

    python benchmarks/metrics_overhead.py --bundle bundles/demo

The bound is known beforehand: a call is counted some ten times and a text twice, at 0.3 to 2 us
each, so about 20 us a call beside the 200 us and more that gRPC in Python takes. Processor time,
not the served rate, because a busy machine moves a rate by far more than 1 %. The two servers run
side by side, are asked in turns, and the medians of the turns are compared.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import grpc

import sentimill.server
from bench_machine import machine, write_result
from sentimill.metrics import Metrics
from sentimill.server import Serve, Serving
from sentimill.service import SERVICE
from sentimill.v1 import sentiment_pb2 as pb

TURNS = 5
CALLERS = 16
CALLS = {1: 1000, 64: 60}
"""Calls in a turn, by texts in a call."""


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

    def __init__(self) -> None:
        super().__init__()
        kept = {"registry", "max_waiting_texts"}
        for name in set(vars(self)) - kept:
            setattr(self, name, Nothing())

    def observe_answers(self, answers: Sequence[object], reasons: Sequence[str]) -> None:
        """Do nothing."""

    def observe_batch(self, rows: int, useful: int, padded: int, seconds: float) -> None:
        """Do nothing."""

    def observe_request(
        self, method: str, code: str, seconds: float, trace_id: str | None = None
    ) -> None:
        """Do nothing."""


def serve(bundle: Path, silent: bool) -> None:
    """Serve *bundle* and say where."""
    if silent:
        sentimill.server.Metrics = Silent  # type: ignore[misc,assignment] # for this alone

    def started(serving: Serving) -> None:
        print(serving.address, flush=True)  # noqa: T201 # the benchmark reads it

    Serve(bundle=bundle, port=0, metrics_port=0).run(started)


class Server:
    """One of the two, as a process."""

    def __init__(self, bundle: Path, *flags: str) -> None:
        command = [sys.executable, __file__, "--bundle", str(bundle), "--serve", *flags]
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


async def turn(server: Server, data: bytes, calls: int) -> float:
    """Return the processor time of one call in microseconds, over *calls* of them."""
    left = iter(range(calls))

    async def call(channel: grpc.aio.Channel) -> None:
        method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
        method = channel.unary_unary(f"/{SERVICE}/Classify")
        for _ in left:
            await method(data)

    async with grpc.aio.insecure_channel(server.address) as channel:
        before = server.cpu_seconds()
        await asyncio.gather(*(call(channel) for _ in range(CALLERS)))
        return (server.cpu_seconds() - before) / calls * 1e6


def main() -> None:
    """Measure, and write benchmarks/results/metrics-overhead.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True, help="what both servers serve")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--silent", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(given.bundle, given.silent)
        return
    servers = {"counted": Server(given.bundle), "silent": Server(given.bundle, "--silent")}
    found = {}
    try:
        for texts, calls in CALLS.items():
            items = [pb.ClassifyItem(text="the battery is good, the box was not")] * texts
            data = pb.ClassifyRequest(items=items).SerializeToString()
            times: dict[str, list[float]] = {name: [] for name in servers}
            for number in range(TURNS + 1):
                for name, server in servers.items():
                    time = asyncio.run(turn(server, data, calls))
                    if number:  # the first turn warms up
                        times[name].append(time)
            medians = {name: statistics.median(each) for name, each in times.items()}
            found[f"{texts} texts a call"] = {
                "microseconds_a_call": medians,
                "overhead": medians["counted"] / medians["silent"] - 1,
                "turns": times,
            }
    finally:
        for server in servers.values():
            server.stop()
    facts = {"bundle": given.bundle.name, "callers": CALLERS, "found": found}
    write_result("metrics-overhead", {**facts, "machine": machine()})


if __name__ == "__main__":
    main()
