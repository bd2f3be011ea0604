"""A job that is killed, or refused a second time, or runs out of disk: never a partial file."""

from __future__ import annotations

import gzip
import io
import json
import multiprocessing
import multiprocessing.process
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scoring_jobs import SMALL_WINDOW_BYTES, job, score_by_command
from sentimill.classifier import Classifier
from sentimill.errors import SentimillError, TableError, UsageError
from sentimill.scoring import part_writer
from sentimill.scoring.answer_columns import Answers
from sentimill.scoring.checkpoint import FolderLock, Journal
from sentimill.scoring.formats.table import Layout
from sentimill.scoring.runner import Progress
from sentimill.scoring.scorers import LocalScorer, Model, Texts
from tiny_bundle import write_tiny_bundle

SMALL = Layout(window_bytes=SMALL_WINDOW_BYTES)
TEXTS = [random.Random(k).choice(["good", "bad " * 9, "", "the battery"]) for k in range(120)]
FORMATS = ["csv", "csv.gz", "csv.zst", "jsonl", "jsonl.gz", "json", "parquet"]


def write_input(path: Path) -> None:
    """Write `TEXTS` in the format that the suffixes of *path* name."""
    csv = "id,text\n" + "".join(f'{i},"{text}"\n' for i, text in enumerate(TEXTS))
    jsonl = "".join(json.dumps({"id": i, "text": t}) + "\n" for i, t in enumerate(TEXTS))
    array = json.dumps([{"id": i, "text": t} for i, t in enumerate(TEXTS)], indent=1)
    kinds = {".jsonl": jsonl, ".json": array}
    data = next((v for k, v in kinds.items() if k in path.name), csv).encode()
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"id": range(len(TEXTS)), "text": TEXTS}), path, row_group_size=50)
    elif path.suffix == ".gz":
        path.write_bytes(gzip.compress(data))
    elif path.suffix == ".zst":
        path.write_bytes(pa.Codec("zstd").compress(data, asbytes=True))
    else:
        path.write_bytes(data)


class Breaks:
    """A scorer that fails at its call number *at*, as a process does that is killed."""

    ahead = 1

    def __init__(self, scorer: LocalScorer, at: int) -> None:
        self._scorer = scorer
        self._left = at

    def model(self) -> Model:
        """Say what answers."""
        return self._scorer.model()

    def prepare(self, texts: Texts) -> Callable[[], Answers]:
        """Tokenise, and answer or fail."""
        answer = self._scorer.prepare(texts)

        def call() -> Answers:
            if not self._left:
                raise KeyboardInterrupt
            self._left -= 1
            return answer()

        return call


