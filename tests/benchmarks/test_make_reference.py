"""`make reference`, from review sets to a student, with encoders and sets of kilobytes."""

from __future__ import annotations

import gzip
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from repository import ROOT
from sentimill.bundle.reader import open_bundle
from train_parts import write_base

SCRIPT = ROOT / "benchmarks/reference/make.sh"
WORDS = {"negative": "broken", "neutral": "it", "positive": "lovely"}


def write_set(folder: Path, name: str, labels: list[str], rows: int) -> None:
    """Write a set whose label is one word of the text."""
    draw = random.Random(name)
    table: dict[str, list[str]] = {column: [] for column in ("id", "text", "label", "split")}
    for i in range(rows):
        label = labels[i % len(labels)]
        noise = "".join(draw.choice("abcdefghij") for _ in range(draw.randrange(4, 9)))
        split = ("train", "train", "validation", "test")[i // len(labels) % 4]
        cells = (f"made-{name}-{i}", f"item {noise} was {WORDS[label]}", label, split)
        for column, cell in zip(table, cells, strict=True):
            table[column].append(cell)
    pq.write_table(pa.table(table), folder / f"{name}.parquet")


@pytest.fixture
def given(tmp_path: Path) -> dict[str, str]:
    """Return the settings of a run of a minute."""
    write_set(tmp_path, "yelp_kaggle10k", list(WORDS), 240)
    write_set(tmp_path, "imdb", ["negative", "positive"], 80)
    shares = {"set": "yelp_kaggle10k", "id": "made-yelp_kaggle10k-0", "probs": [0.9, 0.1, 0.0]}
    (tmp_path / "pseudo.jsonl").write_text(json.dumps(shares) + "\n")
    with gzip.open(tmp_path / "suite.jsonl.gz", "wt") as file:
        file.write('{"imdb_id": "made-imdb-0"}\n')
    own = []
    for whole in sorted((SCRIPT.parent / "own").glob("*.jsonl")):
        own.append(tmp_path / whole.name)
        own[-1].write_text("".join(whole.read_text().splitlines(keepends=True)[::30]))
    program = tmp_path / "bin" / "sentimill"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\nfrom sentimill.cli.main import main\nmain()\n")
    python = program.with_name("python")
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    for written in (program, python):
        written.chmod(0o755)
    return {
        "BIN": str(program.parent),
        "DATA": str(tmp_path),
        "PSEUDO": str(tmp_path / "pseudo.jsonl"),
        "SUITE": str(tmp_path / "suite.jsonl.gz"),
        "OWN": " ".join(map(str, own)),
        "WORK": str(tmp_path / "work"),
        "OUT": str(tmp_path / "reference"),
        "ASSISTANT_BASE": str(write_base(tmp_path / "large", layers=4)),
        "STUDENT_BASE": str(write_base(tmp_path / "small", layers=3)),
        "PIECES": "200",
        "ANCHORS": "50",
        "PACKAGED": "",
        "EPOCHS": "1",
        "FINE_EPOCHS": "1",
        "MAX_TOKENS": "48",
        "BATCH_TOKENS": "8192",
        "FINE_BATCH_TOKENS": "8192",
        "HALF": str(tmp_path / "half"),
    }


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_reference_is_made_from_start_to_end(given: dict[str, str]) -> None:
    """Mix, assistant, trimmed words, its answers, the student, its last stage, and half of it."""
    # The gate of int8 wants 2,000 rows, so a look at the bundle stands for the export.
    environment = os.environ | given | {"OMP_NUM_THREADS": "1", "EXPORT": "echo"}

    done = subprocess.run(
        ["sh", SCRIPT],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr[-2000:]
    work = Path(given["WORK"])
    fine = open_bundle(work / "fine").manifest
    assert fine.name == "reference"
    assert fine.training["teacher_logits"] == "logits.parquet"
    assert fine.training["interpolated_share"] is not None
    assert int(str(fine.training["rows_spare"])) >= 40
    assistant = open_bundle(work / "assistant").manifest
    assert (assistant.training["weight_column"], assistant.training["soft_weight"]) == ("weight", 1)
    assert open_bundle(Path(given["HALF"])).manifest.training["preset"] == "minilm-l3"
    answered = pq.read_metadata(work / "logits.parquet").num_rows
    assert answered == len((work / "mix" / "texts.jsonl").read_text().splitlines())
