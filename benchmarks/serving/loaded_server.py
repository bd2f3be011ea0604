"""Runs `sentimill serve` for a benchmark, and callers that keep it busy."""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import grpc

from benchmarks.serving.request_payloads import method_of, requests_of
from sentimill.v1 import sentiment_pb2 as pb

__all__ = [
    "LEAD",
    "Load",
    "Rate",
    "Server",
    "drive",
    "results_of",
    "running_server",
    "server_options",
    "under_load",
]

LEAD = 0.2
"""Share of a run that passes before it counts: the queue fills first."""


@dataclass(frozen=True, slots=True)
class Load:
    """Callers that each send the next request when the last one is answered."""

    texts_a_request: int
    callers: int


@dataclass(frozen=True, slots=True)
class Server:
    """A running `sentimill serve`."""

    address: str
    metrics: str
    pid: int

    def figures(self) -> dict[str, float]:
        """Return every current sample of the server's metrics."""
        page = urllib.request.urlopen(self.metrics, timeout=30).read().decode()
        lines = (line.rsplit(" ", 1) for line in page.splitlines() if line[0] != "#")
        return {name: float(value) for name, value in lines}

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Suspend the server for a while (SIGSTOP). No call is lost, and it uses no processor."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)

    def tokens(self) -> tuple[float, float]:
        """Return how many useful and how many padded tokens were computed since the start."""
        found = self.figures()
        return found["sentimill_useful_tokens_total"], found["sentimill_padded_tokens_total"]


@contextmanager
def running_server(
    settings: argparse.Namespace,
    more: Mapping[str, object] | None = None,
    *,
    program: str = "from sentimill.cli.main import main; main()",
    environment: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """Run `sentimill serve` with *settings* and *more* options. A flag has the value "".

    program, environment: what starts the command line, such as that of another checkout.
    """
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
    command = [sys.executable, "-c", program, "serve"]
    with subprocess.Popen(
        [*command, *(str(part) for pair in options.items() for part in pair if part != "")],
        stderr=subprocess.PIPE,
        text=True,
        env=None if environment is None else {**os.environ, **environment},
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


@dataclass(frozen=True, slots=True)
class Rate:
    """The answers of one second."""

    texts: float
    tokens: float


async def drive(
    server: Server, texts: Sequence[str], load: Load, seconds: float, neighbours: int = 0
) -> Rate:
    """Keep *load* on the server for so many *seconds*, and count the answers after the lead.

    The rate is by all of that time, not by the time from the first answer to the last. The answers
    of a batch come together, so that span would hold one batch more than it took to compute.
    """
    counting = time.perf_counter() + seconds * LEAD
    end = time.perf_counter() + seconds
    async with under_load(server, texts, load, neighbours) as answers:
        await asyncio.sleep(seconds)
    counted = [data for came, data in answers if counting <= came < end]
    if not counted:
        raise SystemExit("too little was answered in the time that counts: give more --seconds")
    tokens = [one.prediction.tokens for data in counted for one in results_of(data)]
    return Rate(len(tokens) / (end - counting), sum(tokens) / (end - counting))


@asynccontextmanager
async def under_load(
    server: Server, texts: Sequence[str], load: Load, neighbours: int = 0
) -> AsyncIterator[list[tuple[float, bytes]]]:
    """Keep *load* on the server; yield a list to which each answer is added with its time.

    neighbours: of each text, from the server's index.

    At the end it waits for the last answers.
    """
    requests = cycle(requests_of(texts, load.texts_a_request, neighbours))
    answers: list[tuple[float, bytes]] = []
    stop = asyncio.Event()
    async with grpc.aio.insecure_channel(server.address) as channel:
        call = method_of(channel)

        async def ask() -> None:
            while not stop.is_set():
                answer = await call(next(requests))
                answers.append((time.perf_counter(), answer))

        async with asyncio.TaskGroup() as asking:
            for _ in range(load.callers):
                asking.create_task(ask())
            try:
                yield answers
            finally:
                stop.set()


def results_of(data: bytes) -> list[pb.ClassifyResult]:
    """Return the results of one answer.

    Raises:
        SystemExit: one is an error.
    """
    results = list(pb.ClassifyResponse.FromString(data).results)
    if any(one.HasField("error") for one in results):
        raise SystemExit("a text was answered with an error: the rate would be of nothing")
    return results


def server_options(says: str) -> argparse.ArgumentParser:
    """Return a parser of the options of `running_server` and its reviews. *says*: a docstring."""
    parser = argparse.ArgumentParser(description=says.partition("\n")[0])
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--batch-tokens", type=int, help="of the server, by default its own")
    return parser