@pytest.fixture
def _every_part_is_on_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write each part to the journal at once."""
    monkeypatch.setattr(part_writer, "_COMMIT_S", 0.0)


@pytest.mark.usefixtures("_every_part_is_on_record")
@pytest.mark.parametrize("suffix", FORMATS)
def test_an_interrupted_job_ends_with_the_same_bytes(
    tmp_path: Path, scorer: LocalScorer, suffix: str
) -> None:
    """Wherever it stopped, torn bytes behind the last record included."""
    source = tmp_path / f"in.{suffix}"
    write_input(source)
    whole, broken = tmp_path / f"whole.{suffix}", tmp_path / f"broken.{suffix}"
    job(source, whole, SMALL).run(scorer)
    for at in (0, 1, 7):
        made = job(source, broken, SMALL)
        with pytest.raises(KeyboardInterrupt):
            made.run(Breaks(scorer, at))
        assert not broken.exists()
        for name in ("0.data", "0.errors.jsonl", "journal.jsonl"):
            with (made.folder() / name).open("ab") as file:
                file.write(b'{"torn')

        summary = made.run(scorer)

        assert broken.read_bytes() == whole.read_bytes()
        errors = [Path(f"{name}.errors.jsonl").read_bytes() for name in (broken, whole)]
        assert errors[0] == errors[1]
        assert (summary.rows, summary.resumed_rows > 0) == (len(TEXTS), at > 0)
        broken.unlink()


@pytest.mark.usefixtures("_every_part_is_on_record")
def test_parts_that_lost_their_bytes_are_done_again(tmp_path: Path, scorer: LocalScorer) -> None:
    """A power cut may leave what the journal does not know of: hashes tell."""
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    write_input(source)
    job(source, tmp_path / "whole.csv", SMALL).run(scorer)
    made = job(source, target, SMALL)
    with pytest.raises(KeyboardInterrupt):
        made.run(Breaks(scorer, 9))
    data = made.folder() / "0.data"
    spoiled = bytearray(data.read_bytes())
    spoiled[len(spoiled) // 2] ^= 1
    data.write_bytes(spoiled)

    summary = made.run(scorer)

    assert target.read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert 0 < summary.resumed_rows < len(TEXTS) // 2


def test_the_name_appears_at_the_end_and_the_folder_goes(
    tmp_path: Path, scorer: LocalScorer
) -> None:
    """While rows are written the final name is free; after, nothing else is left."""
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_bytes(b"text\n" + b"good\n" * 100)
    seen: list[bool] = []

    def look(_: Progress) -> None:
        seen.append(target.exists())

    job(source, target, SMALL).run(scorer, report=look)

    assert len(seen) > 10
    assert not any(seen)
    assert sorted(os.listdir(tmp_path)) == ["in.csv", "out.csv"]


@pytest.mark.usefixtures("_every_part_is_on_record")
def test_a_crash_between_the_name_and_the_record_is_finished(
    tmp_path: Path, scorer: LocalScorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next run sees that the file has its name, and only cleans up."""
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    write_input(source)
    made = job(source, target, SMALL)
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "remove", lambda _: exec("raise KeyboardInterrupt"))
        with pytest.raises(KeyboardInterrupt):
            made.run(scorer)
    first = target.read_bytes()

    summary = made.run(scorer)

    assert (summary.rows, summary.resumed_rows) == (len(TEXTS), len(TEXTS))
    assert target.read_bytes() == first
    assert not made.folder().exists()


@pytest.mark.usefixtures("_every_part_is_on_record")
@pytest.mark.parametrize(
    ("change", "reason", "said"),
    [
        ("longer", "INPUT_CHANGED", "bytes long"),
        ("touched", "INPUT_CHANGED", "not the one that the job began with"),
        ("prefix", "OPTION_CHANGED", "--prefix"),
        ("probs", "OPTION_CHANGED", "--probs"),
        ("bundle", "BUNDLE_CHANGED", "model"),
        ("more", "INPUT_CHANGED", "new since"),
    ],
)
def test_a_changed_job_refuses_to_go_on(
    tmp_path: Path, scorer: LocalScorer, change: str, reason: str, said: str
) -> None:
    """It says what differs, and --restart begins anew."""
    (tmp_path / "in").mkdir()
    source, target = tmp_path / "in" / "a.csv", f"{tmp_path}/out/"
    write_input(source)
    made = job(f"{tmp_path}/in/*.csv", target, SMALL)
    with pytest.raises(KeyboardInterrupt):
        made.run(Breaks(scorer, 5))
    options: dict[str, object] = {}
    other = scorer
    if change == "longer":
        source.write_bytes(source.read_bytes() + b"1,good\n")
    elif change == "touched":
        os.utime(source, ns=(1, 1))
    elif change == "more":
        shutil.copy(source, tmp_path / "in" / "b.csv")
    elif change == "bundle":
        tiny = write_tiny_bundle(tmp_path / "tiny", threshold=0.5)
        other = LocalScorer(Classifier.load(tiny.path, threads=1))
    else:
        options = {"prefix": "x_"} if change == "prefix" else {"probs": True}

    with pytest.raises(UsageError, match=said) as caught:
        job(f"{tmp_path}/in/*.csv", target, SMALL, **options).run(other)
    job(f"{tmp_path}/in/*.csv", target, SMALL, restart=True, **options).run(other)

    assert caught.value.reason == reason
    assert "--restart" in str(caught.value)
    assert (tmp_path / "out/a.csv").exists()


