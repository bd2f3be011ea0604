"""A job over several processes: the same bytes, whatever happens to one of them."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from multiprocessing import active_children
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import sentimill.cli.score as score_command
from cli_in_process import Sentimill
from scoring_jobs import SMALL_WINDOW_BYTES, job
from sentimill.engine.hardware import Machine
from sentimill.errors import BundleError, EngineError, SentimillError, TableError
from sentimill.scoring.answer_columns import Answers
from sentimill.scoring.formats.table import Layout
from sentimill.scoring.runner import Progress
from sentimill.scoring.scorers import LocalScorer, Model, ProcessScorer, Texts
from tiny_bundle import graph, write_tiny_bundle

SMALL = Layout(window_bytes=SMALL_WINDOW_BYTES)
TEXTS = [["good", "bad " * 9, "", "the battery", "N/A"][i * i % 5] for i in range(150)]


def write_input(path: Path) -> None:
    """Write `TEXTS` in the format that the suffix of *path* names; row 78 is no row there is."""
    if path.suffix == ".parquet":
        table = pa.table({"id": range(len(TEXTS)), "text": TEXTS})
        pq.write_table(table, path, row_group_size=40)
        return
    line = json.dumps if path.suffix == ".jsonl" else _as_csv
    lines = [line({"id": i, "text": text}) for i, text in enumerate(TEXTS)]
    lines[77] = "odd"
    path.write_text("\n".join([*([] if path.suffix == ".jsonl" else ["id,text"]), *lines]))


def _as_csv(row: dict[str, object]) -> str:
    return f'{row["id"]},"{row["text"]}"'


@pytest.fixture(scope="module")
def two(bundle: Path) -> Iterator[ProcessScorer]:
    """Return the tiny bundle in two processes."""
    with closing(ProcessScorer(partial(LocalScorer.load, bundle, threads=1), 2)) as made:
        yield made


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_two_processes_give_the_bytes_of_one(
    tmp_path: Path, scorer: LocalScorer, two: ProcessScorer, suffix: str
) -> None:
    """Rows with an error stay in their place, in the output and in the list of errors."""
    source, one, both = (tmp_path / f"{name}.{suffix}" for name in ("in", "one", "two"))
    write_input(source)

    expected = job(source, one, SMALL, probs=True).run(scorer)
    found = job(source, both, SMALL, probs=True).run(two)

    assert both.read_bytes() == one.read_bytes()
    errors = [Path(f"{path}.errors.jsonl").read_text() for path in (one, both)]
    assert errors[1] == errors[0]
    assert found.counts == expected.counts
    assert found.failed > 20


def test_the_files_of_a_job_follow_one_another_without_a_pause(
    tmp_path: Path, scorer: LocalScorer, two: ProcessScorer
) -> None:
    """A file that cannot be read is named, and those before it are whole."""
    names = ("a.csv", "b.csv", "c.csv", "d.csv")
    for name in names:
        write_input(tmp_path / name)
    good = (tmp_path / "c.csv").read_bytes()
    (tmp_path / "c.csv").write_bytes(b'id,text\n1,"' + b"x\n" * 100_001)
    target = f"{tmp_path}/out/"
    made = job("", target, SMALL, sources=tuple(str(tmp_path / name) for name in names))
    job(tmp_path / "a.csv", tmp_path / "one.csv", SMALL).run(scorer)

    with pytest.raises(TableError, match=r"c\.csv has a record .* 100,000 lines") as caught:
        made.run(two)
    done = sorted(name for name in os.listdir(target) if name.endswith(".csv"))
    (tmp_path / "c.csv").write_bytes(good)
    summary = made.run(two)

    assert (caught.value.reason, done) == ("RECORD_TOO_LARGE", ["a.csv", "b.csv"])
    assert summary.resumed_rows == 2 * len(TEXTS)
    assert summary.errors == tuple(f"{target}{name}.errors.jsonl" for name in names)
    whole = (tmp_path / "one.csv").read_bytes()
    assert all(Path(target + name).read_bytes() == whole for name in names)


def test_a_process_that_dies_ends_the_job_and_the_next_run_goes_on(
    tmp_path: Path, scorer: LocalScorer, bundle: Path
) -> None:
    """It is told in words, and nothing is written twice or left out."""
    source, whole, broken = (tmp_path / f"{name}.csv" for name in ("in", "whole", "broken"))
    write_input(source)
    job(source, whole, SMALL).run(scorer)
    others = set(active_children())
    load = partial(LocalScorer.load, bundle, threads=1)

    with closing(ProcessScorer(load, 2)) as two:
        first, _ = set(active_children()) - others

        def kill(_: Progress) -> None:
            first.kill()

        with pytest.raises(SentimillError, match=r"exit code -9 .* run the same command") as caught:
            job(source, broken, SMALL).run(two, report=kill)
    assert not broken.exists()
    summary = job(source, broken, SMALL).run(scorer)

    assert caught.value.reason == "WORKER_LOST"
    assert 0 < summary.resumed_rows < len(TEXTS)
    assert broken.read_bytes() == whole.read_bytes()
    assert set(active_children()) == others


def test_a_model_that_does_not_load_is_told_as_in_one_process(tmp_path: Path) -> None:
    """By the same error, and no process stays."""
    others = set(active_children())
    made = write_tiny_bundle(tmp_path / "tiny")
    (made.path / "tokenizer.json").write_bytes(b"{}")

    with pytest.raises(BundleError, match="does not verify"):
        ProcessScorer(partial(LocalScorer.load, made.path), 2)

    assert set(active_children()) == others


class _Absent:
    """A scorer that misses a file, when it loads or at the first texts."""

    ahead = 1

    def __init__(self, path: Path, *, at_once: bool) -> None:
        self._path = path
        if at_once:
            path.read_bytes()

    def model(self) -> Model:
        """Say what answers."""
        return Model("digest", "engine", ("negative", "neutral", "positive"), None)

    def prepare(self, texts: Texts) -> Callable[[], Answers]:
        """Read the file."""
        self._path.read_bytes()
        raise AssertionError(texts)


def test_an_error_of_the_system_in_a_process_is_told(tmp_path: Path) -> None:
    """It is not taken for the end of the process."""
    path = tmp_path / "absent.onnx"
    why = r"stopped: \[Errno 2\] No such file or directory: '.*/absent\.onnx'"

    with pytest.raises(SentimillError, match=why) as caught:
        ProcessScorer(partial(_Absent, path, at_once=True), 1)
    with (
        closing(ProcessScorer(partial(_Absent, path, at_once=False), 1)) as one,
        pytest.raises(SentimillError, match=why),
    ):
        one.prepare(["good"])()

    assert caught.value.reason == "WORKER_FAILED"


def test_an_engine_that_fails_does_what_it_does_in_one_process(tmp_path: Path) -> None:
    """One text that breaks it is a row with an error; an engine that is broken ends the job."""
    made = write_tiny_bundle(tmp_path / "tiny", model=graph(fail_on="poison"))
    source = tmp_path / "in.csv"
    source.write_bytes(b"text\n" + b"good\n" * 20 + b"poison\n" + b"bad\n" * 20)
    broken = tmp_path / "broken.csv"
    broken.write_bytes(b"text\n" + b"poison\n" * 40)

    with closing(ProcessScorer(partial(LocalScorer.load, made.path, threads=1), 2)) as two:
        summary = job(source, tmp_path / "out.csv", SMALL).run(two)
        with pytest.raises(EngineError, match="the engine failed on"):
            job(broken, tmp_path / "none.csv", SMALL).run(two)

    assert (summary.rows, summary.counts.engine_failed) == (41, 1)
    assert b"poison,,,,,,ENGINE_FAILED\nbad,negative" in (tmp_path / "out.csv").read_bytes()
    assert not (tmp_path / "none.csv").exists()


def test_the_command_takes_the_number(sentimill: Sentimill, bundle: Path, tmp_path: Path) -> None:
    """A server and Ray have processes of their own, so there it is refused."""
    write_input(tmp_path / "in.csv")

    for count in (1, 2):
        options = ("--bundle", bundle, "--processes", str(count))
        found = sentimill("score", tmp_path / "in.csv", tmp_path / f"{count}.csv", *options)
        assert found.code == 3  # for the odd row
    refused = sentimill(
        "score", tmp_path / "in.csv", tmp_path / "3.csv", "--server", "x:1", "--processes", "2"
    )

    assert (tmp_path / "2.csv").read_bytes() == (tmp_path / "1.csv").read_bytes()
    assert (refused.code, "--processes" in refused.error) == (2, True)


PROGRAM = """
import os, sys
os.fsync = lambda _: None
from sentimill.cli.main import main
from sentimill.scoring import part_writer
from sentimill.scoring.formats import table
part_writer._COMMIT_S = 0.0
table.Layout.__init__.__kwdefaults__["window_bytes"] = 20_000
main(sys.argv[1:])
"""


def test_a_killed_job_leaves_no_process_and_goes_on(tmp_path: Path, bundle: Path) -> None:
    """SIGKILL reaches the owner alone; its processes end by themselves."""
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_bytes(b'{"text":"good"}\n{"text":"bad bad"}\n' * 3000)
    command = [sys.executable, "-c", PROGRAM, "score", str(source), str(target)]
    command += ["--bundle", str(bundle), "--processes", "2"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    journal = tmp_path / ".out.jsonl.score" / "journal.jsonl"
    while not (journal.exists() and journal.read_bytes().count(b"\n") > 5):
        assert process.poll() is None
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    handles = [os.pidfd_open(int(child)) for child in children]

    process.send_signal(signal.SIGKILL)
    process.communicate()
    for handle in handles:
        assert select.select([handle], [], [], 30)[0], "a process outlived its owner by 30 s"
        os.close(handle)
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)

    assert len(handles) >= 2
    assert (done.returncode, "by an earlier run" in done.stderr) == (0, True), done.stderr
    rows = [json.loads(line) for line in target.read_bytes().splitlines()]
    assert [row["sentiment_label"] for row in rows] == ["positive", "negative"] * 3000


@pytest.mark.parametrize(
    ("size", "free_mib", "expected"),
    [(1 << 30, 80_000, 8), (1 << 30, 23_000, 4), (1000, 80_000, 1)],
)
def test_a_gpu_gets_as_many_processes_as_its_memory_holds(
    monkeypatch: pytest.MonkeyPatch, size: int, free_mib: int, expected: int
) -> None:
    """For a large input alone, and never on a CPU."""
    gpu = Machine(cpu_flags=frozenset(), onnx_providers=("CUDAExecutionProvider",), openvino=None)
    monkeypatch.setattr(Machine, "here", lambda: gpu)
    monkeypatch.setattr(score_command, "usable_cores", lambda: 16)
    monkeypatch.setattr(score_command, "free_gpu_mib", lambda: free_mib)

    assert score_command._default_processes("auto", "auto", size) == expected
    assert score_command._default_processes("auto", "cpu", size) == 1
