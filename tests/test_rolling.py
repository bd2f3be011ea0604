"""Two replicas behind HAProxy, restarted one after the other while calls keep coming."""

from __future__ import annotations

import os
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from live import WAIT_SECONDS
from load import load
from programs import find
from replica import Replica

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

CONFIG = Path(__file__).parents[1] / "deploy/haproxy/haproxy.cfg"
TEXTS = ["good battery", "bad", "the battery"]
ROUNDS = 2


@contextmanager
def replicas(bundle: Path) -> Iterator[list[Replica]]:
    """Start two servers that tell a balancer three seconds before they go."""
    flags = ["serve", f"--bundle={bundle}", "--notice-seconds=3"]
    made = [Replica(flags), Replica(flags)]
    try:
        for each in made:
            each.start()
        yield made
    finally:
        for each in made:
            each.kill()


@contextmanager
def haproxy(socket: Path, made: list[Replica]) -> Iterator[None]:
    """Run the balancer with the configuration that is shipped, on a socket of its own."""
    names = {"LISTEN": f"unix@{socket}"}
    for letter, each in zip("AB", made, strict=True):
        host, _, port = each.http.rpartition(":")
        names |= {f"GRPC_{letter}": each.address, f"HOST_{letter}": host, f"HTTP_{letter}": port}
    command = [find("haproxy"), "-f", str(CONFIG)]
    with subprocess.Popen(command, env={**os.environ, **names}) as process:
        try:
            until_there(socket, process)
            yield
        finally:
            process.kill()


def until_there(socket: Path, process: subprocess.Popen[bytes]) -> None:
    """Wait until the balancer listens."""
    end = time.monotonic() + WAIT_SECONDS
    while not socket.exists():
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)  # another process is to act; there is nothing to wait on


def answered(replica: Replica) -> float:
    """Return how many calls a replica has answered with OK since it started."""
    with urllib.request.urlopen(f"http://{replica.http}/metrics", timeout=WAIT_SECONDS) as page:
        lines = page.read().decode().splitlines()
    name = 'sentimill_requests_total{code="OK",method="Classify"}'
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


def until_answering(replica: Replica) -> None:
    """Wait until calls come to a replica again."""
    end = time.monotonic() + WAIT_SECONDS
    while answered(replica) < 20:
        assert time.monotonic() < end
        time.sleep(0.05)  # the balancer is to notice; there is nothing to wait on


def test_a_rolling_restart_under_load_fails_no_call(bundle: Path, tmp_path: Path) -> None:
    """Calls are spread over both; each restart exits with 0, and not one call fails.

    The callers retry nothing: what they see is what the balancer and the drain leave them.
    """
    socket = tmp_path / "lb"
    with ExitStack() as stack:
        made = stack.enter_context(replicas(bundle))
        stack.enter_context(haproxy(socket, made))
        sent = stack.enter_context(load(f"unix:{socket}", TEXTS, callers=8, pause=0.005))
        for each in made:
            until_answering(each)
        for _ in range(ROUNDS):
            for each in made:
                assert each.stop() == 0
                each.start()
                until_answering(each)

    calls = sum(sent.codes.values())
    print(f"{calls} calls, {ROUNDS * len(made)} restarts, {sent.codes}")  # noqa: T201 - a figure
    assert calls > 500
    assert sent.codes == {"OK": calls}
