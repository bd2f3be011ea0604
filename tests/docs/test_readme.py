"""What the README tells a reader to type does what it says."""

from __future__ import annotations

import csv
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.reference import figures as reference_figures
from benchmarks.scoring import tables as scoring_table
from benchmarks.serving import tables as serving_table
from benchmarks.training.first_run import fill
from certificates import authority, signed
from labelling_runs import lines
from labelling_runs import write_reviews as write_unlabelled
from repository import ROOT
from teacher_server import TeacherServer, teacher_server
from tiny_bundle import write_tiny_bundle

README = (ROOT / "README.md").read_text(encoding="utf-8")
SENTIMILL = Path(sys.executable).parent / "sentimill"


def blocks(language: str) -> list[str]:
    """Return the fenced code blocks in *language*, in their order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """Return every command line of the `sh` blocks."""
    return [line for block in blocks("sh") for line in block.splitlines() if line.strip()]


def write_reviews(path: Path) -> None:
    """Write a small labelled CSV that a tiny student can learn."""
    words = {
        "negative": "bad broken awful",
        "neutral": "box arrived",
        "positive": "good great fine",
    }
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for i in range(90):
            for label, text in words.items():
                writer.writerow([f"{text} item {i}", label])


@pytest.fixture
def teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TeacherServer]:
    """Serve a teacher for `label`, with something to ask it about and to hold out."""
    write_unlabelled(tmp_path / "unlabelled.jsonl", 90)
    rows = lines(tmp_path / "unlabelled.jsonl")
    for name, part in (("unlabelled.csv", rows[:-3]), ("test.csv", rows[-9:])):
        with (tmp_path / name).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerows([["text"], *([row["text"]] for row in part)])
    with teacher_server() as server:
        monkeypatch.setenv("SENTIMILL_LABEL_BASE_URL", server.url)
        monkeypatch.setenv("SENTIMILL_LABEL_PRICE_IN", "0.1")
        monkeypatch.setenv("SENTIMILL_LABEL_PRICE_OUT", "0.5")
        monkeypatch.setenv("SENTIMILL_LABEL_YES", "1")
        yield server


@pytest.mark.slow
def test_commands_and_programs_of_the_readme_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, teacher: TeacherServer
) -> None:
    """From `train` to `serve` and the Python blocks, in the order in which a reader meets them.

    Only the size of the student and the endpoint of the teacher are changed, by the variables that
    the README itself names.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SENTIMILL_TRAIN_PRESET", "tiny")
    monkeypatch.setenv("SENTIMILL_TRAIN_EPOCHS", "1")
    monkeypatch.setenv("SENTIMILL_SERVE_PORT", "0")
    monkeypatch.setenv("SENTIMILL_SERVE_METRICS_PORT", "0")
    write_reviews(tmp_path / "reviews.csv")
    serving: subprocess.Popen[str] | None = None
    address = ""
    try:
        for line in commands():
            arguments = shlex.split(line.replace("127.0.0.1:50051", address))
            assert arguments[0] == "sentimill"
            arguments[0] = str(SENTIMILL)
            if arguments[1] == "serve":
                serving = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
                assert serving.stderr is not None
                said = next(line for line in serving.stderr if line.startswith("serving "))
                address = said.split()[-1]
                continue
            done = subprocess.run(arguments, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{line}\n{done.stderr}"
        for program in blocks("python"):
            code = program.replace("127.0.0.1:50051", address)
            done = subprocess.run(
                [sys.executable, "-c", code], capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{program}\n{done.stderr}"
    finally:
        if serving is not None:
            serving.terminate()
            serving.communicate()

    with (tmp_path / "scored.csv").open(encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == 270
    kept = (tmp_path / "curated.jsonl").read_text(encoding="utf-8").splitlines()
    assert 0 < len(kept) <= 81  # six of the rows are held out
    assert teacher.count.delivered == 87
    assert serving is not None
    assert serving.returncode == 0


class Shell:
    """A bash that runs what the README says."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, lines: str) -> None:
        """Type *lines*."""
        assert self._process.stdin is not None
        self._process.stdin.write(lines)
        self._process.stdin.flush()

    def said(self, pattern: str) -> str:
        """Return the first group of *pattern* in the next line of stderr that has it."""
        assert self._process.stderr is not None
        seen = []
        for line in self._process.stderr:
            seen.append(line)
            if found := re.search(pattern, line):
                return found[1]
        raise AssertionError("".join(seen))


@contextmanager
def shell(folder: Path) -> Iterator[Shell]:
    """Run bash in *folder*, with `sentimill` in its path, and stop what it started."""
    path = f"{SENTIMILL.parent}{os.pathsep}{os.environ['PATH']}"
    ports = {"SENTIMILL_SERVE_PORT": "0", "SENTIMILL_SERVE_METRICS_PORT": "0"}
    with subprocess.Popen(
        ["bash"],
        cwd=folder,
        env={**os.environ, **ports, "PATH": path},
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield Shell(process)
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.communicate(timeout=60)


def test_tls_and_tokens_work_as_the_readme_says(tmp_path: Path) -> None:
    """The server starts with what `token` wrote, and the program of a caller gets its answer."""
    write_tiny_bundle(tmp_path / "bundles/mine")
    signed(tmp_path, "server", authority(tmp_path, "ca"))
    secured, _ = blocks("bash")
    (program,) = blocks("py")
    with shell(tmp_path) as bash:
        bash.run(secured)
        address = bash.said(r"^serving .* on (\S+)$")
        code = program.replace("127.0.0.1:50051", address)
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    assert (done.returncode, done.stderr) == (0, "")
    assert "Prediction(label='neutral'" in done.stdout


def test_a_reload_works_as_the_readme_says(tmp_path: Path) -> None:
    """The second bundle answers after the signal."""
    write_tiny_bundle(tmp_path / "bundles/mine")
    second = write_tiny_bundle(tmp_path / "bundles/mine-2", threshold=0.5)
    _, reloaded = blocks("bash")
    start, change = reloaded.splitlines()
    with shell(tmp_path) as bash:
        bash.run(f"{start}\n")
        bash.said(r"^(serving) ")
        bash.run(f"{change}\n")
        assert bash.said(r"tiny (\w+) answers") == second.digest[:12]


def test_every_file_of_the_map_exists() -> None:
    """The file map names files that are there, and leaves out no module of the two packages."""
    rows = [line for line in README.splitlines() if line.startswith("| ")]
    named = {name for line in rows for name in re.findall(r"`([\w/.]+\.\w+)`", line)}
    modules = {
        path.relative_to(root).as_posix()
        for root in (ROOT / "serve/sentimill", ROOT / "train/sentimill_train")
        for path in root.rglob("*.py")
        if path.name != "__init__.py" and "v1" not in path.parts
    }

    assert modules - named == set()
    places = (ROOT, ROOT / "serve/sentimill", ROOT / "train/sentimill_train", ROOT / "tests")
    assert {name for name in named if not any((p / name).exists() for p in places)} == set()


def test_figures_are_those_of_the_results() -> None:
    """The tables of results say what the committed JSON says, to the letter."""
    assert fill(README, ROOT / "benchmarks/results/first-run.json") == README
    assert reference_figures.fill(README, ROOT / "bundles/reference") == README
    assert scoring_table.fill(README, ROOT / "benchmarks/results") == README
    guide = (ROOT / "docs/operate.md").read_text(encoding="utf-8")
    assert serving_table.fill(guide, ROOT / "benchmarks/results") == guide


def test_first_command_comes_early() -> None:
    """A reader finds the first command to type before line 20."""
    first = next(i for i, line in enumerate(README.splitlines(), 1) if "make demo" in line)

    assert first < 20


def test_demo_ends_with_three_commands() -> None:
    """`make demo` closes by printing three commands to try, and runs where sh is a plain one."""
    script = (ROOT / "demo.sh").read_text(encoding="utf-8")
    tail = script.partition("Done. Next:")[2]

    assert tail.count("$BIN/sentimill ") == 3
    assert shutil.which("sh") is not None
    checked = subprocess.run(["sh", "-n", str(ROOT / "demo.sh")], check=False, env=os.environ)
    assert checked.returncode == 0
