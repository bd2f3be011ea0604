"""The status page, in a browser."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from background_load import load
from browser import Browser, browser
from live_server import WAIT_SECONDS, live_server
from sentimill.observability.http_server import HttpServer
from sentimill.observability.metrics import Metrics
from sentimill.observability.status import Status
from sentimill.server.request_handler import Limits
from sentimill.server.settings import Serve

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PICTURES = os.environ.get("STATUS_PICTURES")
"""A folder for pictures of the page, for a person to look at: `docs/pictures` has those kept."""

TEXTS = ["good battery", "bad", "the battery", "good " * 9]
Lines = dict[str, str]
LINES = """
return Object.fromEntries([...document.querySelectorAll('path')].map(
  (path) => [path.dataset.line, path.getAttribute('d')]));
"""


@pytest.fixture(scope="module")
def window() -> Iterator[Browser]:
    """Return one browser for all tests: to start it takes seconds."""
    with browser() as made:
        made.look(wide=1200, high=680, dark=False)
        yield made


def until(window: Browser, script: str, true: Callable[[Any], bool] = bool) -> Any:
    """Run *script* until what it returns is as it should be."""
    end = time.monotonic() + 2 * WAIT_SECONDS
    while time.monotonic() < end:
        found = window.run(script)
        if true(found):
            return found
    raise AssertionError(f"{script} still gives {found!r}: {window.run(TEXT)}")


TEXT = "return document.body.innerText"
STATE = "return document.getElementById('state').textContent"
PROBLEMS = "return [...document.querySelectorAll('#problems li')].map((item) => item.textContent)"


def moved(window: Browser, before: Lines) -> Lines:
    """Return the lines when they are no more those of *before*."""
    found: Lines = until(window, LINES, lambda found: found["texts"] != before["texts"])
    return found


def keep(window: Browser, name: str) -> None:
    """Keep a picture where one was asked for."""
    if PICTURES:
        Path(PICTURES, f"status-{name}.png").write_bytes(window.picture())


def test_the_page_shows_the_model_and_moves_under_load(window: Browser, bundle: Path) -> None:
    """Charts grow while calls are answered; nothing is asked of another host; no error is said."""
    with live_server(Serve(bundle=bundle, port=0, metrics_port=0)) as made:
        window.console()
        window.open(f"http://{made.metrics_address}/")
        until(window, STATE, lambda found: found == "serving")
        assert "tiny 1 · fp32" in window.run(TEXT)
        assert window.run(PROBLEMS) == []
        keep(window, "idle")
        with load(made.address, TEXTS, callers=4, pause=0.02):
            shown: Lines = until(window, LINES, lambda found: "M" in found["p99"])
            for _ in range(10 if PICTURES else 2):
                shown = moved(window, shown)
            for name in ("texts", "p50", "p99", "waiting", "useful", "positive", "negative"):
                assert "L" in shown[name], name
            keep(window, "loaded")
            window.look(wide=390, high=844, dark=True)
            assert window.run("return document.documentElement.scrollWidth") <= 390
            keep(window, "phone-dark")
            window.look(wide=1200, high=680, dark=False)
        asked = window.run(
            "return performance.getEntriesByType('resource').map((entry) => entry.name)"
        )

    assert asked
    assert all(url.startswith(f"http://{made.metrics_address}/") for url in asked)
    # The server has gone by now, which the browser says in words of its own.
    assert [line for line in window.console() if "ERR_CONNECTION_REFUSED" not in line] == []


def test_a_server_in_trouble_says_what_is_wrong_and_what_to_do(
    window: Browser, bundle: Path
) -> None:
    """Refusals stand at the top in words; when the process is gone the page says that it is old."""
    limits = Limits(max_waiting_texts=16)
    with live_server(Serve(bundle=bundle, port=0, metrics_port=0, limits=limits)) as made:
        window.open(f"http://{made.metrics_address}/")
        with load(made.address, TEXTS * 2, callers=16, pause=0.01) as sent:
            found = until(window, PROBLEMS)
            (problem,) = [each for each in found if "refused" in each]
            assert "one caller held more than its share of the queue" in problem
            assert "Add a replica" in problem
            shown = window.run(LINES)
            for _ in range(8 if PICTURES else 0):
                shown = moved(window, shown)
            keep(window, "trouble")
        assert sent.codes["UNAVAILABLE"] > 0
    until(window, STATE, lambda found: found == "no answer")

    (problem,) = window.run(PROBLEMS)
    assert "does not answer this page any more" in problem


def test_a_name_with_markup_is_shown_as_it_is_written(window: Browser, tmp_path: Path) -> None:
    """A bundle is a stranger's: its name is text, on the page and in JSON."""
    name = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    status = Status(Metrics())
    facts = {"name": name, "version": "1", "digest": "d", "precision": "fp32", "provider": "cpu"}
    status.serve(facts, ("<b>label</b>",), lambda: True)
    status.sample()
    port = HttpServer(status, "127.0.0.1", 0)
    try:
        window.console()
        window.open(f"http://127.0.0.1:{port.port}/")
        until(window, STATE, lambda found: found == "serving")
        text = window.run(TEXT)
        tags = window.run("return document.querySelectorAll('img, b').length")
    finally:
        port.close()

    assert name in text
    assert "<b>label</b> " in text
    assert tags == 0
    assert [line for line in window.console() if "ERR_CONNECTION" not in line] == []


