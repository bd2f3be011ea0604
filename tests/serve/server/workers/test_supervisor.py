"""Several processes behind one port, started with the command that an operator types."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import cast

import msgspec
import pytest
from prometheus_client import CollectorRegistry

import sentimill.server.workers.worker_process
from background_load import load
from live_server import WAIT_SECONDS
from reload_server import version
from sentimill import Client
from sentimill.observability.metrics import WorkerMetrics
from sentimill.server.settings import Serve
from sentimill.server.workers.supervisor import _WorkerPool
from sentimill.server.workers.worker import WorkerConfig
from sentimill.server.workers.worker_process import WorkerProcess
from server_process import COMMAND

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

START_SECONDS = 4 * WAIT_SECONDS


class Group:
    """A running `sentimill serve --workers 2`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.log = ""
        self.address = ""
        self.http = ""
        self._came = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._came:
                self.log += line
                self._came.notify_all()

    def said(self, pattern: str, times: int = 1) -> list[str]:
        """Wait until the log has *pattern* so often, and return what its group matched."""
        with self._came:
            assert self._came.wait_for(
                lambda: len(re.findall(pattern, self.log, re.MULTILINE)) >= times, START_SECONDS
            ), self.log
            return re.findall(pattern, self.log, re.MULTILINE)

    def get(self, path: str) -> str:
        """Return a page of the HTTP port; its status is not looked at."""
        try:
            with urllib.request.urlopen(f"http://{self.http}{path}", timeout=WAIT_SECONDS) as page:
                return str(page.read().decode())
        except urllib.error.HTTPError as error:
            with error:
                return error.read().decode()

    def value(self, sample: str) -> float:
        """Return a sample of the metrics."""
        lines = [line for line in self.get("/metrics").splitlines() if line[0] != "#"]
        return float(dict(line.rsplit(" ", 1) for line in lines).get(sample, "nan"))

    def until(self, condition: Callable[[], object]) -> None:
        """Wait until *condition* holds."""
        end = time.monotonic() + START_SECONDS
        while not condition():
            assert time.monotonic() < end, self.log
            time.sleep(0.05)  # other processes are to act; there is nothing to wait on

    def pids(self) -> list[int]:
        """Return the processes that were started, in order."""
        return [int(pid) for pid in self.said(r"worker \d+ is process (\d+)", 2)]

    def end(self) -> int:
        """Wait for the end, and return the exit code."""
        code = self.process.wait(START_SECONDS)
        self._reader.join()
        return code


@contextmanager
def starting(bundle: Path, *flags: str) -> Iterator[Group]:
    """Start two workers on free ports, and do not wait for them."""
    command = [*COMMAND, "serve", f"--bundle={bundle}", "--port=0", "--metrics-port=0"]
    process = subprocess.Popen([*command, "--workers=2", *flags], stderr=subprocess.PIPE, text=True)
    with process:
        made = Group(process)
        try:
            yield made
        finally:
            if process.poll() is None:
                process.kill()
            made.end()


@contextmanager
def group(bundle: Path, *flags: str) -> Iterator[Group]:
    """Run two workers on free ports."""
    with starting(bundle, *flags) as made:
        made.address = made.said(r"^serving .* on (\S+)$")[0]
        made.http = made.said(r"^metrics on http://([^/]+)/metrics$")[0]
        yield made


def ask_anew(address: str, count: int) -> None:
    """Ask once over each of *count* new connections."""
    for _ in range(count):
        with Client(address) as client:
            client.classify(["good", "bad"])


def digest(address: str) -> str:
    """Return which model answers over a new connection."""
    with Client(address) as client:
        return client.model().digest


def test_both_answer_and_the_parent_adds_up(bundle: Path) -> None:
    """Counts are the workers' sum, one page shows both, and SIGTERM ends all with 0."""
    with group(bundle) as made:
        ask_anew(made.address, 24)
        each = [made.value(f'sentimill_worker_texts_total{{worker="{i}"}}') for i in (0, 1)]
        calls = made.value('sentimill_requests_total{code="OK",method="Classify"}')
        buckets = made.value('sentimill_request_seconds_bucket{le="+Inf",method="Classify"}')
        limit = made.value("sentimill_max_waiting_texts")
        ready = [made.value(f"sentimill_ready{name}") for name in ("", "_workers")]
        status = msgspec.json.decode(made.get("/status.json"))
        pages = made.get("/readyz"), made.get("/healthz")
        pids = made.pids()
        made.process.send_signal(signal.SIGTERM)
        code = made.end()

    assert min(each) > 0  # of 24 connections all go to one in a run of 8 million
    assert (sum(each), calls, buckets) == (48, 24, 24)
    assert (limit, ready) == (2 * 8192, [1, 2])
    assert (status["model"]["name"], status["state"]) == ("tiny", "serving")
    assert pages == ("serving\n", "ok\n")
    assert (code, "killed" in made.log) == (0, False)
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_a_worker_that_is_killed_is_missed_by_its_own_calls_alone(bundle: Path) -> None:
    """New connections find the other; a new one takes its place; no count is lost or comes back."""
    with group(bundle) as made:
        ask_anew(made.address, 24)
        counted = made.value('sentimill_requests_total{code="OK",method="Classify"}')
        victim = made.pids()[0]
        with load(made.address, ["good"], callers=4) as sent:
            made.until(lambda: sum(sent.codes.values()) > 20)
            os.kill(victim, signal.SIGKILL)
            made.said("ended with exit code -9: another starts")
            ask_anew(made.address, 8)
            made.said(r"worker \d+ is process \d+", 3)
            made.until(lambda: made.value("sentimill_ready_workers") == 2)
        ask_anew(made.address, 24)
        restarts = [made.value(f'sentimill_worker_restarts_total{{worker="{i}"}}') for i in (0, 1)]
        after = made.value('sentimill_requests_total{code="OK",method="Classify"}')

    assert sorted(restarts) == [0, 1]
    assert counted + 32 <= after <= counted + 32 + sent.codes["OK"]
    # One connection, so all of its calls under way, or none, were the dead worker's.
    assert sum(sent.codes.values()) - sent.codes["OK"] <= 2 * 4, sent.codes


