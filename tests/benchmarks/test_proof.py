"""The whole proof on a tiny bundle, a tiny decoder and sentences of our own: run, page, README."""

from __future__ import annotations

import json
import random
import re
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.proof import readme_tables as proof_page
from benchmarks.proof import run as bench
from benchmarks.proof.page import cost_of, render
from benchmarks.proof.record import Proof, read_proof
from benchmarks.proof.reviews import QUALITY_SETS, SPEED_SETS
from benchmarks.proof.tables import (
    cascade_table,
    cost_part,
    gpu_part,
    quality_table,
    ratio_table,
    readme_part,
    regenerate,
    speed_table,
)
from chromium import open_page
from repository import ROOT
from sentimill_train.cost.prices import MEASURED, Measured

WORDS = {"negative": "bad", "neutral": "fine", "positive": "good"}

COMMITTED = ROOT / "benchmarks/results/proof-cpu.json"


def write_sets(folder: Path) -> Path:
    """Write every set that a run reads, with 30 rows a split, and the teacher's labels."""
    draw = random.Random(0)
    labels = folder / "labels.jsonl"
    given: list[str] = []
    for dataset in sorted({*QUALITY_SETS, *SPEED_SETS, "taught"}):
        rows = []
        for split in ("train", "validation", "test"):
            for n in range(30):
                label = list(WORDS)[n % 3]
                text = f"the battery {WORDS[label]} " * draw.randint(1, 4)
                name = f"{dataset}-{split}-{n}"
                rows.append({"id": name, "text": text, "label": label, "split": split})
                if split == "train" and dataset == "taught":
                    probs = [0.9 if one == label else 0.05 for one in WORDS]
                    given.append(json.dumps({"id": name, "set": dataset, "probs": probs}))
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{dataset}.parquet")
    labels.write_text("\n".join(given))
    return labels


@pytest.fixture(scope="module")
def run(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the JSON of one quick run."""
    folder = tmp_path_factory.mktemp("proof")
    labels = write_sets(folder)
    out = folder / "proof.json"
    where = ["--bundle", bundle, "--data", folder, "--pseudo", labels, "--out", out]
    bench.main([*map(str, where), "--quick", "--teacher-set", "taught"])
    return out


@pytest.fixture(scope="module")
def found(run: Path) -> Proof:
    """Return the run, read back."""
    return read_proof(run)


@pytest.mark.slow
def test_a_run_holds_every_contestant_with_raw_samples(found: Proof) -> None:
    """Student by every path, baselines, large model by two prompts: one time a round each."""
    paths = {(speed.kind, speed.path) for speed in found.speeds}
    assert {("student", path) for path in ("engine", "classify", "grpc", "score", "duel")} <= paths
    assert {one.name for one in found.speeds} >= {"TF-IDF", "tiny zero-shot", "tiny few-shot"}
    assert all(len(speed.seconds) == 2 for speed in found.speeds)
    assert all(speed.random_weights for speed in found.speeds if speed.kind == "large")


@pytest.mark.slow
def test_a_run_says_what_it_did_not_measure(found: Proof) -> None:
    """No GPU, no checkpoint, no endpoint: each is named."""
    told = " ".join(found.missing)
    assert all(word in told for word in ("GPU", "random", "endpoint"))


@pytest.mark.slow
def test_ratios_are_measured_and_carried_over_with_their_basis(found: Proof) -> None:
    """Two prompts, each measured, by operations, and against the machine's whole matrix rate."""
    assert len(found.ratios) == 6
    assert [ratio.basis for ratio in found.ratios].count("measured") == 2
    assert all(ratio.low <= ratio.value <= ratio.high for ratio in found.ratios)


@pytest.mark.slow
def test_the_teacher_is_judged_on_the_same_rows_as_the_student(found: Proof) -> None:
    """Every model has a line on the teacher's rows; the student of good and bad retains all."""
    rows = [one for one in found.qualities if one.dataset == "teacher's taught"]
    assert {one.name for one in rows if one.classes == 3} == {"student", "TF-IDF", "teacher"}
    assert {one.accuracy.rows for one in rows} == {20, 30}
    assert found.retained is not None
    assert found.retained.value == 1


@pytest.mark.slow
def test_a_record_has_neither_a_text_nor_a_place_of_this_machine(run: Path) -> None:
    """The JSON has figures and names alone."""
    assert "battery" not in run.read_text()
    assert str(run.parent) not in run.read_text()


class Page(HTMLParser):
    """Collects a page's cells."""

    def __init__(self) -> None:
        super().__init__()
        self.cells: set[str] = set()
        self._cell = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note where a cell begins."""
        self._cell = tag == "td"

    def handle_data(self, data: str) -> None:
        """Note a cell's text."""
        if self._cell:
            self.cells.add(data)
        self._cell = False


def shows(page: str, proof: Proof) -> bool:
    """Return whether every cell of every table of *proof* is on the page."""
    parsed = Page()
    parsed.feed(page)
    made = (ratio_table, speed_table, quality_table, cascade_table)
    cells = {cell for table in made for row in table(proof)[1] for cell in row if cell}
    return cells <= parsed.cells


@pytest.mark.slow
def test_page_readme_and_rate_come_from_the_json(run: Path, found: Proof, tmp_path: Path) -> None:
    """Each table cell is on the page, which fetches nothing and which opens in silence."""
    readme, page = tmp_path / "README.md", tmp_path / "proof.html"
    guide = tmp_path / "guide.md"
    guide.write_text("<!-- cost: made by it -->\n<!-- /cost -->\n")
    measured = tmp_path / "measured.json"
    readme.write_text("before\n<!-- proof: made by it -->\nold\n<!-- /proof -->\nafter\n")
    where = ["--out", page, "--results-page", readme, "--guide", guide, "--measured", measured]
    proof_page.main([str(run), *map(str, where)])
    text = page.read_text()
    assert shows(text, found)
    assert re.findall(r'(?:src|href)="(?!#|data:)', text) == []
    assert text.count("<svg") >= 10
    assert readme_part(found) in readme.read_text()
    assert cost_part(found, cost_of(found)) in guide.read_text()
    assert "old" not in readme.read_text()
    assert json.loads(measured.read_text())["assumed"] is False
    _, console = open_page(page, tmp_path / "profile")
    assert console == []


def test_a_readme_without_markers_is_refused() -> None:
    """The remedy is named."""
    with pytest.raises(SystemExit, match="markers"):
        regenerate("no markers\n", "made")


@pytest.mark.slow
def test_readme_guide_page_and_rate_are_those_of_the_committed_run() -> None:
    """They come out of the JSON again, to the letter."""
    readme = (ROOT / "docs/results.md").read_text(encoding="utf-8")
    page = COMMITTED.with_name("proof.html")
    measured = msgspec.json.decode(MEASURED.read_bytes(), type=Measured)
    proof = read_proof(COMMITTED)
    guide = (ROOT / "docs/when-to-use.md").read_text(encoding="utf-8")
    assert regenerate(readme, readme_part(proof)) == readme
    assert regenerate(guide, cost_part(proof, cost_of(proof)), "cost") == guide
    on_gpu = read_proof(COMMITTED.with_name("proof-gpu.json"))
    assert regenerate(readme, gpu_part(on_gpu), "gpu") == readme
    assert shows(page.read_text(encoding="utf-8"), on_gpu)
    assert measured == proof_page.measured_of(proof, COMMITTED)
    assert shows(page.read_text(encoding="utf-8"), proof)
    assert render([proof, on_gpu]).count("<svg") == page.read_text(encoding="utf-8").count("<svg")
