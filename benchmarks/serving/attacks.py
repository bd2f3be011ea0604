"""Does a server stay healthy under attack, and does it notice and replace a broken engine?

    python -m benchmarks.serving.attacks --bundle bundles/reference --seconds 60

Each attack runs from its own process against its own server, while an honest caller sends one text
a call and a probe asks for health every 50 ms. The bound: health answers within 100 ms at the 99th
percentile, honest calls are answered, and memory is freed afterwards. Then engines and workers are
broken, and the readiness page shows how long the server needs to notice and to recover. A
`sitecustomize.py` that wraps `Classifier.run` breaks the engine. Writes `results/attacks.json`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from threading import Event, Thread
from typing import Final

import grpc

from benchmarks.record import RESULTS, process_status, surroundings, write_result
from benchmarks.serving.loaded_server import Server, running_server
from benchmarks.serving.request_payloads import method_of, request_of
from sentimill.v1 import sentiment_pb2 as pb

TEXT: Final = "The battery died within a week and nobody answers my mails."
SENTIMENT: Final = "/sentimill.v1.SentimentService/Classify"
INFER: Final = "/inference.GRPCInferenceService/ModelInfer"
LIMIT: Final = (4 << 20) - 1024
"""Bytes of a call that a server still accepts."""

AT_ONCE: Final = 4
"""Unanswered calls that an attacker has at a time."""

ENGINE_TIMEOUT: Final = 5
"""Seconds that an engine call may run before it counts as hung; the default is 30."""

_NOTICED_SECONDS: Final = 30
"""The least time that the server gets to notice a fault."""

BREAKER: Final = """
import os, time
from sentimill.classifier import Classifier

STARTED, MADE, run, start = time.time(), {}, Classifier.run, Classifier.__init__

def made(self, *args, **named):
    MADE[id(self)] = time.time()
    start(self, *args, **named)

def broken(self, rows, *args, **named):
    try:
        since, how = os.stat(os.environ["FAULT"]).st_mtime, open(os.environ["FAULT"]).read()
    except FileNotFoundError:
        return run(self, rows, *args, **named)
    old_model, old_process = MADE.get(id(self), 0) < since, STARTED < since
    if how == "hang" and old_model:
        time.sleep(3600)
    shape = how == "shape" and max(map(len, rows)) > 100
    if shape or (how == "model" and old_model) or (how == "process" and old_process):
        raise RuntimeError("broken on purpose")
    return run(self, rows, *args, **named)

Classifier.__init__, Classifier.run = made, broken
"""


def payloads() -> dict[str, tuple[str, bytes, bool]]:
    """Return each attack's method, its message, and whether it is compressed."""
    items = b"\x0a\x00" * (LIMIT // 2)
    return {
        "empty items": (SENTIMENT, items, False),
        "empty items in gzip": (SENTIMENT, items, True),
        "empty inputs (Open Inference)": (INFER, b"\x2a\x00" * (LIMIT // 2), False),
        "a model's name of 4 MiB": (INFER, b"\x0a" + _varint(LIMIT) + b"x" * LIMIT, False),
        "large calls without a deadline": (SENTIMENT, request_of([TEXT * 60] * 1000), False),
    }


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])


async def attack(address: str, name: str) -> None:
    """Send the messages of one attack until killed."""
    method, data, gzip = payloads()[name]
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    compression = grpc.Compression.Gzip if gzip else None
    async with grpc.aio.insecure_channel(address, options, compression=compression) as channel:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)

        async def send() -> None:
            while True:
                await call(data).code()

        await asyncio.gather(*(send() for _ in range(AT_ONCE)))


@dataclass(slots=True)
class Seen:
    """What an honest caller and a probe saw: seconds of each answer, and calls without one."""

    health: list[float]
    calls: list[float]
    failed: int = 0


async def look(server: Server, seconds: float) -> Seen:
    """Ask for health and classify a text, one after the other, for so many *seconds*."""
    seen = Seen([], [])
    end = time.perf_counter() + seconds
    data = request_of([TEXT])
    async with grpc.aio.insecure_channel(server.address) as channel:
        check: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        classify = method_of(channel)

        async def probe() -> None:
            while time.perf_counter() < end:
                began = time.perf_counter()
                await check(b"", timeout=30)
                seen.health.append(time.perf_counter() - began)
                await asyncio.sleep(0.05)

        async def call() -> None:
            while time.perf_counter() < end:
                began = time.perf_counter()
                if await classify(data, timeout=10).code() is grpc.StatusCode.OK:
                    seen.calls.append(time.perf_counter() - began)
                else:
                    seen.failed += 1
                    await asyncio.sleep(0.01)

        await asyncio.gather(probe(), call())
    return seen


def under_attack(settings: argparse.Namespace, name: str | None) -> dict[str, object]:
    """Return the figures of a server under one attack; None for no attack."""
    with running_server(settings, {"--open-inference": ""}) as server:
        before = process_status("VmRSS", server.pid) / 1024
        command = [sys.executable, "-m", "benchmarks.serving.attacks", "--address", server.address]
        attacker = None if name is None else subprocess.Popen([*command, "--attack", name])
        try:
            seen = asyncio.run(look(server, settings.seconds))
        finally:
            if attacker is not None:
                attacker.kill()
                attacker.wait()
        peak = process_status("VmHWM", server.pid) / 1024
        time.sleep(2)
        after = process_status("VmRSS", server.pid) / 1024
    return {
        "attack": name or "none",
        "health_p50_ms": _quantile(seen.health, 50),
        "health_p99_ms": _quantile(seen.health, 99),
        "health_max_ms": round(1000 * max(seen.health), 1),
        "answers_a_second": round(len(seen.calls) / settings.seconds, 1),
        "call_p99_ms": _quantile(seen.calls, 99),
        "failed_calls": seen.failed,
        "memory_mib": {"before": round(before), "peak": round(peak), "after": round(after)},
    }


