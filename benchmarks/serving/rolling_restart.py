"""Does a call fail while two replicas behind HAProxy are restarted one after the other?

    python -m benchmarks.serving.rolling_restart --bundle bundles/reference --data DIR \
        --out rolling.json

Two servers run behind HAProxy with the shipped configuration (`deploy/haproxy`). Calls arrive at
random, at half of the rate that one server reaches alone. After a calm part every replica is
restarted, `--rounds` times: SIGTERM, notice, drain, and a new process on the same ports. The
callers never retry. The result has the calls by code, the latency in the calm part and in the rest,
and how evenly the calls of the calm part were spread. It takes about three minutes and needs
Debian's `haproxy`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from benchmarks.record import surroundings, write_result
from benchmarks.reviews import read_reviews
from benchmarks.serving.loaded_server import Load, Server, drive, running_server, server_options
from benchmarks.serving.open_loop import Call, codes, offer, quantile
from benchmarks.serving.request_payloads import requests_of

CONFIG: Final = Path(__file__).parents[2] / "deploy/haproxy/haproxy.cfg"
NOTICE_SECONDS: Final = 3
TEXTS_A_REQUEST: Final = 4
_ANSWERED: Final = 'sentimill_requests_total{code="OK",method="Classify"}'
_WAIT_SECONDS: Final = 120.0


class Replica:
    """One server, which restarts on the same ports."""

    def __init__(self, settings: argparse.Namespace) -> None:
        self._settings = settings
        self._running = ExitStack()
        self._ports: dict[str, object] = {}
        self.server = self.start()

    def start(self) -> Server:
        """Start it, and return when it serves."""
        options = {"--notice-seconds": NOTICE_SECONDS, **self._ports}
        self.server = self._running.enter_context(running_server(self._settings, options))
        grpc_port, http_port = (int(where.rpartition(":")[2]) for where in self.where())
        self._ports = {"--port": grpc_port, "--metrics-port": http_port}
        return self.server

    def stop(self) -> None:
        """Stop it, and return when it has ended."""
        self._running.close()

    def where(self) -> tuple[str, str]:
        """Return host:port of gRPC and of HTTP."""
        return self.server.address, self.server.metrics.split("/")[2]

    def answered(self) -> float:
        """Return how many calls it has answered since it started."""
        return self.server.figures().get(_ANSWERED, 0.0)


def main() -> None:
    """Restart under load, and write what the callers saw."""
    parser = server_options(__doc__)
    parser.add_argument("--texts", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=2, help="restarts of each replica")
    parser.add_argument("--calm-seconds", type=float, default=30.0)
    settings = parser.parse_args()
    texts = read_reviews(settings.data, settings.texts)
    with tempfile.TemporaryDirectory() as work, ExitStack() as stack:
        replicas = [Replica(settings) for _ in range(2)]
        for each in replicas:
            stack.callback(each.stop)
        rate = 0.5 * capacity(replicas[0].server, texts)
        listen = stack.enter_context(balancer(Path(work) / "lb", [e.where() for e in replicas]))
        before = [each.answered() for each in replicas]
        calling = Calling(listen, requests_of(texts, TEXTS_A_REQUEST), rate)
        calling.start()
        time.sleep(settings.calm_seconds)
        counts = [each.answered() - was for each, was in zip(replicas, before, strict=True)]
        calm_until = calling.now()
        for _ in range(settings.rounds):
            for each in replicas:
                each.stop()
                each.start()
                until_answering(each)
        calls = calling.finish()
    result = {
        "question": "does a call fail while two replicas behind HAProxy are restarted in turn",
        "texts_a_call": TEXTS_A_REQUEST,
        "offered_calls_per_second": rate,
        "restarts": 2 * settings.rounds,
        "notice_seconds": NOTICE_SECONDS,
        "codes": codes(calls),
        "calm_share_of_first_replica": counts[0] / sum(counts),
        "calm": latency([call for call in calls if call.due < calm_until]),
        "restarting": latency([call for call in calls if call.due >= calm_until]),
        **surroundings(),
    }
    print(write_result(settings.out, result))  # noqa: T201


def capacity(server: Server, texts: Sequence[str]) -> float:
    """Return how many calls a second one server answers when it is kept busy."""
    load = Load(TEXTS_A_REQUEST, 32)
    return asyncio.run(drive(server, texts, load, 15.0)).texts / TEXTS_A_REQUEST


@contextmanager
def balancer(socket: Path, replicas: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Run HAProxy as shipped, and yield its address.

    replicas: host:port of gRPC and of HTTP, of two.

    Raises:
        SystemExit: it is not installed, or does not start.
    """
    program = shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        sys.exit("haproxy is not installed: apt-get install --no-install-recommends haproxy")
    names = {"LISTEN": f"unix@{socket}"}
    for letter, (address, http) in zip("AB", replicas, strict=True):
        host, _, port = http.rpartition(":")
        names |= {f"GRPC_{letter}": address, f"HOST_{letter}": host, f"HTTP_{letter}": port}
    with subprocess.Popen([program, "-f", str(CONFIG)], env={**os.environ, **names}) as process:
        try:
            end = time.monotonic() + _WAIT_SECONDS
            while not socket.exists():
                if process.poll() is not None or time.monotonic() > end:
                    sys.exit("haproxy does not listen: what it said is above")
                time.sleep(0.05)
            yield f"unix:{socket}"
        finally:
            process.kill()


def until_answering(replica: Replica) -> None:
    """Wait until *replica* answers calls again.

    Raises:
        SystemExit: none come.
    """
    end = time.monotonic() + _WAIT_SECONDS
    while replica.answered() < 10:
        if time.monotonic() > end:
            sys.exit(f"no call has come to {replica.server.address} in {_WAIT_SECONDS:.0f} s")
        time.sleep(0.1)


class Calling(threading.Thread):
    """Sends calls at a steady rate, until it is told to finish."""

    def __init__(self, address: str, requests: Sequence[bytes], rate: float) -> None:
        super().__init__(name="calling", daemon=True)  # an error above ends the program
        self._offered = (address, requests, rate)
        self._calls: list[Call] = []
        self._began = time.perf_counter()
        self._enough = threading.Event()

    def run(self) -> None:
        """Send calls in slices of ten seconds."""
        address, requests, rate = self._offered
        self._began = time.perf_counter()
        turn = 0
        while not self._enough.is_set():
            before = self.now()
            calls = asyncio.run(
                offer(address, requests, rate=rate, seconds=10.0, deadline=30.0, seed=turn)
            )
            self._calls += [Call(before + call.due, call.seconds, call.code) for call in calls]
            turn += 1

    def now(self) -> float:
        """Return the seconds since it began."""
        return time.perf_counter() - self._began

    def finish(self) -> list[Call]:
        """Wait for the calls under way, and return all calls."""
        self._enough.set()
        self.join()
        return self._calls


def latency(calls: Sequence[Call]) -> dict[str, object]:
    """Return how long *calls* took, in seconds from when each was due."""
    seconds = [call.seconds for call in calls]
    return {"calls": len(calls), "p50": quantile(seconds, 0.5), "p99": quantile(seconds, 0.99)}


if __name__ == "__main__":
    main()
