"""The command line of `label`: options, exit codes, and what goes where."""

from __future__ import annotations

import json
import logging
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from labelling_runs import write_reviews
from repository import ROOT
from sentimill.errors import SomeRowsFailed, UsageError, outcome
from sentimill_train.cli.curate import curate
from sentimill_train.cli.label import label
from sentimill_train.cli.sample import sample
from sentimill_train.cli.train import train
from teacher_server import Behaviour, teacher_server

APP = typer.Typer()
APP.command()(label)
CURATE, SAMPLE, TRAIN = typer.Typer(), typer.Typer(), typer.Typer()
CURATE.command()(curate)
SAMPLE.command()(sample)
TRAIN.command()(train)


def call(*args: object) -> BaseException | None:
    """Call the command and return what it raised."""
    result = CliRunner().invoke(APP, [str(arg) for arg in args])
    return result.exception


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def test_labels_a_csv(tmp_path: Path) -> None:
    """From any column name, and without a key where the endpoint is one's own."""
    source = tmp_path / "reviews.csv"
    source.write_text("id,body\n1,A lovely lamp.\n2,Terrible service.\n", encoding="utf-8")
    with teacher_server() as server:
        error = call(
            source, tmp_path / "out.jsonl", "--teacher", f"openai:m@{server.url}", "--yes",
            "--budget", "none", "--text-column", "body",
        )  # fmt: skip
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]

    assert error is None
    assert [row["label"] for row in rows] == ["positive", "negative"]


def test_the_next_command_that_label_names_works(tmp_path: Path) -> None:
    """It has no option of the input's table, because the output is another, and the labels."""
    source = tmp_path / "my reviews.csv"
    source.write_text("id;body\n1;A lovely lamp.\n2;Terrible service.\n", encoding="utf-16")
    with teacher_server() as server:
        result = CliRunner().invoke(
            APP,
            [str(source), str(tmp_path / "my labels.jsonl"), "--teacher", f"openai:m@{server.url}",
             "--yes", "--budget", "none", "--text-column", "body", "--encoding", "utf-16",
             "--labels", "negative,positive"],
        )  # fmt: skip
    named = re.findall(r"next: sentimill curate (.*)", result.stderr)
    done = CliRunner().invoke(CURATE, shlex.split(named[0]))

    assert done.exit_code == 0, done.output
    assert (tmp_path / "my labels.curated.jsonl").exists()


def test_columns_of_the_input_are_kept_and_texts_joined(tmp_path: Path) -> None:
    """An id that is a number, stars, a country: whatever the rows came with, they go with."""
    source = tmp_path / "reviews.csv"
    source.write_text("id,title,body,rating,country\n17,Lovely,A lamp.,5,FR\n18,,Terrible,1,\n")
    with teacher_server() as server:
        error = call(
            source, tmp_path / "out.jsonl", "--teacher", f"openai:m@{server.url}", "--yes",
            "--budget", "none", "--text-column", "title", "--text-column", "body",
        )  # fmt: skip
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]

    assert error is None
    assert [(row["id"], row["rating"], row["country"]) for row in rows] == [
        ("17", "5", "FR"),
        ("18", "1", ""),
    ]
    assert [row["text"] for row in rows] == ["Lovely. A lamp.", "Terrible"]
    assert [row["label"] for row in rows] == ["positive", "negative"]


def test_requests_are_not_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A line a request would bury the live line and say nothing that the tally does not."""
    source = write_reviews(tmp_path / "in.jsonl", 5)
    with teacher_server() as server, caplog.at_level(logging.INFO):
        error = call(
            source, tmp_path / "out.jsonl", "--teacher", "openai:m", "--base-url", server.url,
            "--yes", "--budget", "none",
        )  # fmt: skip

    assert error is None
    assert [record.name for record in caplog.records if record.name.startswith("httpx")] == []


def test_cap_exits_with_3(tmp_path: Path) -> None:
    """As documented for jobs whose rows are not all done."""
    source = write_reviews(tmp_path / "in.jsonl", 50)
    with teacher_server() as server:
        error = call(
            source, tmp_path / "out.jsonl", "--teacher", "openai:m", "--base-url", server.url,
            "--yes", "--budget", "0.005", "--price-in", 1, "--price-out", 2,
        )  # fmt: skip

    assert isinstance(error, SomeRowsFailed)
    assert outcome(error).exit == 3


def test_nobody_agrees_without_a_terminal(tmp_path: Path) -> None:
    """A script must say `--yes`; nothing is sent before."""
    source = write_reviews(tmp_path / "in.jsonl", 5)
    with teacher_server() as server:
        error = call(
            source, tmp_path / "out.jsonl", "--teacher", f"openai:m@{server.url}",
            "--budget", "none",
        )  # fmt: skip

    assert isinstance(error, UsageError)
    assert "--yes" in str(error)
    assert server.count.calls == 0


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "--teacher"),
        (["--teacher", "openai:m"], "OPENAI_API_KEY"),
        (["--teacher", "anthropic:m"], "ANTHROPIC_API_KEY"),
        (["--teacher", "openai:m@http://127.0.0.1:1/v1"], "--price-in"),
        (["--teacher", "openai:m", "--budget", "lots"], "--budget"),
        (["--teacher", "openai:m", "--price-in", "1"], "together"),
        (
            ["--teacher", "openai:m@http://127.0.0.1:1/v1", "--labels", "x", "--budget", "none"],
            "label",
        ),
    ],
)
def test_bad_options_are_usage_errors(tmp_path: Path, args: list[str], said: str) -> None:
    """Exit code 2, with the remedy in the message, before any call."""
    source = write_reviews(tmp_path / "in.jsonl", 5)
    error: Any = call(source, tmp_path / "out.jsonl", "--yes", *args)

    assert isinstance(error, UsageError), error
    assert said in str(error)


def test_a_source_of_shares_that_there_is_not_is_refused(tmp_path: Path) -> None:
    """By the parser, with exit code 2 and the option's name."""
    args = ["r.csv", str(tmp_path / "o.jsonl"), "--teacher", "openai:m", "--soft", "guess"]
    result = CliRunner().invoke(APP, args)

    assert result.exit_code == 2
    assert "--soft" in result.output


def test_probe_prints_its_result_and_fails_a_gullible_teacher(tmp_path: Path) -> None:
    """JSON on stdout, exit code 3."""
    with teacher_server(Behaviour(gullible=True)) as server:
        result = CliRunner().invoke(
            APP,
            ["--probe-injection", "--teacher", f"openai:m@{server.url}", "--budget", "none",
             "--store", str(tmp_path / "probe.sqlite")],
        )  # fmt: skip

    assert isinstance(result.exception, SomeRowsFailed)
    assert json.loads(result.stdout)["cases"] == 60


def test_guide_names_only_options_that_there_are() -> None:
    """And leaves out none of `label` that costs money or keeps something private."""
    guide = (ROOT / "docs/labelling.md").read_text(encoding="utf-8")
    named = set(re.findall(r"--[a-z][a-z-]+", guide))
    commands = [typer.main.get_command(app) for app in (APP, CURATE, SAMPLE, TRAIN)]
    known = {name for command in commands for each in command.params for name in each.opts}

    assert named - known == set()
    assert {"--budget", "--price-in", "--batch", "--redact", "--probe-injection"} <= named
