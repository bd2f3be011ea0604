"""The command line: what it prints where, and how it exits."""

from __future__ import annotations

import tomllib
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from cli_in_process import Sentimill
from repository import ROOT
from sentimill.bundle.reader import open_bundle
from sentimill.cli.main import add_command
from sentimill.errors import UsageError


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (["classify", "good", "--bundle", "B", "--server", "S"], "either --bundle FOLDER or"),
        (["classify", "--bundle", "B"], "no text given"),
        (["--log-level", "loud", "doctor"], "unknown --log-level 'loud'"),
        (["score", "a.csv", "b.csv", "--bundle", "B", "--delimiter", ";;"], "--delimiter ';;'"),
        (
            ["score", "a.csv", "b.csv", "--bundle", "B", "--delimiter", '"'],
            "that can separate fields",
        ),
        (["score", "a.csv", "b.csv", "--bundle", "B", "--delimiter", "é"], "one ASCII character"),
    ],
)
def test_what_cannot_be_asked_is_a_usage_error(
    sentimill: Sentimill, args: list[str], why: str
) -> None:
    """Exit code 2, in one line that says what to do."""
    found = sentimill(*args)

    assert (found.code, found.out) == (2, "")
    assert why in found.error


@pytest.mark.parametrize(
    "args",
    [
        ["frobnicate"],
        ["classify", "good", "--colour"],
        ["serve", "B"],
        ["serve", "--bundle", "B", "--port", "65536"],
        ["serve", "--bundle", "B", "--metrics-port", "-1"],
        ["serve", "--bundle", "B", "--port", "http"],
        ["score"],
        ["score", "a.csv"],
        ["classify", "good", "--bundle", "B", "--precision", "int3"],
        ["classify", "good", "--bundle", "B", "--provider", "tpu"],
        ["classify", "good", "--bundle", "B", "--threads", "0"],
    ],
)
def test_what_the_parser_refuses_is_a_usage_error(sentimill: Sentimill, args: list[str]) -> None:
    """Exit code 2, and nothing on stdout."""
    found = sentimill(*args)

    assert (found.code, found.out) == (2, "")
    assert "Traceback" not in found.err


@pytest.mark.slow
def test_a_bundle_that_is_not_there_is_bad_input(sentimill: Sentimill, tmp_path: Path) -> None:
    """Exit code 4, in every command that takes one."""
    bundle = tmp_path / "absent"
    (tmp_path / "in.csv").write_bytes(b"text\n")
    commands: list[list[str | Path]] = [
        ["classify", "good", "--bundle", bundle],
        ["score", tmp_path / "in.csv", tmp_path / "out.csv", "--bundle", bundle],
        ["serve", "--port", "0", "--metrics-port", "0", "--bundle", bundle],
        ["bundle", "inspect", bundle],
        ["bundle", "verify", bundle],
        ["doctor", "--bundle", bundle],
    ]
    for args in commands:
        found = sentimill(*args)
        assert (found.code, found.out) == (4, "")
        assert "there is no such folder" in found.error


def test_a_precision_that_the_bundle_lacks_is_a_usage_error(
    sentimill: Sentimill, bundle: Path
) -> None:
    """Exit code 2: the parser knows the word and the bundle has no such graph."""
    found = sentimill("classify", "good", "--bundle", bundle, "--precision", "int8")

    assert (found.code, "it has fp32" in found.error) == (2, True)


def test_doctor_says_what_is_there(sentimill: Sentimill, bundle: Path) -> None:
    """Versions, providers and, where one is named, the bundle."""
    found = sentimill("doctor", "--bundle", bundle)

    assert found.code == 0
    assert "CPUExecutionProvider" in found.out
    assert open_bundle(bundle).digest in found.out


@pytest.mark.parametrize("args", [["--help"], ["-h"], ["score", "--help"], ["bundle", "-h"]])
def test_help_is_data(sentimill: Sentimill, args: list[str]) -> None:
    """It goes to stdout, so that it can be paged, and is no error."""
    found = sentimill(*args)

    assert (found.code, found.err) == (0, "")
    assert "Usage: sentimill" in found.out


def test_a_command_whose_extra_is_missing_says_so() -> None:
    """It does not stop the others, and names the remedy whatever its options."""
    group = typer.Typer()
    add_command(group, EntryPoint("sing", "no_such_module.cli:sing", "sentimill.commands"))
    add_command(group, EntryPoint("doctor", "sentimill.cli.doctor:doctor", "sentimill.commands"))

    found = CliRunner().invoke(group, ["sing", "--song", "x.txt"])

    assert isinstance(found.exception, UsageError)
    assert "pip install 'sentimill[cpu,train]'" in str(found.exception)
    assert CliRunner().invoke(group, ["doctor"]).exit_code == 0


def test_every_command_outside_the_run_time_is_installed_and_there() -> None:
    """What pyproject.toml names is what `sentimill` finds, and each is a command with its help."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    named = tomllib.loads(text)["project"]["entry-points"]["sentimill.commands"]
    found = {entry.name: entry for entry in entry_points(group="sentimill.commands")}
    group = typer.Typer()
    for entry in found.values():
        add_command(group, entry)

    assert {name: entry.value for name, entry in found.items()} == named
    for name in named:
        done = CliRunner().invoke(group, [name, "--help"])
        assert (done.exit_code, "is not available here" in done.output) == (0, False)
