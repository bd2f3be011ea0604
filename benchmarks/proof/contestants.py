"""The student's ways to answer: the bare engine, the classifier, gRPC, and `sentimill score`."""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sentimill import Classifier, Client
from sentimill.classifier import plan_batches
from sentimill.text import Encoded
from serving import running_server

__all__ = ["callers", "encoded", "engine_run", "score_run", "served", "write_csv"]

SENTIMILL: Final = Path(sys.executable).parent / "sentimill"


def encoded(classifier: Classifier, texts: Sequence[str]) -> list[Encoded]:
    """Tokenise; a review that cannot be classified has no place in a benchmark and is left out."""
    return [found for found in classifier.encoder.encode(texts) if isinstance(found, Encoded)]


def engine_run(
    classifier: Classifier, rows: Sequence[Encoded], *, batch_tokens: int | None = None
) -> Callable[[], None]:
    """Return a run of the engine alone over texts already tokenised, in batches of like length.

    As many calls go at once as the server would have.
    """
    lengths = [classifier.padded_length(len(row.ids)) for row in rows]
    plan = plan_batches(lengths, batch_tokens or classifier.batch_tokens)
    batches = [[rows[i].ids for i in chosen] for chosen in plan]

    def run() -> None:
        classifier.at_once(classifier.run, batches)

    return run


@contextmanager
def served(bundle: Path) -> Iterator[str]:
    """Serve *bundle* in a process of its own, with its defaults, and yield its address."""
    defaults = argparse.Namespace(bundle=bundle, engine="auto", batch_tokens=None, threads=None)
    with running_server(defaults) as server:
        yield server.address


def callers(
    address: str, texts: Sequence[str], *, count: int, items: int = 64
) -> Callable[[], None]:
    """Return a run of *count* callers that together send every text once, *items* a call."""
    calls = [list(texts[i : i + items]) for i in range(0, len(texts), items)]
    client = Client(address, timeout_seconds=120)

    def run() -> None:
        with ThreadPoolExecutor(count) as pool:
            for answers in pool.map(client.classify, calls):
                if any(isinstance(answer, Exception) for answer in answers):
                    raise SystemExit("the server failed a review: the rate would be of nothing")

    return run


def write_csv(path: Path, texts: Sequence[str]) -> None:
    """Write the texts as a table for `sentimill score`."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text"])
        writer.writerows([text] for text in texts)


def score_run(bundle: Path, source: Path, target: Path) -> Callable[[], None]:
    """Return a run of `sentimill score` as a user types it: start and loading included."""
    command: list[str | Path] = [
        SENTIMILL,
        "score",
        source,
        target,
        "--bundle",
        bundle,
        "--overwrite",
    ]

    def run() -> None:
        subprocess.run(command, check=True, capture_output=True)

    return run
