"""Scoring on a local Ray of two CPUs, and what a lost worker costs."""

from __future__ import annotations

import gzip
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scoring_jobs import job
from sentimill.classifier import Classifier
from sentimill.errors import SentimillError, TableError, UsageError
from sentimill.scoring import ray_runner as adapter
from sentimill.scoring.job import Score
from sentimill.scoring.ray_runner import AnswerBatches, Cluster, run_on_ray
from sentimill.scoring.scorers import LocalScorer
from tiny_index import REVIEWS, write_index, write_state_bundle

ray = pytest.importorskip("ray")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(240),
    # Ray's own: it leaves sockets and subprocesses to its shutdown, and warns of its plans.
    pytest.mark.filterwarnings("ignore"),
]
FILES = 6
ROWS = 200


@pytest.fixture(scope="module")
def _cluster() -> Iterator[None]:
    """Start Ray with two CPUs, and take back its handler for SIGTERM and its variables."""
    before = signal.getsignal(signal.SIGTERM)
    with patch.dict(os.environ):
        ray.init(
            num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=80 << 20
        )
        yield
        ray.shutdown()
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    """Return a folder of files of both formats."""
    folder = tmp_path / "in"
    folder.mkdir()
    for k in range(FILES):
        texts = ["good" if (i + k) % 3 else "bad" for i in range(ROWS)]
        table = pa.table({"id": range(ROWS), "text": texts})
        if k % 2:
            pq.write_table(table, folder / f"{k}.parquet")
        else:
            rows = "".join(f"{i},{text}\n" for i, text in enumerate(texts))
            (folder / f"{k}.csv").write_text("id,text\n" + rows)
    return folder


@pytest.mark.slow
@pytest.mark.usefixtures("_cluster")
def test_ray_writes_the_same_bytes(
    tmp_path: Path, inputs: Path, bundle: Path, scorer: LocalScorer
) -> None:
    """As a job on one machine, for every file."""
    here, there = (job(f"{inputs}/*", f"{tmp_path}/{name}/", probs=True) for name in ("a", "b"))
    local = here.run(scorer)

    summary = run_on_ray(there, Cluster(bundle=bundle, actors=2, threads=1))

    assert summary.counts.rows == local.counts.rows == FILES * ROWS
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == names
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.slow
@pytest.mark.usefixtures("_cluster")
def test_a_killed_worker_loses_and_doubles_nothing(
    tmp_path: Path, inputs: Path, bundle: Path, scorer: LocalScorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file goes to another, and the outputs are those of a quiet run."""
    mark = tmp_path / "died"
    job(f"{inputs}/*", f"{tmp_path}/a/").run(scorer)

    class DiesOnce(adapter._Units):
        """Kills its own process in the middle of one file, once."""

        def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
            if row["number"] == 3 and not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return super().__call__(row)

    monkeypatch.setattr(adapter, "_Units", DiesOnce)
    summary = run_on_ray(
        job(f"{inputs}/*", f"{tmp_path}/b/"), Cluster(bundle=bundle, actors=2, threads=1)
    )

    assert mark.exists()
    assert summary.rows == FILES * ROWS
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


@pytest.mark.usefixtures("_cluster")
def test_a_file_that_kills_every_worker_is_not_tried_for_ever(
    tmp_path: Path, inputs: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as one that needs more memory than there is: the job ends and says so."""
    tries = tmp_path / "tries"

    class Dies(adapter._Units):
        """Kills its own process at each file."""

        def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
            with tries.open("a") as file:
                file.write("x")
            os.kill(os.getpid(), signal.SIGKILL)
            return row

    monkeypatch.setattr(adapter, "_Units", Dies)
    with pytest.raises(SentimillError, match="give actors more memory") as caught:
        run_on_ray(job(inputs / "0.csv", tmp_path / "out.csv"), Cluster(bundle=bundle, threads=1))

    assert caught.value.reason == "WORKER_LOST"
    assert len(tries.read_text()) == 1 + adapter._RETRIES
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.usefixtures("_cluster")
def test_an_actor_starts_threads_for_its_own_cpus(bundle: Path) -> None:
    """And not for all cores of its machine, where other actors run too."""

    class Threads(AnswerBatches):
        """Tells how many threads its engine has."""

        def __call__(self, batch: pa.Table) -> pa.Table:
            return pa.table({"threads": [self._scorer._classifier.engine.info.threads]})

    dataset = ray.data.from_arrow(pa.table({"text": ["good"]})).map_batches(
        Threads,
        fn_constructor_kwargs={"bundle": str(bundle)},
        batch_format="pyarrow",
        concurrency=1,
        num_cpus=1,
    )

    assert dataset.take_all() == [{"threads": 1}]


@pytest.mark.slow
@pytest.mark.usefixtures("_cluster")
def test_a_bad_file_fails_once_the_others_are_done(
    tmp_path: Path, inputs: Path, bundle: Path
) -> None:
    """And the next run does only what is left."""
    bad = inputs / "0.csv.gz"
    # Longer than what is read of it to see its header.
    whole = gzip.compress(b"text\n" + (b"good " * 4000 + b"\n") * ROWS)
    bad.write_bytes(whole[:-9])
    made = job(f"{inputs}/*", f"{tmp_path}/out/")

    with pytest.raises(TableError) as caught:
        run_on_ray(made, Cluster(bundle=bundle, actors=2, threads=1))
    bad.write_bytes(whole)
    summary = run_on_ray(made, Cluster(bundle=bundle, actors=2, threads=1))

    assert caught.value.reason == "TRUNCATED"
    assert (summary.rows, summary.resumed_rows) == ((FILES + 1) * ROWS, FILES * ROWS)


@pytest.mark.slow
@pytest.mark.usefixtures("_cluster")
def test_a_dataset_gets_the_same_probs(bundle: Path) -> None:
    """In a pipeline of one's own, bit for bit."""
    texts = ["good", "bad bad", "fine", "good " * 30] * 20
    kind = {"bundle": str(bundle), "probs": True, "threads": 1}
    dataset = ray.data.from_arrow(pa.table({"id": range(80), "text": texts})).map_batches(
        AnswerBatches,
        fn_constructor_kwargs=kind,
        batch_format="pyarrow",
        batch_size=7,
        concurrency=1,
    )
    rows = sorted(dataset.take_all(), key=lambda row: row["id"])
    expected = Classifier.load(bundle, threads=1).classify(texts)

    names = [f"sentiment_prob_{label}" for label in ("negative", "neutral", "positive")]
    assert [tuple(row[name] for name in names) for row in rows] == [one.probs for one in expected]  # type: ignore[union-attr]  # no text here is bad


def test_streams_are_refused(bundle: Path) -> None:
    """A cluster reads and writes files."""
    with pytest.raises(UsageError, match="files"):
        run_on_ray(job("-", "out.csv", kind="csv"), Cluster(bundle=bundle))


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Cluster]:
    """Return what is sent to Ray; no actor starts, and each job is interrupted."""
    found: list[Cluster] = []

    def interrupted(_ray: Any, _waiting: Any, _job: Any, cluster: Cluster) -> Iterator[Any]:
        found.append(cluster)
        raise SentimillError("killed", reason="WORKER_LOST")

    monkeypatch.setattr(adapter, "_outcomes", interrupted)
    return found


