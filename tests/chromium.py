"""A headless Chromium, for pages that a person will open."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

INSTALL = "apt-get update && apt-get install -y --no-install-recommends chromium"

_FLAGS = (
    "--headless",
    "--no-sandbox",  # it refuses to run as root with one
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--enable-logging=stderr",
)


def find_chromium() -> str | None:
    """Return the path of the browser, or None where there is none."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


def open_page(page: Path, profile: Path, *options: str) -> tuple[str, list[str]]:
    """Open *page* in a new profile; return the document as the browser has it, and its console."""
    browser = find_chromium()
    assert browser is not None, f"this test needs a browser: {INSTALL}"
    done = subprocess.run(
        [
            browser,
            *_FLAGS,
            f"--user-data-dir={profile}",
            *options,
            "--dump-dom",
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
        check=True,
    )
    return done.stdout, [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