@pytest.mark.usefixtures("_every_part_is_on_record")
def test_a_job_of_a_version_with_fewer_options_goes_on(tmp_path: Path, scorer: LocalScorer) -> None:
    """Unless an option that it did not have is given now."""
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    write_input(source)
    made = job(source, target, SMALL)
    with pytest.raises(KeyboardInterrupt):
        made.run(Breaks(scorer, 5))
    journal = made.folder() / "journal.jsonl"
    header, _, rest = journal.read_text().partition("\n")
    older = json.loads(header)
    for name in ("--neighbours", "--explain-column", "--sheet", "--delimiter"):
        del older["options"][name]
    journal.write_text(f"{json.dumps(older)}\n{rest}")

    with pytest.raises(UsageError, match="had --explain-column unset, now it is True"):
        job(source, target, SMALL, explain=True).run(scorer)
    summary = made.run(scorer)

    assert summary.resumed_rows > 0
    assert summary.rows == len(TEXTS)


def test_a_second_start_is_refused(tmp_path: Path, scorer: LocalScorer) -> None:
    """While the first holds its folder; after, the way is free."""
    source = tmp_path / "in.csv"
    write_input(source)
    made = job(source, tmp_path / "out.csv")
    with FolderLock(made.folder()), pytest.raises(UsageError, match="another job") as caught:
        made.run(scorer)

    assert caught.value.reason == "OUTPUT_LOCKED"
    assert made.run(scorer).rows == len(TEXTS)


def test_stopping_saves_the_rows_at_hand(tmp_path: Path, scorer: LocalScorer) -> None:
    """And says how to go on."""
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    write_input(source)
    made = job(source, target, SMALL)
    stop = threading.Event()
    stop.set()

    with pytest.raises(SentimillError, match="run the same command again") as caught:
        made.run(scorer, stop=stop)
    summary = made.run(scorer)

    assert caught.value.reason == "INTERRUPTED"
    assert (summary.rows, summary.resumed_rows > 0) == (len(TEXTS), True)


