"""The command line: what it prints where, and how it exits."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import msgspec
import pytest
import typer
from typer.testing import CliRunner

from cli_in_process import Run, Sentimill
from live_server import live_server
from repository import ROOT
from sentimill.bundle.manifest import Manifest, open_bundle
from sentimill.cli.main import add_command
from sentimill.errors import UsageError
from sentimill.server.lifecycle import Serve
from tiny_bundle import graph, write_tiny_bundle


def test_classify_prints_a_line_a_text(sentimill: Sentimill, bundle: Path) -> None:
    """Label, score, confidence and text, in order, on stdout."""
    found = sentimill("classify", "good battery", "bad\tthe", "--bundle", bundle)

    assert found == Run(
        0, "positive\t+0.80\t0.84\tgood battery\nnegative\t-0.80\t0.84\tbad the\n", ""
    )


def test_classify_prints_json(sentimill: Sentimill, bundle: Path) -> None:
    """One object a line with every field of a prediction, but for who answered."""
    found = sentimill("classify", "good", "", "--bundle", bundle, "--json")
    good, empty = [json.loads(line) for line in found.out.splitlines()]

    assert good.keys() == {
        "text", "label", "probs", "score", "confidence", "abstained", "truncated", "tokens",
    }  # fmt: skip
    assert (good["text"], good["label"]) == ("good", "positive")
    assert empty.keys() == {"text", "error", "message"}
    assert (found.code, empty["error"]) == (3, "EMPTY_TEXT")


@pytest.mark.parametrize("dash", [(), ("-",)])
def test_classify_reads_the_lines_of_stdin(
    sentimill: Sentimill, bundle: Path, dash: tuple[str, ...]
) -> None:
    """CRLF, a byte-order mark and a last line without its end are fine."""
    found = sentimill("classify", *dash, "--bundle", bundle, stdin=b"\xef\xbb\xbfgood\r\nbad\nthe")

    assert [line.split("\t")[0] for line in found.out.splitlines()] == [
        "positive", "negative", "neutral",
    ]  # fmt: skip
    assert found.code == 0


def test_classify_reports_bad_lines_and_goes_on(sentimill: Sentimill, bundle: Path) -> None:
    """Blank lines and invalid UTF-8 get an error each, and the exit code says that some failed."""
    found = sentimill("classify", "--bundle", bundle, stdin=b"good\n\ncaf\xe9\n\x00\nbad\n")

    assert [line.split("\t")[:2] for line in found.out.splitlines()] == [
        ["positive", "+0.80"],
        ["error", "EMPTY_TEXT"],
        ["error", "INVALID_UNICODE"],
        ["error", "EMPTY_TEXT"],
        ["negative", "-0.80"],
    ]
    assert (found.code, found.error) == (3, "3 texts have no answer")


def test_classify_keeps_every_script(sentimill: Sentimill, bundle: Path) -> None:
    """Emoji and right-to-left text come out as they went in."""
    text = "👍🏽 رائع good"

    assert sentimill("classify", text, "--bundle", bundle).out.endswith(f"\t{text}\n")


def test_classify_sends_no_escape_sequence_to_the_terminal(
    sentimill: Sentimill, bundle: Path
) -> None:
    """What a text could do to a terminal is left out of the plain lines; JSON escapes it."""
    plain = sentimill("classify", "good \x1b[2Jbattery\x07", "--bundle", bundle)

    assert plain.out.endswith("\tgood [2Jbattery\n")


def test_classify_of_nothing_prints_nothing(sentimill: Sentimill, bundle: Path) -> None:
    """An empty stdin is no error."""
    assert sentimill("classify", "--bundle", bundle, stdin=b"") == Run(0, "", "")


def test_classify_asks_a_server(sentimill: Sentimill, bundle: Path) -> None:
    """With --server no bundle is needed, and the answers are the same."""
    with live_server(Serve(bundle=bundle, port=0, metrics_port=0)) as serving:
        asked = sentimill("classify", "good", "", "--server", serving.address)
    loaded = sentimill("classify", "good", "", "--bundle", bundle)

    assert (asked.code, asked.out) == (loaded.code, loaded.out)
    assert asked.code == 3


def test_a_server_that_is_not_there_is_a_failure(sentimill: Sentimill) -> None:
    """Exit code 1, in one line."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

    found = sentimill("classify", "good", "--server", f"127.0.0.1:{port}")

    assert found.code == 1
    assert str(port) in found.error