def _quantile(seconds: list[float], percent: int) -> float | None:
    if len(seconds) < 2:
        return None
    return round(1000 * quantiles(seconds, n=100, method="inclusive")[percent - 1], 1)


@contextmanager
def breakable() -> Iterator[Path]:
    """Let every server that is started break as the yielded file says, once it is there."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "sitecustomize.py").write_text(BREAKER)
        fault = Path(folder) / "fault"
        before = os.environ.get("PYTHONPATH", "")
        os.environ |= {"PYTHONPATH": f"{folder}:{before}", "FAULT": str(fault)}
        try:
            yield fault
        finally:
            os.environ["PYTHONPATH"] = before


def after_fault(settings: argparse.Namespace, name: str, workers: int) -> dict[str, object]:
    """Break a server and return how long it took to be unready, and to be whole again."""
    options = {"--workers": workers, "--engine-timeout-seconds": ENGINE_TIMEOUT}
    with breakable() as fault, running_server(settings, options) as server:
        base = server.metrics.removesuffix("/metrics")

        def whole() -> bool:
            if workers == 1:
                return _status(f"{base}/readyz") == 200
            return server.figures()["sentimill_ready_workers"] == workers

        with honest_caller(server) as answered:
            time.sleep(1)
            began = time.time()
            if name in ("SIGSTOP", "SIGKILL"):
                os.kill(_child(server.pid), signal.Signals[name])
            else:
                fault.write_text(name)
            unready = _until(lambda: not whole(), max(settings.seconds, _NOTICED_SECONDS))
            recovered = None if unready is None else _until(whole, 60)
            time.sleep(2)
            good = [at for at, code in answered if at > began and code == "OK"]
            bad = [at for at, code in answered if at > began and code != "OK"]
    return {
        "fault": name,
        "workers": workers,
        "unready_seconds": unready,
        "recovered_seconds": None if recovered is None else round(recovered + (unready or 0), 2),
        "failed_calls": len(bad),
        "answered_calls": len(good),
    }


@contextmanager
def honest_caller(server: Server) -> Iterator[list[tuple[float, str]]]:
    """Classify one text after the other in a thread; yield when each was answered, and how."""
    answered: list[tuple[float, str]] = []
    stop = Event()
    request = pb.ClassifyRequest(items=[pb.ClassifyItem(text=TEXT)]).SerializeToString()
    long = request_of([TEXT * 20])  # more than 100 tokens, so the broken engine fails on it

    def call() -> None:
        turn = 0
        while not stop.is_set():
            # A new connection each time, because a connection stays with its worker.
            with grpc.insecure_channel(server.address) as channel:
                method: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(SENTIMENT)
                turn += 1
                try:
                    method(long if turn % 2 else request, timeout=3)
                    code = "OK"
                except grpc.RpcError as error:
                    code = error.code().name
            answered.append((time.time(), code))
            time.sleep(0.01)

    threads = [Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield answered
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def _status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=5) as page:
            return int(page.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0  # the process has ended


def _until(condition: Callable[[], bool], seconds: float) -> float | None:
    """Return after how many seconds *condition* held, None where it did not within *seconds*."""
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        if condition():
            return round(time.perf_counter() - began, 2)
        time.sleep(0.02)
    return None


def _child(pid: int) -> int:
    """Return a worker of the supervisor *pid*, which starts each from a thread of its own."""
    files = Path(f"/proc/{pid}/task").glob("*/children")
    children = [int(one) for file in files for one in file.read_text().split()]
    names = {one: Path(f"/proc/{one}/cmdline").read_bytes() for one in children}
    return next(one for one, name in names.items() if b"spawn_main" in name)


def main() -> None:
    """Run every attack and every fault, and print one line of JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--bundle", type=Path, default=Path("bundles/reference"))
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--batch-tokens", type=int)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each attack")
    parser.add_argument("--out", type=Path, default=RESULTS / "attacks.json")
    parser.add_argument("--address", help=argparse.SUPPRESS)
    parser.add_argument("--attack", help=argparse.SUPPRESS)
    settings = parser.parse_args()
    if settings.attack is not None:
        asyncio.run(attack(settings.address, settings.attack))
    quiet = surroundings()  # before the attacks themselves add to the load
    attacks = [under_attack(settings, name) for name in (None, *payloads())]
    singles = [after_fault(settings, name, 1) for name in ("model", "shape", "hang")]
    groups = [after_fault(settings, name, 2) for name in ("process", "SIGSTOP", "SIGKILL")]
    result: dict[str, object] = {
        **quiet,
        "seconds": settings.seconds,
        "engine_timeout_seconds": ENGINE_TIMEOUT,
        "attacks": attacks,
        "faults": [*singles, *groups],
    }
    sys.stdout.write(write_result(settings.out, result) + "\n")


if __name__ == "__main__":
    main()
