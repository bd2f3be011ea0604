"""Compares Sentimill's server with other servers, on the same graph and the same texts.

    sh benchmarks/serving/peers/install.sh PEERS
    python -m benchmarks.serving.other_servers --bundle bundles/mine [--same bundles/its-fp32] \
        --data FOLDER --peers PEERS

Each peer has its own environment and the obvious good settings (`peers/`): one worker on all
threads, and dynamic batches of up to 32 texts, padded to the longest text. Another run has batches
of up to 4, which suit two slow cores better. 128 callers send one text each over kept-alive HTTP.
Peers serve the ONNX file of `--same`, by default that of `--bundle`. Our server is asked over gRPC:
once with that same file, and once with `--bundle` and the engine that `--engine auto` chooses. The
bound: no server is faster than the engine, so servers can differ only in padding, overhead and
their use of the cores. Servers take turns, and the idle ones are stopped (SIGSTOP). Rates are
useful tokens a second, and a ratio compares two rates of one round. Writes
`results/serving-peers.json`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import cycle, product
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks.record import RESULTS, surroundings, write_result
from benchmarks.reviews import read_reviews
from benchmarks.serving.loaded_server import (
    LEAD,
    Load,
    Server,
    drive,
    running_server,
    server_options,
)
from benchmarks.serving.peers.model import MAX_WAIT_MS
from sentimill import Classifier
from sentimill.engine.hardware import usable_cores
from sentimill.text.tokenizer import Encoded

HERE: Final = Path(__file__).parent
CALLERS: Final = 128
START_SECONDS: Final = 180.0
WARM_UP_SECONDS: Final = 12.0
"""For each server: the slowest one takes ten seconds for its first answers."""
Started = Callable[[Path, int, int], Sequence[str]]


@dataclass(frozen=True, slots=True)
class Peer:
    """How one server is started and asked.

    command: what to run, of the folder of its environment, its port and the texts in a batch. home:
    that folder's name, where it is not the peer's own.
    """

    name: str
    path: str
    command: Started
    body: Callable[[str], object]
    home: str | None = None


def _v2(shape: list[int]) -> Callable[[str], object]:
    def body(text: str) -> object:
        return {"inputs": [{"name": "text", "shape": shape, "datatype": "BYTES", "data": [text]}]}

    return body


def _mlserver(home: Path, port: int, batch: int) -> Sequence[str]:
    """Write the settings files of MLServer, and return the command."""
    folder = home / f"app-{batch}"
    (folder / "sentiment").mkdir(parents=True, exist_ok=True)
    ports = {"http_port": port, "grpc_port": port + 1, "metrics_port": port + 2}
    settings = {"parallel_workers": 1, "host": "127.0.0.1", "metrics_dir": str(folder), **ports}
    (folder / "settings.json").write_text(json.dumps(settings))
    model = {
        "name": "sentiment",
        "implementation": "mlserver_app.Sentiment",
        "max_batch_size": batch,
        "max_batch_time": MAX_WAIT_MS / 1000,
    }
    (folder / "sentiment" / "model-settings.json").write_text(json.dumps(model))
    return [str(home / "bin" / "mlserver"), "start", str(folder)]


def _app(name: str, *flags: str) -> Started:
    def command(home: Path, port: int, batch: int) -> Sequence[str]:
        return [str(home / "bin/python"), str(HERE / "peers" / name), *flags, str(port)]

    return command


def _bentoml(home: Path, port: int, batch: int) -> Sequence[str]:
    program = str(home / "bin" / "bentoml")
    return [program, "serve", "bentoml_app:Sentiment", "--port", str(port), "--host", "127.0.0.1"]


PEERS: Final = (
    Peer("mosec", "/inference", _app("mosec_app.py", "--timeout", "120000", "--port"),
         lambda text: {"text": text}),
    Peer("litserve", "/predict", _app("litserve_app.py"), lambda text: {"text": text}),
    Peer("mlserver", "/v2/models/sentiment/infer", _mlserver, _v2([1])),
    Peer("pytriton", "/v2/models/sentiment/infer", _app("pytriton_app.py"), _v2([1, 1])),
    Peer("bentoml", "/classify", _bentoml, lambda text: {"texts": [text]}),
    Peer("rayserve", "/", _app("rayserve_app.py"), lambda text: {"text": text}),
    Peer("infinity", "/classify", _app("infinity_app.py"),
         lambda text: {"model": "sentiment", "input": [text]}),
    Peer("pipeline", "/", _app("pipeline_app.py"), lambda text: {"text": text}, home="infinity"),
)  # fmt: skip


@dataclass(slots=True)
class Running:
    """A peer's process group and its port."""

    peer: Peer
    batch: int
    port: int
    process: subprocess.Popen[bytes]

    @property
    def name(self) -> str:
        """Its name in the result."""
        return f"{self.peer.name}, batches of {self.batch}"

    def signal(self, number: signal.Signals) -> None:
        """Send the signal *number* to all its processes, if there are any."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)


def free_port() -> int:
    """Return a port that is free now, like the two ports after it."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def running_peer(
    peer: Peer, batch: int, settings: argparse.Namespace, precision: str
) -> Iterator[Running]:
    """Run *peer* on a free port, and wait until it answers."""
    home, port = (settings.peers / (peer.home or peer.name)).absolute(), free_port()
    environment = os.environ | {
        "PEER_BUNDLE": str(settings.same.absolute()),
        "PEER_PRECISION": precision,
        "PEER_BATCH": str(batch),
        "PEER_THREADS": str(settings.threads or usable_cores()),
        "PYTHONPATH": str(HERE / "peers"),
        "PATH": f"{home / 'bin'}:{os.environ['PATH']}",
        "BENTOML_DO_NOT_TRACK": "True",
    }
    with (
        tempfile.TemporaryDirectory(prefix="sentimill-peer-") as scratch,
        (home / f"log-{peer.name}-{batch}").open("wb") as log,
    ):
        process = subprocess.Popen(
            peer.command(home, port, batch),
            env=environment | {"TMPDIR": scratch, "PYTRITON_HOME": scratch},
            cwd=HERE / "peers",
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        running = Running(peer, batch, port, process)
        try:
            asyncio.run(_until_it_answers(running))
            yield running
        finally:
            running.signal(signal.SIGCONT)
            running.signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(20)
            running.signal(signal.SIGKILL)  # also those that outlive their parent, like Triton
            process.wait()


async def _until_it_answers(running: Running) -> None:
    end = time.monotonic() + START_SECONDS
    while True:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
            await ask(reader, writer, request(running.peer, "It works."))
        except (OSError, EOFError, SystemExit) as error:
            if running.process.poll() is not None or time.monotonic() > end:
                log = f"log-{running.peer.name}-{running.batch}"
                raise SystemExit(f"{running.peer.name} does not answer: see {log}") from error
            await asyncio.sleep(0.5)
        else:
            writer.close()
            return


def request(peer: Peer, text: str) -> bytes:
    """Return a whole HTTP/1.1 request."""
    body = json.dumps(peer.body(text)).encode()
    head = (
        f"POST {peer.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: bytes) -> bytes:
    """Send one request over a kept-alive connection and return the body of the answer.

    Raises:
        SystemExit: the answer is not a success.
    """
    writer.write(asked)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
    if b"content-length" in fields:
        body = await reader.readexactly(int(fields[b"content-length"]))
    else:  # in chunks
        body = b""
        while size := int(await reader.readuntil(b"\r\n"), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readexactly(2)
    if head.split(b" ", 2)[1] != b"200":
        raise SystemExit(f"an answer was not a success: {head[:60]!r} {body[:200]!r}")
    return body


async def load_peer(running: Running, texts: Sequence[str], tokens: Sequence[int],
                    seconds: float) -> float:  # fmt: skip
    """Let the callers call a peer, and return its useful tokens a second after the lead."""
    asked = cycle([(request(running.peer, text), n) for text, n in zip(texts, tokens, strict=True)])
    answers: list[tuple[float, int]] = []
    began = time.perf_counter()
    end = began + seconds

    async def call() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port, limit=2**20)
        while time.perf_counter() < end:
            body, useful = next(asked)
            await ask(reader, writer, body)
            answers.append((time.perf_counter(), useful))
        writer.close()

    await asyncio.gather(*(call() for _ in range(CALLERS)))
    counted_from = began + seconds * LEAD
    counted = [useful for came, useful in answers if counted_from <= came < end]
    if not counted:
        raise SystemExit(f"{running.name} answered too little: give more --seconds")
    return sum(counted) / (end - counted_from)


def main() -> None:
    """Measure and print: a line a round on stderr, one JSON document on stdout."""
    settings = _settings()
    texts = read_reviews(settings.data, settings.texts)
    settings.same = settings.same or settings.bundle
    classifier = Classifier.load(settings.same, engine="onnx")
    precision = classifier.engine.info.precision
    encoded = classifier.encoder.encode(texts)
    rows = [(t, len(e.ids)) for t, e in zip(texts, encoded, strict=True) if isinstance(e, Encoded)]
    texts, tokens = [text for text, _ in rows], [count for _, count in rows]
    chosen = Classifier.load(settings.bundle).engine.info
    rates: dict[str, list[float]] = {}
    with ExitStack() as stack:
        ours: dict[str, Server] = {}
        for name, folder, engine in (
            ("sentimill, same file", settings.same, "onnx"),
            ("sentimill, its default", settings.bundle, "auto"),
        ):
            asked = argparse.Namespace(**{**vars(settings), "engine": engine, "bundle": folder})
            ours[name] = stack.enter_context(running_server(asked))
        peers: list[Running] = []
        left_out: dict[str, str] = {}
        for peer, batch in product(PEERS, settings.peer_batches):
            try:
                if peer.name in settings.only:
                    starting = running_peer(peer, batch, settings, precision)
                    peers.append(stack.enter_context(starting))
                    peers[-1].signal(signal.SIGSTOP)
            except SystemExit as error:
                left_out[peer.name] = str(error)
                print(f"left out: {error}", file=sys.stderr)  # noqa: T201
        for round_ in range(settings.rounds + 1):  # the first one warms up
            seconds = settings.seconds if round_ else min(settings.seconds, WARM_UP_SECONDS)
            found: dict[str, float] = {}
            for name, server in ours.items():
                run = drive(server, texts, Load(1, CALLERS), seconds)
                found[name] = asyncio.run(run).tokens
            for running in peers:
                running.signal(signal.SIGCONT)
                loading = load_peer(running, texts, tokens, seconds)
                found[running.name] = asyncio.run(loading)
                running.signal(signal.SIGSTOP)
            print({k: round(v) for k, v in found.items()}, file=sys.stderr)  # noqa: T201
            if round_:
                for name, rate in found.items():
                    rates.setdefault(name, []).append(rate)
    told = result(settings, rates, precision, f"{chosen.engine} {chosen.precision}")
    told["left_out"] = left_out
    print(write_result(settings.out, told))  # noqa: T201


def result(
    settings: argparse.Namespace, rates: dict[str, list[float]], precision: str, chosen: str
) -> dict[str, Any]:
    """Return the medians, and the ratio of our rate to that of each peer in the same round."""
    ours = [name for name in rates if name.startswith("sentimill")]
    return {
        "question": "served rate by that of other servers, same graph, texts, threads",
        "precision": precision,
        "default": chosen,
        "threads": settings.threads or usable_cores(),
        "callers": CALLERS,
        "seconds": settings.seconds,
        "rounds": settings.rounds,
        "useful_tokens_per_second": {name: median(values) for name, values in rates.items()},
        "times_as_fast": {
            own: {
                name: median([a / b for a, b in zip(rates[own], values, strict=True)])
                for name, values in rates.items()
                if name not in ours
            }
            for own in ours
        },
        "useful_tokens_per_second_each": rates,
        **surroundings(),
    }


def _settings() -> argparse.Namespace:
    parser = server_options(__doc__)
    parser.set_defaults(out=RESULTS / "serving-peers.json")
    parser.add_argument("--peers", type=Path, required=True, help="folder of peers/install.sh")
    parser.add_argument("--same", type=Path, help="bundle whose graph the peers serve")
    parser.add_argument("--only", nargs="+", default=[peer.name for peer in PEERS])
    parser.add_argument(
        "--peer-batches", type=int, nargs="+", default=[4, 32], help="texts in a batch of theirs"
    )
    parser.add_argument("--texts", type=int, default=1024)
    parser.add_argument("--seconds", type=float, default=15.0, help="of each run")
    parser.add_argument("--rounds", type=int, default=4)
    return parser.parse_args()


if __name__ == "__main__":
    main()
