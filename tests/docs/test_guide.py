"""What docs/guide.md tells a reader to type does what it says."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from certificates import authority, signed
from labelled_reviews import write_labelled
from labelling_runs import lines
from labelling_runs import write_reviews as write_unlabelled
from live_server import live_server
from repository import ROOT
from run_docs import blocks, run_page, shell
from sentimill.server.settings import Serve
from teacher_server import TeacherServer, teacher_server
from tiny_bundle import write_tiny_bundle

GUIDE = ROOT / "docs/guide.md"


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
def test_commands_and_programs_of_the_guide_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, teacher: TeacherServer
) -> None:
    """In the order in which a reader meets them, with a tiny bundle and a teacher of our own."""
    monkeypatch.chdir(tmp_path)
    for name in ("reviews.csv", "held-out.csv"):
        write_labelled(tmp_path / name)
    made = write_tiny_bundle(tmp_path / "bundles/mine")

    with live_server(Serve(bundle=made.path, port=0, metrics_port=0)) as serving:
        run_page(GUIDE, serving.address)

    assert (tmp_path / "scored.parquet").is_file()
    assert not (tmp_path / "again.csv").exists()
    kept = (tmp_path / "curated.jsonl").read_text(encoding="utf-8").splitlines()
    assert 0 < len(kept) <= 81  # six of the rows are held out
    assert teacher.count.delivered == 87


def test_tls_and_tokens_work_as_the_guide_says(tmp_path: Path) -> None:
    """The server starts with what `token` wrote, and the program of a caller gets its answer."""
    write_tiny_bundle(tmp_path / "bundles/mine")
    signed(tmp_path, "server", authority(tmp_path, "ca"))
    secured, _ = blocks(GUIDE, "bash")
    (program,) = blocks(GUIDE, "py")
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


def test_a_reload_works_as_the_guide_says(tmp_path: Path) -> None:
    """The second bundle answers after the signal."""
    write_tiny_bundle(tmp_path / "bundles/mine")
    second = write_tiny_bundle(tmp_path / "bundles/mine-2", threshold=0.5)
    _, reloaded = blocks(GUIDE, "bash")
    start, change = reloaded.splitlines()
    with shell(tmp_path) as bash:
        bash.run(f"{start}\n")
        bash.said(r"^(serving) ")
        bash.run(f"{change}\n")
        bash.said(rf"serving tiny \(({second.digest[:12]})\)")
