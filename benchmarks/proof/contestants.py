"""The student's ways to answer: the bare engine, the classifier, gRPC, and `sentimill score`."""

from __future__ import annotations

import argparse
import asyncio
import csv
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import grpc

from benchmarks.serving.loaded_server import running_server
from benchmarks.serving.request_payloads import method_of, requests_of
from sentimill import Classifier, Client
from sentimill.classifier import plan_batches
from sentimill.text.tokenizer import Encoded
from sentimill.v1 import sentiment_pb2 as pb

SENTIMILL: Final = Path(sys.executable).parent / "sentimill"

_ITEMS: Final = 256
"""Reviews in a call of `Senders`, if there are so many."""


def encoded(classifier: Classifier, texts: Sequence[str]) -> list[Encoded]:
    """Tokenise *texts*. A review that cannot be classified is left out of the benchmark."""
    return [found for found in classifier.encoder.encode(texts) if isinstance(found, Encoded)]


def engine_run(
    classifier: Classifier, rows: Sequence[Encoded], *, batch_tokens: int | None = None
) -> Callable[[], None]:
    """Return a run of the engine alone over tokenised texts, in batches of similar length.

    It makes as many calls at the same time as the server would.
    """
    lengths = [classifier.padded_length(len(row.ids)) for row in rows]
    plan = plan_batches(lengths, batch_tokens or classifier.batch_tokens)
    batches = [[rows[i].ids for i in chosen] for chosen in plan]

    def run() -> None:
        classifier.at_once(classifier.run, batches)

    return run


@contextmanager
def served(bundle: Path, **options: object) -> Iterator[str]:
    """Serve *bundle* in a second process, with *options* besides the defaults. Yield where."""
    defaults = argparse.Namespace(bundle=bundle, engine="auto", batch_tokens=None, threads=None)
    named = {f"--{name.replace('_', '-')}": value for name, value in options.items()}
    with running_server(defaults, named) as server:
        yield server.address


def callers(
    address: str, texts: Sequence[str], *, count: int, items: int = 64
) -> Callable[[], None]:
    """Return a run in which *count* callers together send every text once, *items* in each call."""
    calls = [list(texts[i : i + items]) for i in range(0, len(texts), items)]
    client = Client(address, timeout_seconds=120)

    def run() -> None:
        with ThreadPoolExecutor(count) as pool:
            for answers in pool.map(client.classify, calls):
                if any(isinstance(answer, Exception) for answer in answers):
                    raise SystemExit("the server failed a review: the rate would be of nothing")

    return run


class Senders:
    """Callers that send encoded requests, each over its own connection, and only keep the answers.

    So the client does almost no work, as if the callers were on other machines.
    """

    def __init__(self, address: str, texts: Sequence[str], *, callers: int, times: int) -> None:
        """Send *texts* so many *times* in each run. The last that fill no call are left out."""
        self.items = min(_ITEMS, len(texts))
        self._requests = requests_of(texts, self.items) * times
        self.reviews = len(self._requests) * self.items
        self._address = address
        self._callers = callers
        self._answers: list[bytes] = []

    def run(self) -> None:
        """Send every call once."""
        self._answers = asyncio.run(self._send())

    def check(self) -> None:
        """Raise SystemExit unless each review of the last run got an answer."""
        parsed = [pb.ClassifyResponse.FromString(data) for data in self._answers]
        found = [one.HasField("prediction") for answer in parsed for one in answer.results]
        if len(found) != self.reviews or not all(found):
            raise SystemExit("the server failed a review: the rate would be of nothing")

    async def _send(self) -> list[bytes]:
        left = iter(self._requests)
        answers: list[bytes] = []
        options = [("grpc.use_local_subchannel_pool", 1)]

        async def ask() -> None:
            async with grpc.aio.insecure_channel(self._address, options) as channel:
                call = method_of(channel)
                for request in left:
                    answers.append(await call(request, wait_for_ready=True))

        await asyncio.gather(*(ask() for _ in range(self._callers)))
        return answers


def write_csv(path: Path, texts: Sequence[str]) -> None:
    """Write the texts as a table for `sentimill score`."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text"])
        writer.writerows([text] for text in texts)


def score_run(bundle: Path, source: Path, target: Path) -> Callable[[], None]:
    """Return a run of `sentimill score` as a user types it, with its start and loading."""
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