def test_an_engine_that_fails_is_a_failure(sentimill: Sentimill, tmp_path: Path) -> None:
    """Exit code 1: neither the call nor the text was wrong."""
    made = write_tiny_bundle(tmp_path / "tiny", model=graph(fail_on="poison"))

    assert sentimill("classify", "poison", "--bundle", made.path).code == 1


def test_a_server_goes_before_a_bundle_of_the_environment(
    sentimill: Sentimill, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person who set SENTIMILL_BUNDLE for good can still ask a server."""
    monkeypatch.setenv("SENTIMILL_BUNDLE", "absent")
    with live_server(Serve(bundle=bundle, port=0, metrics_port=0)) as serving:
        found = sentimill("classify", "good", "--server", serving.address)

    assert (found.code, found.out[:8]) == (0, "positive")


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (["classify", "good", "--bundle", "B", "--server", "S"], "either --bundle FOLDER or"),
        (["classify", "--bundle", "B"], "no text given"),
        (["--log-level", "loud", "doctor"], "unknown --log-level 'loud'"),
        (["score", "a.csv", "b.csv", "--bundle", "B", "--delimiter", ";;"], "--delimiter ';;'"),
        (["score", "a.csv", "b.csv", "--bundle", "B", "--delimiter", '"'], "that can part fields"),
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


def test_inspect_shows_the_manifest(sentimill: Sentimill, bundle: Path) -> None:
    """Name, digest, labels and size, a line each."""
    found = sentimill("bundle", "inspect", bundle)
    lines = dict(line.split(maxsplit=1) for line in found.out.splitlines())

    assert (found.code, lines["name"]) == (0, "tiny")
    assert lines["digest"] == open_bundle(bundle).digest
    assert lines["labels"] == "negative, neutral, positive"


def test_inspect_prints_json(sentimill: Sentimill, bundle: Path) -> None:
    """The manifest and its digest, for programs."""
    found = json.loads(sentimill("bundle", "inspect", bundle, "--json").out)

    assert (found["name"], found["schema_version"]) == ("tiny", 1)
    assert found["digest"] == open_bundle(bundle).digest


def test_verify_says_what_it_checked(sentimill: Sentimill, bundle: Path) -> None:
    """Files, golden texts and the digest."""
    found = sentimill("bundle", "verify", bundle)

    assert found.code == 0
    assert "fp32: golden texts give the same probs on cpu" in found.out
    assert f"ok: 2 files, digest {open_bundle(bundle).digest}" in found.out


def test_verify_refuses_a_file_with_another_hash(sentimill: Sentimill, tmp_path: Path) -> None:
    """Exit code 4, and no `ok`."""
    made = write_tiny_bundle(tmp_path / "tiny")
    (made.path / "tokenizer.json").write_bytes(b"{}")

    found = sentimill("bundle", "verify", made.path)

    assert (found.code, found.out) == (4, "")
    assert "tokenizer.json has 2 bytes" in found.error


def test_verify_says_which_precisions_it_cannot_replay(
    sentimill: Sentimill, tmp_path: Path
) -> None:
    """A later exporter may name one that this program does not know."""

    def rename(manifest: Manifest) -> Manifest:
        precisions = {"int4": manifest.precisions["fp32"]}
        return msgspec.structs.replace(manifest, precisions=precisions)

    made = write_tiny_bundle(tmp_path / "tiny", change=rename)

    found = sentimill("bundle", "verify", made.path)

    assert found.code == 0
    assert "int4: not replayed, unknown precision 'int4'" in found.out


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
    add_command(group, EntryPoint("doctor", "sentimill.cli.main:doctor", "sentimill.commands"))

    found = CliRunner().invoke(group, ["sing", "--song", "x.txt"])

    assert isinstance(found.exception, UsageError)
    assert "pip install 'sentimill[train]'" in str(found.exception)
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
        assert (done.exit_code, "is not to be had here" in done.output) == (0, False)


def test_a_reader_who_stops_reading_gets_no_trace(bundle: Path) -> None:
    """`sentimill classify | head -1` ends in silence."""
    run = "from sentimill.cli.main import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", run, "classify", "--bundle", bundle],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        process.stdout = None
        _, err = process.communicate(b"good\n" * 20_000, timeout=60)

    assert err == b""
