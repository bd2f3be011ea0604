"""`sentimill classify`: what it prints for texts and for lines of stdin."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from cli_in_process import Run, Sentimill
from live_server import live_server
from sentimill.server.settings import Serve
from tiny_bundle import graph, write_tiny_bundle


def test_classify_prints_a_line_a_text(sentimill: Sentimill, bundle: Path) -> None:
    """Label, score, confidence and text, in order, on stdout."""
    found = sentimill("classify", "good battery", "bad\tthe", "--bundle", bundle)

    assert found == Run(
        0, "positive\t+0.80\t0.84\tgood battery\nnegative\t-0.80\t0.84\tbad the\n", ""
    )


def test_classify_prints_json(sentimill: Sentimill, bundle: Path) -> None:
    """One object a line with the fields of a prediction that differ from text to text."""
    found = sentimill("classify", "good", "", "--bundle", bundle, "--json")
    good, empty = [json.loads(line) for line in found.out.splitlines()]

    assert good.keys() == {
        "text", "label", "probs", "score", "confidence", "abstained", "abstain_reason", "truncated",
        "tokens",
    }  # fmt: skip
    assert (good["text"], good["label"]) == ("good", "positive")
    assert good["probs"].keys() == {"negative", "neutral", "positive"}
    assert empty.keys() == {"text", "error", "message"}
    assert (found.code, empty["error"]) == (3, "EMPTY_TEXT")


def test_the_name_of_a_file_is_told_to_be_one(
    sentimill: Sentimill, bundle: Path, tmp_path: Path
) -> None:
    """Its name is a text like any other, but whoever gives it means what is in the file."""
    file = tmp_path / "my good reviews.csv"
    file.write_text("text\nbad\n")
    found = sentimill("classify", file, "good\0", "bad" * 9999, "--bundle", bundle)

    assert (found.code, found.out.count("\n")) == (0, 3)
    assert found.err.count("is a file") == 1
    assert f"`sentimill score '{file}' OUTPUT`" in found.err


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
    assert (found.code, found.error) == (3, "no answer for 3 of 5 texts")


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


def test_a_bundle_goes_before_a_server_of_the_environment(
    sentimill: Sentimill, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person who set a server for good can still ask a bundle; nobody listens on port 1."""
    monkeypatch.setenv("SENTIMILL_CLASSIFY_SERVER", "127.0.0.1:1")
    found = sentimill("classify", "good", "--bundle", bundle)

    assert (found.code, found.out[:8]) == (0, "positive")


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


def test_classify_in_a_terminal_prints_a_table(
    sentimill: Sentimill, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A header, aligned columns, and a mark on answers below the threshold, which is explained."""
    made = write_tiny_bundle(tmp_path / "tiny", threshold=0.9)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)

    found = sentimill("classify", "good battery", "", "bad", "--bundle", made.path)

    assert found.out.splitlines() == [
        "label      score  confidence  text",
        "positive?  +0.80        0.84  good battery",
        "error      EMPTY_TEXT         ",
        "negative?  -0.80        0.84  bad",
    ]
    assert "? marks a guess: low confidence" in found.err


def test_without_cuda_the_provider_is_named_as_the_cause(sentimill: Sentimill) -> None:
    """Also for a bundle that has no precision for CUDA: another precision would not help."""
    found = sentimill("classify", "good", "--provider", "cuda")

    assert (found.code, found.out) == (2, "")
    assert found.error.startswith("CUDA is not available")