@pytest.mark.parametrize("suffix", ["csv", "csv.gz", "parquet"])
def test_an_input_that_is_cut_short_leaves_no_output(
    tmp_path: Path, scorer: LocalScorer, suffix: str
) -> None:
    """While it is read: what was read is not what the job began with."""
    source, target = tmp_path / f"in.{suffix}", tmp_path / f"out.{suffix}"
    write_input(source)

    def cut(_: Progress) -> None:
        os.truncate(source, source.stat().st_size // 2)

    with pytest.raises(TableError) as caught:
        job(source, target, SMALL).run(scorer, report=cut)

    assert caught.value.reason in ("INPUT_CHANGED", "TRUNCATED", "UNREADABLE")
    assert not target.exists()


def test_an_output_folder_that_is_removed_is_told(tmp_path: Path, scorer: LocalScorer) -> None:
    """Nothing is written anywhere else."""
    source, folder = tmp_path / "in.csv", tmp_path / "out"
    write_input(source)
    folder.mkdir()

    def remove(_: Progress) -> None:
        shutil.rmtree(folder, ignore_errors=True)

    with pytest.raises(SentimillError) as caught:
        job(source, folder / "out.csv", SMALL).run(scorer, report=remove)

    assert caught.value.reason == "OUTPUT_GONE"
    assert os.listdir(tmp_path) == ["in.csv"]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_full_disk_is_told_and_the_job_goes_on_later(
    tmp_path: Path, scorer: LocalScorer, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """/dev/full stands in for the data file: every write to it says that the disk is full."""
    source, target = tmp_path / f"in.{suffix}", tmp_path / f"out.{suffix}"
    write_input(source)
    made = job(source, target, SMALL)

    def full(_: Path, __: int) -> BinaryIO:
        return Path("/dev/full").open("wb")

    with monkeypatch.context() as patch:
        patch.setattr(part_writer, "_open_at", full)
        with pytest.raises(SentimillError, match="the disk is full") as caught:
            made.run(scorer)
    assert not target.exists()

    assert caught.value.reason == "DISK_FULL"
    assert made.run(scorer).rows == len(TEXTS)


def test_a_full_disk_at_resume_is_told(
    tmp_path: Path, scorer: LocalScorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal is written again first, which needs some space."""
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    write_input(source)
    made = job(source, target, SMALL)
    with pytest.raises(KeyboardInterrupt):
        made.run(Breaks(scorer, 5))
    (made.folder() / "journal.jsonl.new").symlink_to("/dev/full")

    with pytest.raises(SentimillError, match="the disk is full") as caught:
        made.run(scorer)
    (made.folder() / "journal.jsonl.new").unlink()

    assert caught.value.reason == "DISK_FULL"
    assert made.run(scorer).rows == len(TEXTS)


FORKS = multiprocessing.get_context("forkserver")
"""Starts a process without the second of imports that `PRELOADED` takes."""

PRELOADED = [
    "__main__",
    "onnxruntime",
    "sentimill.cli.main",
    *(f"sentimill.scoring.{name}" for name in ("job_metrics", "ray_runner", "server_scorer")),
]


def killed_runs(folder: Path, bundle: Path, suffix: str, kills: int, seed: int) -> None:
    """Kill a process at *kills* random moments, each time going on, and compare the outputs.

    A moment is so many committed windows after the last one, so each is within the work.
    """
    source = folder / f"in.{suffix}"
    write_input(source)
    outputs = [folder / f"whole.{suffix}", folder / f"killed.{suffix}"]
    chance = random.Random(seed)
    FORKS.set_forkserver_preload(PRELOADED)

    def start(target: Path) -> multiprocessing.process.BaseProcess:
        arguments = ["score", source, target, "--bundle", bundle, "--threads", "1", "--strict"]
        process = FORKS.Process(target=score_by_command, args=([*map(str, arguments)],))
        process.start()
        return process

    def committed() -> int:
        journal = folder / f".{outputs[1].name}.score" / "journal.jsonl"
        return journal.read_bytes().count(b"\n") if journal.exists() else 0

    whole = start(outputs[0])
    whole.join()
    assert whole.exitcode == 3
    for _ in range(kills):
        until = committed() + chance.randint(0, 20)
        process = start(outputs[1])
        while process.is_alive() and committed() < until:
            time.sleep(chance.uniform(0.0, 0.002))  # another process is to act
        process.kill()
        process.join()
        if outputs[1].exists():
            assert outputs[1].read_bytes() == outputs[0].read_bytes()
            shutil.rmtree(folder / f".{outputs[1].name}.score", ignore_errors=True)
            outputs[1].unlink()
    process = start(outputs[1])
    process.join()

    assert process.exitcode == 3
    assert outputs[1].read_bytes() == outputs[0].read_bytes()


def test_a_killed_process_goes_on(tmp_path: Path, bundle: Path) -> None:
    """SIGKILL at random moments; benchmarks/scoring/score_job.py does it a hundred times."""
    killed_runs(tmp_path, bundle, "csv.gz", kills=2, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", FORMATS)
def test_a_process_killed_often_goes_on(tmp_path: Path, bundle: Path, suffix: str) -> None:
    """SIGKILL at several random moments, over formats."""
    killed_runs(tmp_path, bundle, suffix, kills=5, seed=2)


@pytest.mark.slow
def test_sigterm_saves_and_says_how_to_go_on(tmp_path: Path, bundle: Path) -> None:
    """Through the command: exit code 1, and the next run ends the job."""
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_bytes(b'{"text":"good"}\n' * 200_000)
    command = [
        sys.executable,
        "-c",
        "from sentimill.cli.main import main; main()",
        "score",
        str(source),
        str(target),
    ]
    options = ["--bundle", str(bundle), "--threads", "1", "--metrics-textfile"]
    metrics = tmp_path / "metrics.prom"
    process = subprocess.Popen(
        [*command, *options, str(metrics)], stderr=subprocess.PIPE, text=True
    )
    while not metrics.exists():  # it is written with the first window
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=60)
    done = subprocess.run([*command, *options, str(metrics)], capture_output=True, text=True)

    assert (process.returncode, "run the same command again" in error) == (1, True), error
    assert done.returncode == 0
    assert "of them by an earlier run" in done.stderr
    assert io.BytesIO(target.read_bytes()).readlines()[-1].startswith(b'{"text":"good",')
    assert len(target.read_bytes().splitlines()) == 200_000
