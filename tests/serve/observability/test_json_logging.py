"""Log lines as JSON."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from cli_in_process import Sentimill
from live_server import live_service
from sentimill.client.client import AsyncClient
from sentimill.observability.json_logging import BackgroundHandler, JsonFormatter


def line_of(record: logging.LogRecord) -> dict[str, object]:
    """Return the line of *record*, which is one."""
    text = JsonFormatter().format(record)
    assert "\n" not in text
    found: dict[str, object] = json.loads(text)
    return found


def test_a_line_has_time_level_logger_message_and_fields() -> None:
    """What was given as extra is a field beside them; nothing of the record's insides is."""
    record = logging.makeLogRecord(
        {"name": "sentimill.x", "levelname": "INFO", "msg": "a %d", "args": (1,), "rows": 7}
    )
    record._note_of_a_library = 1

    found = line_of(record)

    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", str(found.pop("time")))
    assert found == {"level": "info", "logger": "sentimill.x", "message": "a 1", "rows": 7}


def test_an_error_stays_on_its_line() -> None:
    """A traceback is a field, so that no collector breaks it up."""
    try:
        raise ValueError("bad\nvalue")
    except ValueError:
        record = logging.makeLogRecord({"msg": "failed", "exc_info": sys.exc_info()})

    assert "ValueError: bad\nvalue" in str(line_of(record)["error"])


@contextmanager
def bare_root() -> Iterator[logging.Logger]:
    """Take the handlers off the root logger, as in a new process, and put them back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers = []
    try:
        yield root
    finally:
        root.handlers, root.level = handlers, level


@pytest.mark.slow
def test_the_program_logs_in_the_format_that_it_is_told(sentimill: Sentimill) -> None:
    """`--log-format json` sets the formatter of every line."""
    with bare_root() as root:
        assert sentimill("--log-format", "json", "doctor").code == 0
        (handler,) = root.handlers

    assert isinstance(handler.formatter, JsonFormatter)


@pytest.mark.slow
def test_an_error_that_ends_the_program_is_a_record_too(
    sentimill: Sentimill, tmp_path: Path
) -> None:
    """A collector that reads JSON would lose a plain line, and it is the one that says why."""
    with bare_root():
        done = sentimill("--log-format", "json", "bundle", "inspect", tmp_path / "nowhere")

    assert done.code == 4
    (line,) = done.err.splitlines()
    assert json.loads(line)["level"] == "error"
    assert "nowhere" in json.loads(line)["message"]


@pytest.mark.slow
def test_an_unknown_format_is_refused(sentimill: Sentimill) -> None:
    """The message names those that there are."""
    done = sentimill("--log-format", "xml", "doctor")

    assert done.code == 2
    assert "'text'" in done.err
    assert "'json'" in done.err


async def test_a_request_is_a_line_at_debug_without_its_texts(
    bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Method, code and seconds; a text is never in a log."""
    caplog.set_level(logging.DEBUG, logger="sentimill")
    async with live_service(bundle) as live, AsyncClient(live.address) as client:
        await client.classify(["good secret battery"])

    (record,) = [each for each in caplog.records if each.message == "request"]
    found = line_of(record)
    assert record.levelno == logging.DEBUG
    assert (found["method"], found["code"]) == ("Classify", "OK")
    assert isinstance(found["seconds"], float)
    assert "secret" not in caplog.text


def test_a_server_never_waits_for_whoever_reads_its_log() -> None:
    """A pipe that nobody reads is full after 64 KiB; further lines are dropped and counted."""
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as stream:
        handler = BackgroundHandler(stream)
        for line in range(20_000):  # a handler that waits would wait for ever
            record = logging.makeLogRecord({"msg": "x" * 100, "lineno": line})
            handler.handle(record)
        # Now somebody reads, and hears of what is missing.
        os.set_blocking(reader, False)
        found = b""
        while b"log lines were dropped" not in found:
            with suppress(BlockingIOError):
                found += os.read(reader, 1 << 16)
        while handler._lines.unfinished_tasks:
            with suppress(BlockingIOError):
                found += os.read(reader, 1 << 16)
    os.close(reader)


def test_one_place_in_the_source_cannot_flood_the_log() -> None:
    """80 MB came in 10 s from one line before an engine that raised always."""
    stream = io.StringIO()
    handler = BackgroundHandler(stream)
    for _ in range(1000):
        handler.handle(logging.makeLogRecord({"msg": "broken", "created": 5.0, "lineno": 7}))
    handler.handle(logging.makeLogRecord({"msg": "other", "created": 5.0, "lineno": 8}))
    handler.flush()

    assert stream.getvalue().count("broken") == 20
    assert "other" in stream.getvalue()
    dropped = re.findall(r"(\d+) log lines were dropped", stream.getvalue())
    assert sum(map(int, dropped)) == 980
