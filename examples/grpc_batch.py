"""Classifies the lines of a file with a running server, as bulk work: other callers go first.

    sentimill serve &
    python examples/grpc_batch.py 127.0.0.1:50051 reviews.txt > answers.tsv

Each line of the output has label, confidence and model digest, or the reason why there is none.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from sentimill import Client, Prediction, SentimillError

BATCH = 4096
"""Texts that are held in memory at once. The client sends them as several requests."""


def answers(address: str, lines: Iterator[str]) -> Iterator[str]:
    """Yield one line of output for each of *lines*, in order."""
    with Client(address, timeout_seconds=60.0, concurrency=8) as client:
        client.model()  # tells the client the server's limits, by which it splits lists
        while batch := list(islice(lines, BATCH)):
            for result in client.classify(batch, bulk=True):
                if isinstance(result, Prediction):
                    yield f"{result.label}\t{result.confidence:.4f}\t{result.model_digest[:12]}"
                else:
                    yield f"\t\t{result.reason}"


def main() -> int:
    """Run the example, and return its exit code."""
    address, name = sys.argv[1:]
    with Path(name).open(encoding="utf-8") as file:
        try:
            for line in answers(address, (line.rstrip("\n") for line in file)):
                sys.stdout.write(f"{line}\n")
        except SentimillError as error:  # a whole request failed: UNAVAILABLE, DEADLINE_EXCEEDED...
            sys.stderr.write(f"{error.reason}: {error}\n")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