def test_the_policy_stops_what_is_not_the_pages_own(window: Browser, bundle: Path) -> None:
    """A script that somebody got into the page would not run, and could ask no other host."""
    with live_server(Serve(bundle=bundle, port=0, metrics_port=0)) as made:
        window.open(f"http://{made.metrics_address}/")
        until(window, STATE, lambda found: found == "serving")
        window.run(
            "const s = document.createElement('script'); s.textContent = 'window.hurt = 1';"
            "document.body.append(s)"
        )
        hurt = window.run("return window.hurt || 0")
        window.run(
            "window.asked = 'no answer yet';"
            "fetch('http://localhost:1/').catch((error) => { window.asked = String(error) })"
        )
        asked = until(window, "return window.asked", lambda found: found != "no answer yet")

    assert hurt == 0
    assert "TypeError" in str(asked)
    said = json.dumps(window.console())
    assert "Content Security Policy" in said


TRY = """
const box = document.getElementById('try');
if (box.hidden) return '';
document.getElementById('text').value = arguments[0];
document.getElementById('ask').click();
return 'asked';
"""
ANSWER = "return document.getElementById('answer').textContent"


def test_a_text_can_be_tried_where_the_playground_is_on(
    window: Browser, bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Label, confidence and tokens are shown, an error in words; the text is kept nowhere."""
    with (
        caplog.at_level("DEBUG"),
        live_server(Serve(bundle=bundle, port=0, metrics_port=0, playground=True)) as made,
    ):
        window.open(f"http://{made.metrics_address}/")
        until(window, TRY.replace("arguments[0]", "'good secret'"), lambda found: found == "asked")
        answer = until(window, ANSWER)
        keep(window, "playground")
        window.run("document.getElementById('answer').textContent = ''")
        window.run(TRY.replace("arguments[0]", "' '"))
        refused = until(window, ANSWER)
        document = window.run("return (async () => (await fetch('/status.json')).text())()")

    assert re.fullmatch(r"positive.*, confidence \d+ %, \d+ tokens", answer)
    assert "empty" in refused
    assert "secret" not in document + caplog.text


def test_the_box_is_not_shown_otherwise(window: Browser, bundle: Path) -> None:
    """Nobody can ask who was not allowed to."""
    with live_server(Serve(bundle=bundle, port=0, metrics_port=0)) as made:
        window.open(f"http://{made.metrics_address}/")
        until(window, STATE, lambda found: found == "serving")

        assert window.run("return document.getElementById('try').hidden")
