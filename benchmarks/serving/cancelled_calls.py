"""Do calls that end badly leave anything behind, or disturb other calls?

    python -m benchmarks.serving.cancelled_calls --bundle bundles/reference --data FOLDER

A thousand calls are given up at random moments, by cancelling or by closing the connection, and two
hundred more carry bytes that hypothesis made up. Meanwhile healthy callers check that each of their
texts is answered once, in order, with the bits that the engine gives in this process. The bound: no
healthy call fails or differs, no call stays unfinished, as many files and threads are open after as
before, and memory is flat: over the second half of the bad calls it grows by less than 1 % an hour
at their pace, about twenty a second. Measuring starts after a tenth of the calls, which allocate
what stays for good, and after the ten minutes of history on the status page are full (2 KiB a
second). As many calls are cut on a bare grpc.aio server, which keeps 80 bytes for each operation of
a call that ends while it is received or answered (grpc issue 43360). Writes
`results/cut-calls.json`.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from statistics import median
from typing import Any, Final

import grpc
import numpy as np
from hypothesis import HealthCheck, Phase, given, settings, strategies

from benchmarks.record import RESULTS, process_status, surroundings, write_result
from benchmarks.reviews import read_reviews
from benchmarks.serving.loaded_server import Server, running_server, server_options
from benchmarks.serving.request_payloads import method_of, request_of
from sentimill import Classifier, Prediction
from sentimill.engine.hardware import usable_cores
from sentimill.observability.history import KEPT, STEP_SECONDS
from sentimill.v1 import sentiment_pb2 as pb

Job = Callable[[], Awaitable[str]]

TOKENIZERS: Final = 2
"""Threads of the server's tokenizers; like the engine's, each begins when it is first needed."""

CALM_SECONDS: Final = 60.0
"""How long unfinished calls may take to end after the last call."""


class Neighbours:
    """Healthy callers. answered: the number of their texts, each compared with *expected*."""

    def __init__(self, server: Server, texts: Sequence[str], expected: Sequence[Prediction]):
        self._server, self._texts, self._expected = server, texts, expected
        self._stop = False
        self.answered = 0
        self.calls = 0

    async def call(self, seed: int) -> None:
        """Call until told to stop.

        Raises:
            SystemExit: an answer is missing, doubled, or not the engine's own.
        """
        choose = random.Random(seed)
        async with grpc.aio.insecure_channel(self._server.address) as channel:
            classify = method_of(channel)
            while not self._stop:
                which = choose.sample(range(len(self._texts)), choose.randint(1, 4))
                asked = request_of([self._texts[i] for i in which])
                answer = pb.ClassifyResponse.FromString(await classify(asked, timeout=120))
                found = [tuple(one.prediction.probs) for one in answer.results]
                if found != [self._expected[i].probs for i in which]:
                    raise SystemExit("a healthy call was not answered as the engine answers")
                self.answered += len(which)
                self.calls += 1

    async def beside(self, callers: int, work: Awaitable[Counter[str]]) -> Counter[str]:
        """Call while *work* runs, and return its result. An error in a call is raised."""
        self._stop = False
        tasks = [asyncio.create_task(self.call(seed)) for seed in range(callers)]
        try:
            return await work
        finally:
            self._stop = True
            await asyncio.gather(*tasks)


async def cut(server: Server, texts: Sequence[str], usual: float, choose: random.Random) -> str:
    """Make a call, give it up at random within twice the *usual* time, and return how it ended.

    Half of the calls are cancelled. The connection of the others is closed.
    """
    asked = request_of(choose.sample(texts, choose.randint(1, 16)))
    moment = choose.uniform(0, 2 * usual)
    # Its own connection: closing a shared one would cut the other calls.
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(server.address, options=options) as channel:
        call = method_of(channel)(asked)
        done, _ = await asyncio.wait([asyncio.ensure_future(call.code())], timeout=moment)
        if done:
            return str((await call.code()).name)
        if choose.random() < 0.5:
            call.cancel()
            return "cancelled"
    return "disconnected"


def made_up(count: int, seed: int, texts: Sequence[str]) -> list[bytes]:
    """Return *count* message bodies: random bytes, or requests with some of their bytes changed."""
    found: list[bytes] = []
    whole = request_of(texts)
    change = strategies.tuples(strategies.integers(0, len(whole) - 1), strategies.integers(0, 255))

    def changed(changes: list[tuple[int, int]]) -> bytes:
        body = bytearray(whole)
        for place, byte in changes:
            body[place] = byte
        return bytes(body)

    damaged = strategies.lists(change, min_size=1, max_size=8).map(changed)

    @settings(max_examples=count, database=None, deadline=None, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(strategies.one_of(strategies.binary(min_size=1, max_size=4096), damaged))
    def collect(body: bytes) -> None:
        found.append(body)

    collect()
    random.Random(seed).shuffle(found)
    return found[:count]


async def send(server: Server, body: bytes) -> str:
    """Send *body* as a call, and return its code, or `answered` where it was a valid request."""
    async with grpc.aio.insecure_channel(server.address) as channel:
        code = await method_of(channel)(body, timeout=120).code()
    return "answered" if code is grpc.StatusCode.OK else str(code.name)


def left_open(server: Server) -> dict[str, float]:
    """Return the figures that show a leak: files, threads, resident bytes, calls under way."""
    figures = server.figures()
    return {
        "open_files": figures["process_open_fds"],
        "threads": float(process_status("Threads", server.pid)),
        "resident_bytes": 1024.0 * process_status("VmRSS", server.pid),
        "waiting_texts": figures["sentimill_waiting_texts"],
        "in_flight_requests": figures["sentimill_in_flight_requests"],
    }


async def calm(server: Server) -> dict[str, float]:
    """Wait until no call is under way, and return the figures of `left_open`."""
    end = time.monotonic() + CALM_SECONDS
    while True:
        found = await asyncio.to_thread(left_open, server)
        if not found["waiting_texts"] and not found["in_flight_requests"]:
            await asyncio.sleep(1.0)  # closed connections leave the table of files
            return await asyncio.to_thread(left_open, server)
        if time.monotonic() > end:
            raise SystemExit(f"still under way after {CALM_SECONDS:g} s: {found}")
        await asyncio.sleep(0.2)


async def abuse(
    jobs: Sequence[Job], at_once: int, watch: Callable[[int], None] = lambda done: None
) -> Counter[str]:
    """Run *jobs*, some at once, and return how they ended. *watch* is called at every twentieth."""
    found: Counter[str] = Counter()
    coming = iter(jobs)

    async def work() -> None:
        for job in coming:
            found[await job()] += 1
            if (done := found.total()) % 20 == 0:
                await asyncio.to_thread(watch, done)

    await asyncio.gather(*(work() for _ in range(at_once)))
    return found


async def measure(server: Server, options: argparse.Namespace) -> dict[str, Any]:
    """Warm up, cut calls, send invalid messages, and compare what is left."""
    texts = read_reviews(options.data, options.texts)
    classifier = Classifier.load(options.bundle, engine=options.engine, threads=options.threads)
    neighbours = Neighbours(server, texts, predictions(classifier, texts))
    usual = await usual_seconds(server, texts)
    choose = random.Random(11)
    jobs: list[Job] = [partial(cut, server, texts, usual, choose) for _ in range(options.cut)]
    bodies = made_up(options.malformed, 11, texts[:2])
    jobs += [partial(send, server, body) for body in bodies]
    choose.shuffle(jobs)
    first = len(jobs) // 10
    setting_up = abuse(jobs[:first], options.at_once)
    ended = await neighbours.beside(options.neighbours, setting_up)
    await asyncio.sleep(KEPT * STEP_SECONDS if options.settle is None else options.settle)
    before = await calm(server)
    memory = Memory(server.pid)
    began = time.perf_counter()
    ended += await neighbours.beside(
        options.neighbours, abuse(jobs[first:], options.at_once, memory.look)
    )
    seconds = time.perf_counter() - began
    after = await calm(server)
    pace, slope = len(jobs[first:]) / seconds, memory.slope()
    return {
        "question": "what calls that end badly leave behind",
        "bundle": options.bundle.name,
        "cut": options.cut,
        "malformed": len(bodies),
        "seconds": seconds,
        "usual_seconds": usual,
        "ended": dict(sorted(ended.items())),
        "healthy_calls": neighbours.calls,
        "healthy_texts": neighbours.answered,
        "before": before,
        "after": after,
        "bytes_a_bad_call": slope,
        "slope_share_an_hour": 3600 * pace * slope / memory.resident[0],
        "resident_growth": after["resident_bytes"] / before["resident_bytes"] - 1,
        "resident_bytes": memory.resident[:: 1 + len(memory.resident) // 200],
        "bare_bytes_a_bad_call": await bare(texts, usual, options),
    }


class Memory:
    """The resident bytes of a process, by the number of calls made so far."""

    def __init__(self, pid: int):
        self._pid = pid
        self._calls: list[int] = []
        self.resident: list[float] = []

    def look(self, calls: int) -> None:
        """Record the resident bytes after so many *calls*."""
        self._calls.append(calls)
        self.resident.append(1024.0 * process_status("VmRSS", self._pid))

    def slope(self) -> float:
        """Return the bytes that a call adds in the second half. The first half still sets up."""
        half = len(self._calls) // 2
        if half < 3:
            return 0.0
        return float(np.polyfit(self._calls[half:], self.resident[half:], 1)[0])


async def bare(texts: Sequence[str], usual: float, options: argparse.Namespace) -> float:
    """Return the bytes that a cut call leaves on the server of `bare_server.py`."""
    command = [sys.executable, "-m", "benchmarks.serving.bare_server", str(usual)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        address = (await asyncio.to_thread(process.stdout.readline)).strip()
        server, choose = Server(address, "", process.pid), random.Random(12)
        jobs = [partial(cut, server, texts, usual, choose) for _ in range(options.cut)]
        memory = Memory(process.pid)
        await abuse(jobs, options.at_once, memory.look)
        process.communicate("")
    return memory.slope()


def predictions(classifier: Classifier, texts: Sequence[str]) -> list[Prediction]:
    """Return the answers of the engine in this process."""
    found = classifier.classify(texts)
    kept = [one for one in found if isinstance(one, Prediction)]
    if len(kept) < len(found):
        raise SystemExit("one of the reviews cannot be read: the comparison would have holes")
    return kept


async def usual_seconds(server: Server, texts: Sequence[str]) -> float:
    """Return the median time of a call of eight texts on an idle server."""
    taken = []
    async with grpc.aio.insecure_channel(server.address) as channel:
        for i in range(0, 48, 8):
            began = time.perf_counter()
            await method_of(channel)(request_of(texts[i : i + 8]))
            taken.append(time.perf_counter() - began)
    return median(taken[1:])


def main() -> None:
    """Measure and print one JSON document; exit with 1 where the bound is not kept."""
    parser = server_options(__doc__)
    parser.set_defaults(out=RESULTS / "cut-calls.json")
    parser.add_argument("--texts", type=int, default=128)
    parser.add_argument("--cut", type=int, default=1000)
    parser.add_argument("--malformed", type=int, default=200)
    parser.add_argument("--neighbours", type=int, default=2)
    parser.add_argument("--at-once", type=int, default=8)
    parser.add_argument(
        "--settle", type=float, help="seconds before figures start, if not ten minutes"
    )
    options = parser.parse_args()
    with running_server(options) as server:
        found = asyncio.run(measure(server, options))
    print(write_result(options.out, {**found, **surroundings()}))  # noqa: T201
    leaks = [
        name
        for name, may_come in (("open_files", 0), ("threads", usable_cores() + TOKENIZERS))
        if found["after"][name] > found["before"][name] + may_come
    ]
    if leaks:
        sys.exit(f"more {' and '.join(leaks)} than before")


if __name__ == "__main__":
    main()
