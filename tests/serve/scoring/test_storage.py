"""Remote addresses that fsspec serves; tests/support/s3_moto.py does the same for S3."""

from __future__ import annotations

import io
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scoring_jobs import job
from sentimill.errors import TableError
from sentimill.scoring.scorers import LocalScorer

CSV = b"id,text\n" + b"".join(b"%d,%s\n" % (i, b"good" if i % 2 else b"bad") for i in range(50))


def test_any_fsspec_address_will_do(tmp_path: Path, scorer: LocalScorer) -> None:
    """Such as fsspec's own memory."""
    memory = fsspec.filesystem("memory")
    memory.pipe("/in.csv", CSV)

    job("memory://in.csv", "memory://out.csv", work=tmp_path / "work").run(scorer)

    assert memory.cat("/out.csv").splitlines()[1].startswith(b"0,bad,negative,")


def test_a_remote_parquet_file_gets_its_columns(tmp_path: Path, scorer: LocalScorer) -> None:
    """Its bytes are copied from where it is."""
    data = io.BytesIO()
    pq.write_table(pa.table({"text": ["good", "bad"], "n": [1, 2]}), data)
    fsspec.filesystem("memory").pipe("/in.parquet", data.getvalue())

    made = job("memory://in.parquet", "memory://out.parquet", work=tmp_path / "work")
    made.run(scorer)

    out = pq.read_table(io.BytesIO(fsspec.filesystem("memory").cat("/out.parquet")))
    assert out.select(["n", "sentiment_label"]).to_pylist() == [
        {"n": 1, "sentiment_label": "positive"},
        {"n": 2, "sentiment_label": "negative"},
    ]


def test_an_object_that_is_not_there_is_told(tmp_path: Path) -> None:
    """As a local file is."""
    with pytest.raises(TableError) as caught:
        job("memory://absent.csv", "memory://out2.csv", work=tmp_path).plan()

    assert caught.value.reason == "FILE_NOT_FOUND"
