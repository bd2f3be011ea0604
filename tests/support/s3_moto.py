"""S3 as moto's server plays it. tests/support/s3.sh starts that server and runs this file.

moto's client library cannot be installed beside ours: it wants an older python-dateutil. So the
server has an environment of its own, and what is tested here is what a user has.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow.fs import FileSelector, FileSystem

from scoring_jobs import job
from sentimill.errors import TableError, UsageError
from sentimill.scoring.formats.table import Layout
from sentimill.scoring.scorers import LocalScorer

CSV = b"id,text\n" + b"".join(b"%d,%s\n" % (i, b"good" if i % 2 else b"bad") for i in range(50))


class Box:
    """A bucket of that name, empty at first."""

    def __init__(self) -> None:
        rights = "allow_bucket_creation=true&allow_bucket_deletion=true"
        self._store, _ = FileSystem.from_uri(f"s3://box?{rights}")
        self._store.create_dir("box")

    def put(self, name: str, data: bytes) -> None:
        """Write an object."""
        with self._store.open_output_stream(f"box/{name}") as file:
            file.write(data)

    def get(self, name: str) -> bytes:
        """Return the bytes of an object."""
        with self._store.open_input_stream(f"box/{name}") as file:
            return bytes(file.read())

    def names(self) -> list[str]:
        """Return the objects and folders that are there."""
        found = self._store.get_file_info(FileSelector("box", recursive=True))
        return sorted(one.path for one in found if one.is_file)

    def remove(self) -> None:
        """Remove everything."""
        self._store.delete_dir("box")


@pytest.fixture
def box() -> Iterator[Box]:
    """Return an empty bucket."""
    made = Box()
    yield made
    made.remove()


def test_a_pattern_of_objects_fills_a_prefix(box: Box, tmp_path: Path, scorer: LocalScorer) -> None:
    """Each output appears whole; packed ones too."""
    box.put("in/a.csv", CSV)
    box.put("in/more/b.csv", CSV)

    made = job("s3://box/in/**/*.csv", "s3://box/out/", work=tmp_path / "work")
    summary = made.run(scorer)

    assert [name for name in box.names() if "/out/" in name] == [
        "box/out/a.csv",
        "box/out/more/b.csv",
    ]
    assert summary.rows == 100
    assert box.get("out/a.csv").splitlines()[2].startswith(b"1,good,positive,")


def test_parquet_in_s3_is_read_where_it_is(box: Box, tmp_path: Path, scorer: LocalScorer) -> None:
    """And written whole."""
    made = io.BytesIO()
    pq.write_table(pa.table({"text": ["good", "bad"] * 500}), made, row_group_size=300)
    box.put("in.parquet", made.getvalue())

    job("s3://box/in.parquet", "s3://box/out.parquet", work=tmp_path / "work").run(scorer)

    found = pq.read_table(io.BytesIO(box.get("out.parquet")))
    assert found["sentiment_label"].to_pylist() == ["positive", "negative"] * 500


def test_an_object_that_is_replaced_while_read_leaves_no_output(
    box: Box, tmp_path: Path, scorer: LocalScorer
) -> None:
    """Its tag has changed."""
    box.put("in.csv", CSV * 4)
    made = job(
        "s3://box/in.csv", "s3://box/out.csv", Layout(window_bytes=1000), work=tmp_path / "work"
    )

    with pytest.raises(TableError) as caught:
        made.run(scorer, report=lambda _: box.put("in.csv", CSV))

    assert caught.value.reason in ("INPUT_CHANGED", "UNREADABLE")
    assert box.names() == ["box/in.csv"]


def test_bad_rows_are_listed_beside_the_object(
    box: Box, tmp_path: Path, scorer: LocalScorer
) -> None:
    """And an output that is there is not replaced without leave."""
    box.put("in.csv", b"text\ngood\n''\n\"\"\n")
    made = job("s3://box/in.csv", "s3://box/out.csv", work=tmp_path / "work")
    made.run(scorer)

    with pytest.raises(UsageError, match="add --overwrite"):
        made.run(scorer)

    listed = box.get("out.csv.errors.jsonl").splitlines()
    assert [json.loads(line)["line"] for line in listed] == [4]
