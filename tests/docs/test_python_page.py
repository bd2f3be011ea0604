"""docs/python.md: its programs run, and print what the page shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from live_server import live_server
from repository import ROOT
from run_docs import blocks
from sentimill import AsyncClient, Client, Prediction
from sentimill.server.settings import Serve

PAGE = ROOT / "docs/python.md"


def test_the_programs_print_what_the_page_shows(capsys: pytest.CaptureFixture[str]) -> None:
    """Each output stands, indented, below its program."""
    text = PAGE.read_text(encoding="utf-8")
    shown = re.findall(r"^```\n\n((?:    .*\n)+)", text, re.MULTILINE)
    programs = blocks(PAGE, "python")
    assert len(shown) == 2

    for program, expected in zip(programs, [*shown, None], strict=True):
        exec(program, {})
        printed = capsys.readouterr().out
        if expected is not None:
            assert printed.split() == expected.split()
        else:
            assert "'label': 'positive'" in printed


def test_the_client_programs_run(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against a server; the secured client is only made."""
    monkeypatch.chdir(tmp_path)
    for name in ("ca.pem", "web.token"):
        Path(name).write_text("x")
    with live_server(Serve(bundle=bundle, port=0, metrics_port=0, threads=1)) as serving:
        names: dict[str, object] = {"my_large_model": lambda text: (0.0, 0.0, 1.0)}
        for program in blocks(PAGE, "py"):
            exec(program.replace("127.0.0.1:50051", serving.address), names)
        client = names["client"]
        assert isinstance(client, Client)
        (answer,) = client.classify(["the battery"])
        assert isinstance(answer, Prediction)
        assert answer.answered_by == "large"
        client.close()


def test_the_page_names_every_field_and_reason() -> None:
    """A field that is added is described."""
    page = PAGE.read_text(encoding="utf-8")

    assert [name for name in Prediction.__dataclass_fields__ if f"`{name}`" not in page] == []
    for name in ("classify", "model"):
        assert hasattr(AsyncClient, name)