def test_quotas_are_divided_among_the_workers(tmp_path: Path) -> None:
    """Four workers that share no counts grant together what one server would grant."""
    serve = Serve(bundle=tmp_path, provider="cpu")
    pool = _WorkerPool(serve, 4, lambda: None, port=1)

    assert [pool._worker_config(number).serve.quota_share for number in range(4)] == [0.25] * 4


def test_a_worker_that_is_stuck_is_killed_and_replaced(bundle: Path) -> None:
    """A process that is stopped reports nothing; the parent's own health does not follow it."""
    with group(bundle) as made:
        victim = made.pids()[0]
        os.kill(victim, signal.SIGSTOP)
        try:
            assert made.get("/healthz") == "ok\n"
            made.said(r"worker \d+ is stuck for \d+ s: it is killed")
            made.said(r"worker \d+ is process \d+", 3)
            made.until(lambda: made.value("sentimill_ready_workers") == 2)
        finally:
            with suppress(ProcessLookupError):
                os.kill(victim, signal.SIGCONT)
        ask_anew(made.address, 8)
        restarts = [made.value(f'sentimill_worker_restarts_total{{worker="{i}"}}') for i in (0, 1)]

    assert sorted(restarts) == [0, 1]


def no_order(number: int) -> WorkerConfig:
    """Stand for what a process would be told: none is started."""
    raise NotImplementedError


@pytest.mark.timeout(WAIT_SECONDS)
def test_a_worker_that_has_just_ended_is_not_asked_for_ever() -> None:
    """Its end of the pipe is closed, and whoever asks has the lock that a restart needs."""
    worker = WorkerProcess(0, no_order, WorkerMetrics(CollectorRegistry()), lambda: None)
    worker._pipe, theirs = multiprocessing.Pipe()
    theirs.close()

    assert worker.answers()
    assert worker.families() == [[], []]


class Hung:
    """Stands for what a process would be told: it sleeps while it reads this."""

    def __reduce__(self) -> tuple[object, ...]:
        """Sleep for longer than any test."""
        return time.sleep, (600,)


@pytest.mark.timeout(WAIT_SECONDS)
def test_a_worker_that_hangs_while_it_starts_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process in the place of another has no report to miss yet, so its start has a bound."""
    monkeypatch.setattr(sentimill.server.workers.worker_process, "_START_SECONDS", 0.1)
    metrics = WorkerMetrics(CollectorRegistry())
    worker = WorkerProcess(0, lambda number: cast(WorkerConfig, Hung()), metrics, lambda: None)
    worker.began = True

    assert worker._run() == -signal.SIGKILL


def test_each_worker_traces_its_own_calls(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the variables ask for reaches every process, and a drain sends what is left."""
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "3600000")
    with group(bundle) as made:
        ask_anew(made.address, 24)
        each = [made.value(f'sentimill_worker_texts_total{{worker="{i}"}}') for i in (0, 1)]
        early = made.log.count('"rpc.method": "Classify"')
        made.process.send_signal(signal.SIGTERM)
        code = made.end()

    assert min(each) > 0
    assert (early, made.log.count('"rpc.method": "Classify"'), code) == (0, 24, 0)


def test_calls_under_way_are_answered_in_a_drain(bundle: Path) -> None:
    """Calls go on as ever during the notice, and end with what says "call another"."""
    with group(bundle, "--notice-seconds=1") as made:
        with load(made.address, ["good"], callers=4, pause=0.01) as sent:
            made.until(lambda: sent.codes.get("OK", 0) > 20)
            before = sent.codes["OK"]
            made.process.send_signal(signal.SIGTERM)
            made.until(lambda: "UNAVAILABLE" in sent.codes)
        code = made.end()

    assert code == 0
    assert sent.codes["OK"] > before + 4
    # gRPC itself gives CANCELLED to a call that reaches a server as it stops (calls.py).
    assert set(sent.codes) - {"CANCELLED"} == {"OK", "UNAVAILABLE"}


