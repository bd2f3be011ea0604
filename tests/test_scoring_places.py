"""Remote addresses: S3 as moto's server plays it, and fsspec's memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from jobs import job
from sentimill.errors import TableError, UsageError
from sentimill.scoring.scorers import LocalScorer
from sentimill.scoring.units import Layout

s3fs = pytest.importorskip("s3fs")
moto_server = pytest.importorskip("moto.server")

CSV = b"id,text\n" + b"".join(b"%d,%s\n" % (i, b"good" if i % 2 else b"bad") for i in range(50))


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """Start moto's S3 on a free port."""
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """Return S3 with an empty bucket called `box`, as the environment names it."""
    for name, value in {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    system = s3fs.S3FileSystem()
    system.mkdir("box")
    yield system
    system.rm("box", recursive=True)
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_pattern_of_objects_fills_a_prefix(
    bucket: s3fs.S3FileSystem, tmp_path: Path, scorer: LocalScorer
) -> None:
    """Each output appears whole; packed ones too."""
    bucket.pipe("box/in/a.csv", CSV)
    bucket.pipe("box/in/more/b.csv", CSV)

    made = job("s3://box/in/**/*.csv", "s3://box/out/", work=tmp_path / "work")
    summary = made.run(scorer)

    assert sorted(bucket.find("box/out")) == ["box/out/a.csv", "box/out/more/b.csv"]
    assert summary.rows == 100
    assert bucket.cat("box/out/a.csv").splitlines()[2].startswith(b"1,good,positive,")


def test_parquet_in_s3_is_read_where_it_is(
    bucket: s3fs.S3FileSystem, tmp_path: Path, scorer: LocalScorer
) -> None:
    """And written whole."""
    with bucket.open("box/in.parquet", "wb") as file:
        pq.write_table(pa.table({"text": ["good", "bad"] * 500}), file, row_group_size=300)

    job("s3://box/in.parquet", "s3://box/out.parquet", work=tmp_path / "work").run(scorer)

    with bucket.open("box/out.parquet") as file:
        found = pq.read_table(file)
    assert found["sentiment_label"].to_pylist() == ["positive", "negative"] * 500


def test_an_object_that_is_replaced_while_read_leaves_no_output(
    bucket: s3fs.S3FileSystem, tmp_path: Path, scorer: LocalScorer
) -> None:
    """Its tag has changed."""
    bucket.pipe("box/in.csv", CSV * 4)
    made = job(
        "s3://box/in.csv", "s3://box/out.csv", Layout(window_bytes=1000), work=tmp_path / "work"
    )

    with pytest.raises(TableError) as caught:
        made.run(scorer, report=lambda _: bucket.pipe("box/in.csv", CSV))

    assert caught.value.reason in ("INPUT_CHANGED", "UNREADABLE")
    assert not bucket.exists("box/out.csv")


def test_bad_rows_are_listed_beside_the_object(
    bucket: s3fs.S3FileSystem, tmp_path: Path, scorer: LocalScorer
) -> None:
    """And an output that is there is not replaced without leave."""
    bucket.pipe("box/in.csv", b"text\ngood\n''\n\"\"\n")
    made = job("s3://box/in.csv", "s3://box/out.csv", work=tmp_path / "work")
    made.run(scorer)

    with pytest.raises(UsageError, match="add --overwrite"):
        made.run(scorer)

    listed = bucket.cat("box/out.csv.errors.jsonl").splitlines()
    assert [json.loads(line)["line"] for line in listed] == [4]


def test_any_fsspec_address_will_do(tmp_path: Path, scorer: LocalScorer) -> None:
    """Such as fsspec's own memory."""
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe("/in.csv", CSV)

    job("memory://in.csv", "memory://out.csv", work=tmp_path / "work").run(scorer)

    assert memory.cat("/out.csv").splitlines()[1].startswith(b"0,bad,negative,")


def test_an_object_that_is_not_there_is_told(tmp_path: Path) -> None:
    """As a local file is."""
    with pytest.raises(TableError) as caught:
        job("memory://absent.csv", "memory://out2.csv", work=tmp_path).plan()

    assert caught.value.reason == "FILE_NOT_FOUND"
