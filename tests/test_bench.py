"""The whole proof on a tiny bundle, a tiny decoder and sentences of our own: run, page, README."""

from __future__ import annotations

import json
import random
import re
from html.parser import HTMLParser
from pathlib import Path

import bench
import page
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from record import Proof, read_proof
from reviews import QUALITY_SETS, SPEED_SETS
from tables import quality_table, ratio_table, readme_part, regenerate, speed_table

pytestmark = pytest.mark.slow

WORDS = {"negative": "bad", "neutral": "fine", "positive": "good"}


def write_sets(folder: Path) -> Path:
    """Write every set that a run reads, with 30 rows a split, and the teacher's labels."""
    draw = random.Random(0)
    labels = folder / "labels.jsonl"
    given: list[str] = []
    for dataset in sorted({*QUALITY_SETS, *SPEED_SETS}):
        rows = []
        for split in ("train", "test"):
            for n in range(30):
                label = list(WORDS)[n % 3]
                text = f"the battery {WORDS[label]} " * draw.randint(1, 4)
                name = f"{dataset}-{split}-{n}"
                rows.append({"id": name, "text": text, "label": label, "split": split})
                if split == "train" and n < 10:
                    probs = [0.9 if one == label else 0.05 for one in WORDS]
                    given.append(
                        json.dumps({"id": name, "set": dataset, "probs": probs, "part": 8})
                    )
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{dataset}.parquet")
    labels.write_text("\n".join(given))
    return labels


@pytest.fixture(scope="module")
def run(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the JSON of one run."""
    folder = tmp_path_factory.mktemp("proof")
    labels = write_sets(folder)
    out = folder / "proof.json"
    small = "--reviews 16 --large-reviews 3 --rounds 2 --shape tiny --training-cap 20"
    more = "--judged-cap 12 --point-seconds 0.01 --teacher-parts 8"
    where = ["--bundle", bundle, "--data", folder, "--pseudo", labels, "--out", out]
    bench.main([*map(str, where), *small.split(), *more.split()])
    return out


@pytest.fixture(scope="module")
def proof(run: Path) -> Proof:
    """Return the run, read back."""
    return read_proof(run)


def test_a_run_holds_every_contestant_with_raw_samples(proof: Proof) -> None:
    """Student by four paths, baselines, large model by two prompts: one time a round each."""
    paths = {(speed.kind, speed.path) for speed in proof.speeds}
    assert {("student", path) for path in ("engine", "classify", "grpc", "score", "duel")} <= paths
    assert {speed.name for speed in proof.speeds} >= {"TF-IDF", "tiny zero-shot", "tiny few-shot"}
    assert all(len(speed.seconds) == 2 for speed in proof.speeds)
    assert all(speed.random_weights for speed in proof.speeds if speed.kind == "large")


def test_a_run_says_what_it_did_not_measure(proof: Proof) -> None:
    """No GPU, no checkpoint, no endpoint: each is named."""
    told = " ".join(proof.missing)
    assert "GPU" in told
    assert "random" in told
    assert "endpoint" in told


def test_ratios_are_measured_and_carried_over_with_their_basis(proof: Proof) -> None:
    """Two prompts, each measured, by operations, and against the machine's whole matrix rate."""
    assert len(proof.ratios) == 6
    assert [r.basis for r in proof.ratios].count("measured") == 2
    assert all(r.low <= r.value <= r.high for r in proof.ratios)


def test_the_teacher_is_judged_on_the_same_rows_as_the_student(proof: Proof) -> None:
    """Every model has a line on the teacher's rows, with as many rows."""
    rows = [row for row in proof.qualities if row.dataset == "teacher's rows" and row.classes == 3]
    assert {"student", "TF-IDF", "teacher (frontier)"} <= {row.name for row in rows}
    assert len({row.rows for row in rows}) == 1


def test_no_text_of_a_review_is_in_the_record(run: Path) -> None:
    """The JSON has figures and names alone."""
    assert "battery" not in run.read_text()


class Page(HTMLParser):
    """Collects a page's cells, and whatever would make it fetch or run something."""

    def __init__(self) -> None:
        super().__init__()
        self.cells: set[str] = set()
        self.outside: list[str] = []
        self._cell = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note scripts and links."""
        self._cell = tag == "td"
        if tag in {"script", "iframe", "img"}:
            self.outside.append(tag)
        for name, value in attrs:
            outside = not (value or "").startswith(("#", "data:"))
            if name in {"src", "href", "xlink:href"} and outside:
                self.outside.append(f"{name}={value}")

    def handle_data(self, data: str) -> None:
        """Note a cell's text."""
        if self._cell:
            self.cells.add(data)
        self._cell = False


def test_the_page_shows_every_figure_of_the_json_and_fetches_nothing(
    run: Path, proof: Proof, tmp_path: Path
) -> None:
    """Each table cell computed from the JSON is on the page; no script, no outside address."""
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- proof: made by it -->\nold\n<!-- /proof -->\nafter\n")
    page.main([str(run), "--out", str(tmp_path / "proof.html"), "--readme", str(readme)])
    parsed = Page()
    parsed.feed((tmp_path / "proof.html").read_text())
    for heads, rows in (ratio_table(proof), speed_table(proof), quality_table(proof)):
        assert heads
        assert {cell for row in rows for cell in row if cell} <= parsed.cells
    assert parsed.outside == []
    assert readme_part(proof) in readme.read_text()
    assert "old" not in readme.read_text()


def test_a_readme_without_markers_is_left_alone(tmp_path: Path) -> None:
    """The remedy is named and nothing is written."""
    readme = tmp_path / "README.md"
    readme.write_text("no markers\n")
    with pytest.raises(SystemExit, match="markers"):
        regenerate(readme, "proof", "made")
    assert readme.read_text() == "no markers\n"


ROOT = Path(__file__).parents[1]
COMMITTED = ROOT / "benchmarks" / "results" / "proof-cpu.json"


@pytest.mark.skipif(not COMMITTED.is_file(), reason="no committed run yet")
def test_readme_and_committed_page_are_those_of_the_committed_run() -> None:
    """Both come out of the JSON again, byte by byte of what is between the markers."""
    found = read_proof(COMMITTED)
    text = (ROOT / "README.md").read_text()
    part = re.search(r"<!-- proof:[^>]*-->\n(.*?)<!-- /proof -->", text, re.DOTALL)
    assert part is not None
    assert part[1].strip() == readme_part(found).strip()
    shown = (COMMITTED.parent / "proof.html").read_text()
    assert found.commit in shown