def test_sighup_reloads_all_and_a_restart_takes_what_the_others_have(tmp_path: Path) -> None:
    """A link that leads to a broken bundle changes nothing, also for a worker that dies then."""
    first, second = version(tmp_path / "v1"), version(tmp_path / "v2")
    link = tmp_path / "live"
    link.symlink_to(first.path)
    with group(link) as made:
        assert digest(made.address) == first.digest
        link.unlink()
        link.symlink_to(second.path)
        made.process.send_signal(signal.SIGHUP)
        made.said(rf"serving tiny \({second.digest[:12]}\)$", 2)
        assert {digest(made.address) for _ in range(12)} == {second.digest}
        assert made.value('sentimill_reloads_total{result="ok"}') == 2
        link.unlink()
        link.symlink_to(tmp_path / "nowhere")
        made.process.send_signal(signal.SIGHUP)
        made.said("reload failed, still serving tiny", 2)
        os.kill(made.pids()[0], signal.SIGKILL)
        made.said(rf"serving tiny \({second.digest[:12]}\)$", 3)
        assert {digest(made.address) for _ in range(12)} == {second.digest}


HELD = """
import os, pathlib, time
import sentimill.server.model_loader as loader

def held(*args, warm_up=loader.warm_up):
    folder = pathlib.Path(os.environ["HOLD"])
    (folder / str(os.getpid())).touch()
    while (folder / "held").exists():
        time.sleep(0.01)
    warm_up(*args)

loader.warm_up = held
"""
"""Runs before every process, and holds its loads while there is a file `held`."""


@pytest.fixture
def loading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the folder in which each process that loads puts a file, and whose `held` holds it."""
    (tmp_path / "sitecustomize.py").write_text(HELD)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    folder = tmp_path / "loading"
    folder.mkdir()
    monkeypatch.setenv("HOLD", str(folder))
    return folder


def test_a_worker_that_dies_while_it_reloads_comes_back_with_the_new_model(
    tmp_path: Path, loading: Path
) -> None:
    """The process in its place is given the old folder, since the other one still serves that."""
    first, second = version(tmp_path / "v1"), version(tmp_path / "v2")
    link = tmp_path / "live"
    link.symlink_to(first.path)
    with group(link) as made:
        pids = made.pids()
        for pid in pids:
            (loading / str(pid)).unlink()
        (loading / "held").touch()
        link.unlink()
        link.symlink_to(second.path)
        made.process.send_signal(signal.SIGHUP)
        made.until(lambda: all((loading / str(pid)).exists() for pid in pids))
        os.kill(pids[0], signal.SIGKILL)
        made.said("ended with exit code -9: another starts")
        made.until(lambda: len(list(loading.iterdir())) == 4)  # the process in its place loads
        (loading / "held").unlink()
        made.said(rf"serving tiny \({second.digest[:12]}\)$", 2)
        made.until(lambda: made.value("sentimill_ready_workers") == 2)
        served = {digest(made.address) for _ in range(12)}

    assert served == {second.digest}
    assert f"serving tiny ({first.digest[:12]})" in made.log.partition("exit code -9")[2]


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_signal_while_the_workers_start_is_heeded(bundle: Path, number: signal.Signals) -> None:
    """SIGHUP ends nobody, and SIGTERM ends all with 0."""
    with starting(bundle) as made:
        made.said(r"worker \d+ is process (\d+)")
        made.process.send_signal(number)
        if number == signal.SIGHUP:
            made.said(r"^serving .* on (\S+)$")
            made.process.send_signal(signal.SIGTERM)
        assert made.end() == 0
    assert "Traceback" not in made.log


def test_workers_end_with_their_parent(bundle: Path) -> None:
    """A parent that is killed leaves no orphans on its port."""
    with group(bundle) as made:
        pids = made.pids()
        made.process.kill()
        made.until(lambda: not [pid for pid in pids if _runs(pid)])


def _runs(pid: int) -> bool:
    """Return whether a process is there and no zombie that nobody waits for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_bundle_that_does_not_load_ends_the_start(tmp_path: Path) -> None:
    """One line with the reason and the exit code of a single server."""
    done = subprocess.run(
        [*COMMAND, "serve", f"--bundle={tmp_path}", "--port=0", "--metrics-port=0", "--workers=2"],
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=False,
    )

    assert done.returncode == 4
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("workers", [1, 2])
def test_no_second_server_gets_the_port(bundle: Path, workers: int) -> None:
    """Neither a single one nor a group, that of a group least of all."""
    with group(bundle) as made:
        port = made.address.rpartition(":")[2]
        flags = [f"--bundle={bundle}", f"--port={port}", "--metrics-port=0"]
        done = subprocess.run(
            [*COMMAND, "serve", *flags, f"--workers={workers}"],
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
            check=False,
        )

    assert done.returncode == 2
    assert f"{port} cannot be opened" in done.stderr
