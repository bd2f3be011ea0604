"""The student's ways to answer: the bare engine, the classifier, gRPC, and `sentimill score`."""

from __future__ import annotations

import csv
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TextIO

from sentimill import Classifier, Client
from sentimill.classifier import BATCH_TOKENS, plan_batches
from sentimill.text import Encoded

__all__ = ["SENTIMILL", "callers", "encoded", "engine_run", "score_run", "serving", "write_csv"]

SENTIMILL: Final = (sys.executable, "-c", "from sentimill.cli import main; main()")
"""The command line by this very interpreter, which needs no script on the path."""


def encoded(classifier: Classifier, texts: Sequence[str]) -> list[Encoded]:
    """Tokenise; a review that cannot be classified has no place in a benchmark and is left out."""
    return [found for found in classifier.encoder.encode(texts) if isinstance(found, Encoded)]


def engine_run(
    classifier: Classifier, rows: Sequence[Encoded], *, batch_tokens: int = BATCH_TOKENS
) -> Callable[[], None]:
    """Return a run of the engine alone over texts already tokenised, in batches of like length."""
    plan = list(plan_batches([len(row.ids) for row in rows], batch_tokens))

    def run() -> None:
        for chosen in plan:
            classifier.run([rows[i].ids for i in chosen])

    return run


@contextmanager
def serving(bundle: Path, *arguments: str) -> Iterator[str]:
    """Serve *bundle* in a process of its own and yield its address."""
    command = [*SENTIMILL, "serve", "--bundle", str(bundle), "--port", "0"]
    # A file and not a pipe: nobody reads while the benchmark runs, and a full pipe would stop it.
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen([*command, "--metrics-port", "0", *arguments], stderr=log)
        try:
            yield _address(process, log)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=60)


def _address(process: subprocess.Popen[bytes], log: TextIO) -> str:
    while True:
        log.seek(0)
        said = log.read()
        if found := re.search(r"^serving .* on (\S+)$", said, re.MULTILINE):
            return found[1]
        if process.poll() is not None:
            raise SystemExit(f"the server did not start:\n{said}")
        time.sleep(0.05)


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
                    raise SystemExit(f"the server failed a review: {answers}")

    return run


def write_csv(path: Path, texts: Sequence[str]) -> None:
    """Write the texts as a table for `sentimill score`."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text"])
        writer.writerows([text] for text in texts)


def score_run(bundle: Path, source: Path, target: Path) -> Callable[[], None]:
    """Return a run of `sentimill score` as a user types it: start and loading included."""
    command = [*SENTIMILL, "score", str(source), str(target), "--bundle", str(bundle)]

    def run() -> None:
        subprocess.run([*command, "--overwrite"], check=True, capture_output=True)

    return run
