"""A headless Chromium that is driven: opens pages, runs scripts in them, takes pictures."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from chromium import chromium
from live_server import WAIT_SECONDS
from system_programs import find

_ARGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--hide-scrollbars",
)


class Browser:
    """One window, over the WebDriver protocol (W3C, June 2018) and Chromium's additions to it."""

    def __init__(self, session: str) -> None:
        self._session = session

    def open(self, url: str) -> None:
        """Load *url*."""
        _ask(f"{self._session}/url", {"url": url})

    def run(self, script: str) -> Any:
        """Return what the body of a function, *script*, returns in the page."""
        return _ask(f"{self._session}/execute/sync", {"script": script, "args": []})

    def console(self) -> list[str]:
        """Return what the page said to the console since the last question."""
        return [line["message"] for line in _ask(f"{self._session}/se/log", {"type": "browser"})]

    def look(self, *, wide: int, high: int, dark: bool) -> None:
        """Take a screen of that size and taste."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._devtools("Emulation.setEmulatedMedia", {"features": [scheme]})
        size = {"width": wide, "height": high, "deviceScaleFactor": 1, "mobile": wide < 600}
        self._devtools("Emulation.setDeviceMetricsOverride", size)

    def picture(self) -> bytes:
        """Return the whole page as a PNG."""
        found = self._devtools("Page.captureScreenshot", {"captureBeyondViewport": True})
        return base64.b64decode(found["data"])

    def _devtools(self, command: str, given: Mapping[str, object]) -> Any:
        return _ask(f"{self._session}/goog/cdp/execute", {"cmd": command, "params": given})


@contextmanager
def browser() -> Iterator[Browser]:
    """Start a browser without a window, and end it."""
    binary = chromium()
    with (
        tempfile.TemporaryDirectory() as profile,
        subprocess.Popen(
            [find("chromedriver"), "--port=0"], stdout=subprocess.PIPE, text=True
        ) as driver,
    ):
        try:
            assert driver.stdout is not None
            port = next(
                found[1]
                for line in driver.stdout
                if (found := re.search(r"successfully on port (\d+)", line))
            )
            base = f"http://127.0.0.1:{port}"
            options = {"binary": binary, "args": [*_ARGS, f"--user-data-dir={profile}"]}
            wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
            made = _ask(f"{base}/session", {"capabilities": {"alwaysMatch": wanted}})
            session = f"{base}/session/{made['sessionId']}"
            try:
                yield Browser(session)
            finally:
                _ask(session, None, method="DELETE")
        finally:
            driver.terminate()


def _ask(url: str, body: object, method: str = "POST") -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, method=method)
    with urllib.request.urlopen(request, timeout=4 * WAIT_SECONDS) as answer:
        return json.load(answer)["value"]
