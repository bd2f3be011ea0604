"""Did a change make serving or scoring slower? Runs two checkouts in turn, on the same bundle.

    git worktree add /tmp/before COMMIT
    python -m benchmarks.serving.against_commit --before /tmp/before --bundle BUNDLE --data DIR

BUNDLE is one that both checkouts can read, such as the older one's own. The servers answer in turns
of ten seconds, one while the other is stopped; each `score` runs from start to end. The result is
the ratio of this checkout to the other: for the servers the ratio of reviews a second (higher is
better), for `score` the ratios of wall time and of processor time (lower is better).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from benchmarks.record import ROOT, surroundings, write_result
from benchmarks.reviews import read_reviews
from benchmarks.serving.loaded_server import Load, drive, running_server, server_options

_PROGRAM: Final = """
try:
    from sentimill.cli.main import main
except ImportError:  # the layout before December 2026
    from sentimill.cli import main
main()
"""
_LOADS: Final = {
    "64 texts a call": Load(texts_a_request=64, callers=4),
    "one text a call": Load(texts_a_request=1, callers=128),
}
_WRITERS: Final[dict[str, Callable[[pa.Table, Path], object]]] = {
    "csv": lambda table, path: pyarrow.csv.write_csv(table, path),
    "parquet": lambda table, path: pyarrow.parquet.write_table(table, path),
}


def main() -> None:
    """Measure, and write the result as JSON."""
    parser = server_options(__doc__ or "")
    parser.add_argument("--before", type=Path, required=True, help="the other checkout")
    parser.add_argument("--rounds", type=int, default=8, help="turns of each server")
    parser.add_argument("--jobs", type=int, default=4, help="runs of each `score`")
    parser.add_argument("--seconds", type=float, default=10, help="of a turn")
    parser.add_argument("--rows", type=int, default=600, help="of a scored file")
    settings = parser.parse_args()
    about = surroundings()
    checkouts = (settings.before.resolve(), ROOT)
    result = {
        "question": "this checkout against an earlier one, on one bundle",
        "before": _commit(settings.before),
        "serving": _serving(settings, checkouts),
        "scoring": {name: _scoring(settings, checkouts, name) for name in _WRITERS},
        **about,
    }
    sys.stdout.write(write_result(settings.out, result) + "\n")


def _serving(
    settings: argparse.Namespace, checkouts: Sequence[Path]
) -> dict[str, dict[str, object]]:
    texts = read_reviews(settings.data, 2000)
    with ExitStack() as running:
        servers = [
            running.enter_context(
                running_server(settings, program=_PROGRAM, environment=_environment(checkout))
            )
            for checkout in checkouts
        ]
        found: dict[str, dict[str, object]] = {}
        for name, load in _LOADS.items():
            rates: list[list[float]] = [[], []]
            for turn in range(settings.rounds + 1):
                for i in (0, 1) if turn % 2 else (1, 0):
                    with servers[1 - i].stopped():
                        rate = asyncio.run(drive(servers[i], texts, load, settings.seconds))
                    if turn:  # the first turn warms up
                        rates[i].append(rate.tokens)
            found[name] = {"tokens_per_second": rates, "ratio": _ratio(rates)}
    return found


def _scoring(
    settings: argparse.Namespace, checkouts: Sequence[Path], name: str
) -> dict[str, object]:
    wall: list[list[float]] = [[], []]
    cpu: list[list[float]] = [[], []]
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, f"reviews.{name}")
        _WRITERS[name](pa.table({"text": read_reviews(settings.data, settings.rows)}), source)
        for turn in range(settings.jobs):
            for i in (0, 1) if turn % 2 else (1, 0):
                out = Path(folder, f"{turn}-{i}.{name}")
                command = [sys.executable, "-c", _PROGRAM, "score", str(source), str(out)]
                before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
                subprocess.run(
                    [*command, "--bundle", str(settings.bundle)],
                    check=True,
                    capture_output=True,
                    env={**os.environ, **_environment(checkouts[i])},
                )
                wall[i].append(time.perf_counter() - start)
                after = resource.getrusage(resource.RUSAGE_CHILDREN)
                cpu[i].append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return {
        "rows": settings.rows,
        "wall_seconds": wall,
        "wall_ratio": _ratio(wall),
        "cpu_seconds": cpu,
        "cpu_ratio": _ratio(cpu),
    }


def _ratio(pairs: Sequence[Sequence[float]]) -> dict[str, float]:
    """Return the median of the ratios, turn by turn, with the least and the most."""
    ratios = [after / before for before, after in zip(*pairs, strict=True)]
    return {"median": statistics.median(ratios), "least": min(ratios), "most": max(ratios)}


def _environment(checkout: Path) -> dict[str, str]:
    return {"PYTHONPATH": f"{checkout / 'serve'}{os.pathsep}{checkout / 'train'}"}


def _commit(checkout: Path) -> str:
    command = ["git", "-C", str(checkout), "describe", "--always"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    main()