def reason_of(made: Score, cluster: Cluster) -> str:
    """Return why a run on Ray ends."""
    with pytest.raises(SentimillError) as caught:
        run_on_ray(made, cluster)
    return caught.value.reason


def test_folders_mean_the_same_on_a_worker(
    tmp_path: Path, inputs: Path, sent: list[Cluster], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker has another working directory, so it gets absolute paths."""
    write_index(tmp_path / "mine.index", write_state_bundle(tmp_path / "bundle"))
    monkeypatch.chdir(tmp_path)
    cluster = Cluster(bundle=Path("bundle"), index=Path("mine.index"))

    assert reason_of(job(inputs / "0.csv", "out.csv"), cluster) == "WORKER_LOST"

    assert (sent[0].bundle, sent[0].index) == (tmp_path / "bundle", tmp_path / "mine.index")


@pytest.mark.parametrize(("name", "loaded"), [("@v2", "@v2"), ("", "@tiny")])
def test_a_bundle_on_the_hub_is_loaded_by_each_worker(
    name: str,
    loaded: str,
    tmp_path: Path,
    inputs: Path,
    bundle: Path,
    sent: list[Cluster],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By its name, and at the revision of the driver, whose cache names the folder by it."""
    named = Path(f"hub:me/mine{name}")
    monkeypatch.setattr(adapter, "find_bundle", {named: bundle}.__getitem__)
    cluster = Cluster(bundle=named)

    assert reason_of(job(inputs / "0.csv", tmp_path / "out.csv"), cluster) == "WORKER_LOST"

    assert str(sent[0].bundle) == f"hub:me/mine{loaded}"


@pytest.mark.usefixtures("sent")
def test_a_job_is_not_continued_with_other_answers(tmp_path: Path, inputs: Path) -> None:
    """Files with another index or without language detection would be mixed with those done."""
    model = write_state_bundle(tmp_path / "bundle", languages=("en",))
    index = write_index(tmp_path / "one.index", model)
    other = write_index(tmp_path / "two.index", model, REVIEWS[:5])
    made = job(inputs / "0.csv", tmp_path / "out.csv", neighbours=2)
    begun = Cluster(bundle=model, index=index)

    assert reason_of(made, begun) == "WORKER_LOST"
    assert reason_of(made, replace(begun, index=other)) == "ENGINE_CHANGED"
    assert reason_of(made, replace(begun, detect_language=False)) == "ENGINE_CHANGED"
    assert reason_of(made, begun) == "WORKER_LOST"
