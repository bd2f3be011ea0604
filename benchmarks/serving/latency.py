"""How does latency rise with load, and what does the service do at three times its capacity?

The bound: at any load a call takes at least as long as its engine call, so latencies are compared
with the time of one full batch of the bare engine. Capacity is the closed-loop rate with the same
requests in the same run, measured again in each round, and before and after the overload. Arrivals
are open-loop (`open_loop.py`). Rounds visit the loads in random order, and the calls of all rounds
are one sample. Aims (issue 5): at 70 % load p99 within 5 full batches; at 3 times capacity a
goodput of at least 0.9 of it, p99 of accepted calls within their deadline, flat memory, and usual
latency again within 5 s. No server can reach the first aim if a call fills a batch, as a call of
four reviews does on a CPU: at that load even the simplest queue (M/D/1) has its p99 at 7.4 service
times. So everything is measured twice, with one review a call and with four.

    python -m benchmarks.serving.latency --bundle bundles/mine --data FOLDER \
        --out results/latency.json
    python -m benchmarks.serving.latency … --texts-a-request 4 --out results/latency-of-4.json
"""

from __future__ import annotations

import argparse
import asyncio
import math
import random
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from statistics import mean, median

import numpy as np

from benchmarks.record import process_status, surroundings, write_result
from benchmarks.reviews import read_reviews
from benchmarks.serving.loaded_server import Load, Server, drive, running_server, server_options
from benchmarks.serving.open_loop import Call, codes, offer, quantile
from benchmarks.serving.request_payloads import requests_of
from sentimill import Classifier

QUANTILES = {"p50_seconds": 0.5, "p95_seconds": 0.95, "p99_seconds": 0.99}
NORMAL = 0.5
"""The load before and after the overload, as a share of capacity."""

CALM_SECONDS = 5.0
"""An overload is over after so many seconds of answered calls with usual latency."""

LEAD_SECONDS = 2.0
"""The start of a run that does not count; less if the whole run is short."""


def main() -> None:
    """Measure and print: a table on stderr, one JSON document on stdout, a curve as SVG."""
    settings = _settings()
    random.seed(7)
    texts = read_reviews(settings.data, settings.texts)
    requests = requests_of(texts, settings.texts_a_request)
    classifier = Classifier.load(settings.bundle, engine=settings.engine, threads=settings.threads)
    settings.batch_tokens = settings.batch_tokens or classifier.batch_tokens
    batch_seconds = full_batch(classifier, settings.batch_tokens)
    result: dict[str, object] = {
        "question": "latency against load, and the service past its capacity",
        "engine": asdict(classifier.engine.info),
        "texts_a_request": settings.texts_a_request,
        "batch_tokens": settings.batch_tokens,
        "deadline_seconds": settings.deadline,
        "seconds": settings.seconds,
        "rounds": settings.rounds,
        "full_batch_seconds": batch_seconds,
    }
    with running_server(settings) as server:
        _capacity(server, texts, settings)  # warms up
        if "curve" in settings.modes:
            result["curve"] = _curve(server, texts, requests, batch_seconds, settings)
        if "overload" in settings.modes:
            result["overload"] = _overload(server, texts, requests, settings)
    print(write_result(settings.out, {**result, **surroundings()}))  # noqa: T201
    if settings.out is not None and "curve" in result:
        plot(settings.out.with_suffix(".svg"), result)


