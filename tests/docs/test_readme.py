"""What the README tells a reader to type does what it says."""

from __future__ import annotations

import csv
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from labelled_reviews import write_labelled
from repository import ROOT
from run_docs import run_page

README = ROOT / "README.md"
TEXT = README.read_text(encoding="utf-8")


@pytest.mark.slow
def test_commands_and_programs_of_the_readme_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From `score` to `train`, in the order in which a reader meets them.

    Only the size of the trained student and the ports are changed, by variables.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SENTIMILL_TRAIN_PRESET", "tiny")
    monkeypatch.setenv("SENTIMILL_TRAIN_EPOCHS", "1")
    monkeypatch.setenv("SENTIMILL_SERVE_PORT", "0")
    monkeypatch.setenv("SENTIMILL_SERVE_METRICS_PORT", "0")
    write_labelled(tmp_path / "reviews.csv")

    run_page(README)

    for name in ("answered.csv", "served.csv", "scored.csv"):
        with (tmp_path / name).open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == 270
        assert rows[0].keys() == {"text", "label", *_columns()}


def _columns() -> list[str]:
    """Return the columns that the README says `score` adds."""
    return re.findall(r"^\| `(sentiment_\w+)` \|", TEXT, re.MULTILINE)


def test_the_readme_is_short() -> None:
    """A stranger reads 200 lines at most, and meets the first command before line 20."""
    lines = TEXT.splitlines()

    assert len(lines) <= 200
    assert next(i for i, line in enumerate(lines, 1) if "pip install" in line) < 20


def test_every_link_leads_somewhere() -> None:
    """In the README and in each page of docs/, relative links name files that are there."""
    for page in (README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))):
        for link in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
            if not re.match(r"https?:", link):
                assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_the_demo_ends_with_three_commands() -> None:
    """`make demo` closes by printing three commands to try, and runs where sh is a plain one."""
    script = (ROOT / "demo.sh").read_text(encoding="utf-8")
    tail = script.partition("Done. Next:")[2]

    assert tail.count("$BIN/sentimill ") == 3
    assert shutil.which("sh") is not None
    checked = subprocess.run(["sh", "-n", str(ROOT / "demo.sh")], check=False, env=os.environ)
    assert checked.returncode == 0
