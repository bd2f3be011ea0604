"""Two replicas behind HAProxy, restarted one after the other while calls keep coming."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from background_load import load
from benchmarks.serving.rolling_restart import balancer
from live_server import WAIT_SECONDS
from server_process import Replica
from system_programs import find

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

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
    find("haproxy")
    with ExitStack() as stack:
        made = stack.enter_context(replicas(bundle))
        behind = [(each.address, each.http) for each in made]
        address = stack.enter_context(balancer(tmp_path / "lb", behind))
        sent = stack.enter_context(load(address, TEXTS, callers=8, pause=0.005))
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
