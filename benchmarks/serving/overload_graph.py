"""What does Prometheus show of an overload, and does its alert come and go?

    python -m benchmarks.serving.overload_graph --bundle bundles/reference --data FOLDER

A live server gets a load of half its capacity, then of three times its capacity, then of half
again. A real Prometheus scrapes it with the shipped rules, sped up so that five minutes are 20
seconds. docs/pictures/overload.svg shows what Prometheus stored: calls by code, waiting texts, and
when the alert was pending and firing. results/overload-graph.json has when each part began, and the
seconds of the alert. `latency.py` measures the server itself under overload.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from benchmarks.record import RESULTS, surroundings, write_result
from benchmarks.reviews import read_reviews
from benchmarks.serving.loaded_server import Load, Server, drive, running_server, server_options
from benchmarks.serving.open_loop import offer
from benchmarks.serving.prometheus_server import Prometheus, prometheus, until
from benchmarks.serving.request_payloads import requests_of

FASTER: Final = 15
ALERT: Final = "SentimillRefusing"
TEXTS_A_REQUEST: Final = 4
PARTS: Final = (("calm", 0.5), ("overload", 3.0), ("calm again", 0.5))
QUERIES: Final = {
    "calls": "sum by (code) (rate(sentimill_requests_total[5s]))",
    "waiting": "sum(sentimill_waiting_texts)",
    "alert": f'ALERTS{{alertname="{ALERT}"}}',
}


def main() -> None:
    """Cause an overload, wait until the alert ends, and draw the picture."""
    parser = server_options(__doc__)
    parser.add_argument("--texts", type=int, default=512)
    parser.add_argument("--seconds", type=float, nargs=3, default=[30.0, 60.0, 60.0])
    parser.set_defaults(out=Path(__file__).parents[2] / "docs/pictures/overload.svg")
    settings = parser.parse_args()
    program = shutil.which("prometheus")
    if program is None:
        sys.exit("prometheus is not installed: apt-get install --no-install-recommends prometheus")
    with tempfile.TemporaryDirectory() as work, running_server(settings) as server:
        target = server.metrics.removeprefix("http://").partition("/")[0]
        with prometheus(program, Path(work), target, faster=FASTER) as watch:
            began, marks = induce(server, watch, settings)
            until(lambda: ALERT not in watch.firing())
            time.sleep(5.0)
            found = {
                name: watch.ask("query_range", query=query, start=f"{began}",
                                end=f"{time.time()}", step="1")["result"]
                for name, query in QUERIES.items()
            }  # fmt: skip
    draw(settings.out, found, began, marks)
    told = {"marks": marks, "alert": spans(found["alert"], began), **surroundings()}
    print(write_result(RESULTS / "overload-graph.json", told))  # noqa: T201


def induce(
    server: Server, watch: Prometheus, settings: argparse.Namespace
) -> tuple[float, list[tuple[str, float]]]:
    """Offer the parts in turn; return the start (Unix time), and when each part began after it."""
    texts = read_reviews(settings.data, settings.texts)
    requests = requests_of(texts, TEXTS_A_REQUEST)
    load = Load(TEXTS_A_REQUEST, 64)
    capacity = asyncio.run(drive(server, texts, load, 15.0)).texts / TEXTS_A_REQUEST
    began, marks = time.time(), []
    for (name, times), seconds in zip(PARTS, settings.seconds, strict=True):
        marks.append((name, time.time() - began))
        offered = offer(
            server.address, requests, rate=times * capacity, seconds=seconds, deadline=10.0, seed=1
        )
        asyncio.run(offered)
        print(f"after {name}: {sorted(watch.firing())} firing", file=sys.stderr)  # noqa: T201
    return began, marks


def spans(series: list[dict[str, Any]], began: float) -> dict[str, list[float]]:
    """Return the first and the last second of each state of the alert, since *began*."""
    return {
        one["metric"]["alertstate"]: [one["values"][i][0] - began for i in (0, -1)]
        for one in series
    }


def draw(path: Path, found: dict[str, Any], began: float, marks: list[tuple[str, float]]) -> None:
    """Draw calls, waiting texts and the alert in three charts, one above the other."""
    import matplotlib
    from matplotlib.figure import Figure

    def points(one: dict[str, Any]) -> tuple[list[float], list[float]]:
        return (
            [when - began for when, _ in one["values"]],
            [float(value) for _, value in one["values"]],
        )

    with matplotlib.rc_context({"svg.hashsalt": "sentimill"}):
        figure = Figure(figsize=(8, 6), layout="constrained")
        calls, waiting, alert = figure.subplots(3, 1, sharex=True, height_ratios=(4, 3, 1))
        for one in found["calls"]:
            calls.plot(*points(one), label=one["metric"]["code"])
        calls.set(ylabel="calls a second, by code", ylim=(0, None))
        calls.legend(loc="upper right")
        waiting.plot(*points(found["waiting"][0]))
        waiting.set(ylabel="waiting texts", ylim=(0, None))
        colours = {"pending": "#e5a50a", "firing": "#c01c28"}
        for state, (first, last) in spans(found["alert"], began).items():
            alert.barh(0, max(1.0, last - first), left=first, color=colours[state], label=state)
        alert.set(xlabel="seconds", yticks=[], ylabel=ALERT.removeprefix("Sentimill"))
        alert.legend(loc="upper right")
        for axes in (calls, waiting, alert):
            for name, at in marks:
                axes.axvline(at, color="grey", linewidth=0.8)
                if axes is calls:
                    axes.annotate(name, (at, 1), xycoords=("data", "axes fraction"), va="bottom")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