def full_batch(classifier: Classifier, batch_tokens: int) -> float:
    """Return the median time of one engine call of *batch_tokens*, all rows at full length.

    As many go at once as when the server is busy, one after the other.
    """
    longest = classifier.bundle.manifest.max_tokens
    row = np.full(longest, classifier.bundle.manifest.pad_id, dtype=np.int64)
    taken, turns = [], 4
    for _ in range(6):
        began = time.perf_counter()
        batch = [row] * max(1, batch_tokens // longest)
        classifier.at_once(classifier.run, [batch] * (turns * classifier.engine.info.calls))
        taken.append((time.perf_counter() - began) / turns)
    return median(taken[1:])


def _capacity(server: Server, texts: Sequence[str], settings: argparse.Namespace) -> float:
    """Return the requests a second that are answered when every caller always has a next one."""
    size: int = settings.texts_a_request
    load = Load(size, max(8, 2 * settings.batch_tokens // (64 * size)))
    return asyncio.run(drive(server, texts, load, settings.seconds)).texts / size


def _offer(
    server: Server,
    requests: Sequence[bytes],
    settings: argparse.Namespace,
    rate: float,
    seconds: float | None = None,
) -> list[Call]:
    call = offer(
        server.address,
        requests,
        rate=rate,
        seconds=settings.seconds if seconds is None else seconds,
        deadline=settings.deadline,
        seed=random.randrange(1 << 30),
    )
    return asyncio.run(call)


def _curve(
    server: Server,
    texts: Sequence[str],
    requests: Sequence[bytes],
    batch_seconds: float,
    settings: argparse.Namespace,
) -> list[dict[str, object]]:
    """Return one row for each load, over all rounds."""
    calls: dict[float, list[Call]] = {load: [] for load in settings.loads}
    rates: dict[float, list[float]] = {load: [] for load in settings.loads}
    for _ in range(settings.rounds):
        capacity = _capacity(server, texts, settings)
        for load in random.sample(settings.loads, len(settings.loads)):
            rates[load].append(load * capacity)
            calls[load] += _counted(_offer(server, requests, settings, rate=load * capacity))
    rows = []
    for load in sorted(settings.loads):
        found = _row(calls[load])
        p99 = found["p99_seconds"]
        row = {
            "load": load,
            "requests_per_second": median(rates[load]),
            **found,
            "p99_by_full_batch": None if p99 is None else float(str(p99)) / batch_seconds,
        }
        rows.append(row)
        _tell(f"load {load:4.0%}: " + _shown(row))
    return rows


def _counted(calls: Sequence[Call]) -> list[Call]:
    last = max((call.due for call in calls), default=0.0)
    return [call for call in calls if call.due >= min(LEAD_SECONDS, last / 4)]


def _row(calls: Sequence[Call]) -> dict[str, object]:
    """Return the figures of calls. The latencies are those of answered calls."""
    good = [call.seconds for call in calls if call.code == "OK"]
    return {
        "calls": len(calls),
        "codes": codes(calls),
        **{name: quantile(good, share) for name, share in QUANTILES.items()},
    }


def _overload(
    server: Server, texts: Sequence[str], requests: Sequence[bytes], settings: argparse.Namespace
) -> dict[str, object]:
    """Return the figures at `--times` the capacity, and how long the recovery takes."""
    capacity = _capacity(server, texts, settings)
    before = _counted(_offer(server, requests, settings, rate=NORMAL * capacity))
    with _memory(server) as resident:
        rate, seconds = settings.times * capacity, settings.overload_seconds
        calls = _offer(server, requests, settings, rate=rate, seconds=seconds)
    after = _offer(server, requests, settings, rate=NORMAL * capacity)
    # The machine's speed changes by the minute, so capacity is measured before and after.
    capacities = (capacity, _capacity(server, texts, settings))
    usual = quantile([call.seconds for call in before if call.code == "OK"], 0.5)
    if usual is None:
        raise SystemExit("too little was answered before the overload: give more --seconds")
    lead = min(LEAD_SECONDS, seconds / 4)
    good = [call for call in calls if call.code == "OK"]
    in_time = [call for call in good if lead <= call.due + call.seconds <= seconds]
    rows = len(resident) // 4
    found: dict[str, object] = {
        "times_capacity": settings.times,
        "seconds": settings.overload_seconds,
        "capacity_requests_per_second": capacities,
        "goodput_by_capacity": len(in_time) / (seconds - lead) / mean(capacities),
        **_row(_counted(calls)),
        "slowest_accepted_seconds": max((call.seconds for call in good), default=None),
        "resident_bytes": resident,
        "resident_growth": median(resident[-rows - 1 :]) / median(resident[: rows + 1]) - 1,
        "before": _row(before),
        "after": _row(after),
        "recovered_after_seconds": recovered_after(after, usual),
    }
    _tell(
        f"{settings.times:g} times capacity: goodput {found['goodput_by_capacity']:.3f} of it,"
        f" {_shown(found)}, memory {found['resident_growth']:+.2%},"
        f" usual again after {found['recovered_after_seconds']:.1f} s"
    )
    return found


def recovered_after(calls: Sequence[Call], usual: float) -> float:
    """Return the second from which latency was *usual* again, infinity where it never was.

    It is usual where the calls of the next `CALM_SECONDS` were all answered, with a median of at
    most twice the usual seconds. A single second has too few calls to judge by.
    """
    last = max((call.due for call in calls), default=0.0)
    for second in range(math.ceil(last)):
        due = [call for call in calls if second <= call.due < second + CALM_SECONDS]
        answered = due and all(call.code == "OK" for call in due)
        if answered and median(call.seconds for call in due) <= 2 * usual:
            return float(second)
    return math.inf


@contextmanager
def _memory(server: Server) -> Iterator[list[float]]:
    """Fill a list with the server's resident bytes, one a second.

    They come from the operating system, because asking the server would add to its load.
    """
    found: list[float] = []
    stop = threading.Event()

    def look() -> None:
        while True:
            found.append(1024.0 * process_status("VmRSS", server.pid))
            if stop.wait(1.0):
                return

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield found
    finally:
        stop.set()
        thread.join()


def plot(path: Path, result: dict[str, object]) -> None:
    """Draw the curve: a line for each quantile, and the time of a full batch."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullLocator

    rows = result["curve"]
    assert isinstance(rows, list)
    with matplotlib.rc_context({"svg.hashsalt": "sentimill"}):
        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.subplots()
        for name in QUANTILES:
            drawn = [(100 * row["load"], 1000 * row[name]) for row in rows if row[name] is not None]
            if drawn:
                axes.plot(*zip(*drawn, strict=True), marker="o", label=name.partition("_")[0])
        full = 1000 * float(str(result["full_batch_seconds"]))
        axes.axhline(full, color="grey", linestyle=":", label="one full batch")
        axes.set(xlabel="load, % of capacity", ylabel="latency of answered calls, ms", yscale="log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:,.0f}")
        axes.yaxis.set_minor_locator(NullLocator())
        axes.grid(visible=True, alpha=0.3)
        axes.legend()
        figure.savefig(path, format="svg", metadata={"Date": None})


def _shown(row: dict[str, object]) -> str:
    times = [
        f"{name.partition('_')[0]} {1000 * float(str(row[name])):.0f} ms"
        for name in QUANTILES
        if row[name] is not None
    ]
    return ", ".join([*times, str(row["codes"])])


def _tell(line: str) -> None:
    print(line, file=sys.stderr)  # noqa: T201


def _settings() -> argparse.Namespace:
    parser = server_options(__doc__)
    parser.add_argument("--modes", nargs="+", default=["curve", "overload"])
    parser.add_argument("--texts", type=int, default=1024)
    parser.add_argument("--texts-a-request", type=int, default=1)
    parser.add_argument("--deadline", type=float, default=2.0, help="seconds, of each call")
    parser.add_argument(
        "--loads", type=float, nargs="+", default=[0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 1.0, 1.2]
    )
    parser.add_argument("--seconds", type=float, default=30.0, help="of each run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--times", type=float, default=3.0, help="of capacity, for the overload")
    parser.add_argument("--overload-seconds", type=float, default=60.0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
