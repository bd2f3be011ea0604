"""Does a server that often reloads its bundle under load fail calls, or grow in memory?

The bound: no call fails, and memory is flat. The server holds two models for a moment at each
reload, so the resident memory between reloads counts. Reported is its slope over the second half
(the median slope of all pairs, with its 95 % interval), per reload and per hour at this pace. Aim
(issue 5): 50 reloads, less than 1 % an hour.

    python -m benchmarks.serving.reloads --bundle bundles/mine --data FOLDER \
        [--out results/reloads.json]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scipy.stats import theilslopes

from benchmarks.record import surroundings, write_result
from benchmarks.reviews import read_reviews
from benchmarks.serving.loaded_server import Server, running_server, server_options
from benchmarks.serving.open_loop import Call, codes, offer, quantile
from benchmarks.serving.request_payloads import requests_of

ANSWER_SECONDS = 600.0
"""A reload that takes longer is a failure."""


def main() -> None:
    """Measure and print: a line a reload on stderr, one JSON document on stdout."""
    settings = _settings()
    requests = requests_of(read_reviews(settings.data, settings.texts), settings.texts_a_request)
    with tempfile.TemporaryDirectory() as work:
        copy, link = Path(work) / "copy", Path(work) / "live"
        bundle = settings.bundle.resolve()
        shutil.copytree(bundle, copy)
        link.symlink_to(bundle)
        settings.bundle = link
        with running_server(settings) as server:
            began = time.perf_counter()
            with _calls(server, requests, settings) as calls:
                rows = []
                for i in range(settings.reloads):
                    _lead(link, (copy, bundle)[i % 2])
                    rows.append(_reload(server, began))
            failed = server.figures()['sentimill_reloads_total{result="failed"}']
    half = rows[len(rows) // 2 :]
    memory = [row["resident_bytes"] for row in half]
    a_reload, *between = _slope([row["reload"] for row in half], memory)
    a_second, *_ = _slope([row["at"] for row in half], memory)
    resident = half[0]["resident_bytes"]
    result = {
        "question": "failed calls and memory over reloads under load",
        "reloads": settings.reloads,
        "failed_reloads": failed,
        "requests_per_second": settings.rate,
        "texts_a_request": settings.texts_a_request,
        "calls": len(calls),
        "codes": codes(calls),
        "p99_seconds": quantile([call.seconds for call in calls if call.code == "OK"], 0.99),
        "slope_bytes_a_reload": a_reload,
        "slope_bytes_a_reload_between": between,
        "slope_share_an_hour": 3600 * a_second / resident,
        "each": rows,
        **surroundings(),
    }
    _tell(
        f"{len(calls)} calls {result['codes']}; memory {a_reload / 1024:+.0f} KiB a reload"
        f" ({between[0] / 1024:+.0f} to {between[1] / 1024:+.0f}),"
        f" {3600 * a_second / resident:+.2%} an hour at this pace"
    )
    print(write_result(settings.out, result))  # noqa: T201


def _lead(link: Path, folder: Path) -> None:
    """Let *link* lead to *folder*, atomically."""
    new = link.with_suffix(".new")
    new.symlink_to(folder)
    new.replace(link)


def _reload(server: Server, began: float) -> dict[str, float]:
    """Ask for a reload, wait until the old model is closed, and return the figures."""
    name = 'sentimill_reloads_total{{result="{}"}}'
    before = server.figures()
    since = time.perf_counter()
    os.kill(server.pid, signal.SIGHUP)
    while True:
        now = server.figures()
        if now[name.format("failed")] > before[name.format("failed")]:
            raise SystemExit("a reload failed: see the server's log")
        if now[name.format("ok")] > before[name.format("ok")]:
            break
        if time.perf_counter() - since > ANSWER_SECONDS:
            raise SystemExit(f"no reload within {ANSWER_SECONDS:g} s")
        time.sleep(0.1)
    seconds = time.perf_counter() - since
    time.sleep(1.0)  # the old model answers its last calls
    now = server.figures()
    row = {
        "reload": now[name.format("ok")],
        "at": time.perf_counter() - began,
        "seconds": seconds,
        "resident_bytes": now["process_resident_memory_bytes"],
        "open_files": now["process_open_fds"],
    }
    _tell(f"reload {row['reload']:.0f}: {seconds:.1f} s, {row['resident_bytes'] / 2**20:.1f} MiB")
    return row


@contextmanager
def _calls(
    server: Server, requests: list[bytes], settings: argparse.Namespace
) -> Iterator[list[Call]]:
    """Send calls at `--rate` in slices of two seconds, and yield the list of all calls."""
    found: list[Call] = []
    stop = threading.Event()

    def send() -> None:
        slice_ = 0
        while not stop.is_set():
            call = offer(
                server.address,
                requests,
                rate=settings.rate,
                seconds=2.0,
                deadline=settings.deadline,
                seed=slice_,
            )
            found.extend(asyncio.run(call))
            slice_ += 1

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield found
    finally:
        stop.set()
        thread.join()


def _slope(x: list[float], y: list[float]) -> tuple[float, float, float]:
    """Return the slope of *y* over *x* with its 95 % interval: the median slope of all pairs.

    Theil 1950, Sen 1968. Memory jumps by tens of MiB where the allocator gives pages back, and one
    such point at the end would change the sign of a least-squares slope.
    """
    slope, _, low, high = theilslopes(y, x)
    return float(slope), float(low), float(high)


def _tell(line: str) -> None:
    print(line, file=sys.stderr)  # noqa: T201


def _settings() -> argparse.Namespace:
    parser = server_options(__doc__)
    parser.add_argument("--texts", type=int, default=512)
    parser.add_argument("--texts-a-request", type=int, default=4)
    parser.add_argument("--rate", type=float, default=5.0, help="requests a second")
    parser.add_argument("--deadline", type=float, default=30.0, help="seconds, of each call")
    parser.add_argument("--reloads", type=int, default=50)
    return parser.parse_args()


if __name__ == "__main__":
    main()
