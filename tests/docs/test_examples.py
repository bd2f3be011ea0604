"""The examples run as they stand."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf import json_format

from live_server import live_server
from notebook import run_notebook
from repository import ROOT
from sentimill import Client
from sentimill.server.settings import Serve
from sentimill.v1 import sentiment_pb2 as pb

EXAMPLES = ROOT / "examples"


@pytest.fixture(scope="module")
def address(bundle: Path) -> Iterator[str]:
    """Return the address of a server."""
    with live_server(Serve(bundle=bundle, port=0, metrics_port=0, threads=1)) as serving:
        yield serving.address


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It scores, trains, compares and serves, and the server answers as the bundle does."""
    monkeypatch.chdir(tmp_path)
    names, shown = run_notebook(EXAMPLES / "reviews.ipynb")

    assert "MISSING_TEXT" in shown[0]
    compared = names["compared"]
    assert list(compared.index) == ["included model", "bundles/mine"]  # type: ignore[attr-defined] # a Series
    assert names["served"] == names["local"]


def test_a_file_is_classified_in_batches(tmp_path: Path, address: str) -> None:
    """One line of output for each line of input, errors in their places."""
    (tmp_path / "in.txt").write_text("good\n\nbad\n" * 300)
    done = subprocess.run(
        [sys.executable, EXAMPLES / "grpc_batch.py", address, tmp_path / "in.txt"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )

    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert [line[0] for line in lines] == ["positive", "", "negative"] * 300
    assert lines[1] == ["", "", "EMPTY_TEXT"]


def test_grpcurl_messages_are_those_of_the_contract(address: str) -> None:
    """The request on the page is valid, and the answer has the fields that the page shows."""
    page = (EXAMPLES / "grpcurl.md").read_text()
    request, response = re.findall(r"```json re\w+ sentimill[\w.]+\n(.*?)```", page, re.DOTALL)

    sent = json_format.Parse(request, pb.ClassifyRequest())
    shown = json_format.Parse(response, pb.ClassifyResponse())
    with Client(address) as client:
        got = client.classify([item.text for item in sent.items])

    assert len(got) == len(shown.results) == len(sent.items)
    assert json.loads(response)["results"][1]["error"]["message"] == str(got[1])
    for method in re.findall(r"sentimill\.v1\.SentimentService/(\w+)", page):
        assert method in pb.DESCRIPTOR.services_by_name["SentimentService"].methods_by_name
