"""Runs what a page tells a reader to type: its commands, its programs, its shell sessions."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["Shell", "blocks", "run_page", "shell"]

SENTIMILL = Path(sys.executable).parent / "sentimill"
ADDRESS = "127.0.0.1:50051"


def blocks(page: Path, language: str) -> list[str]:
    """Return the fenced code blocks of *page* in *language*, in their order."""
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def run_page(page: Path, address: str = "") -> None:
    """Run every command of the `sh` blocks of *page*, then every program of the `python` blocks.

    The commands run in the current folder. `serve` goes on in the background, and takes the place
    of the address that the page names; *address* is a server that runs already.
    """
    serving: subprocess.Popen[str] | None = None
    try:
        for line in "".join(blocks(page, "sh")).splitlines():
            arguments = shlex.split(line.replace(ADDRESS, address))
            assert arguments[0] == "sentimill"
            arguments[0] = str(SENTIMILL)
            if arguments[1] == "serve":
                serving = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
                assert serving.stderr is not None
                said = next(line for line in serving.stderr if line.startswith("serving "))
                address = said.split()[-1]
                continue
            _run(arguments, line)
        for program in blocks(page, "python"):
            _run([sys.executable, "-c", program.replace(ADDRESS, address)], program)
    finally:
        if serving is not None:
            serving.terminate()
            serving.communicate()
    assert serving is None or serving.returncode == 0


def _run(arguments: list[str], said: str) -> None:
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{said}\n{done.stderr}"


class Shell:
    """A bash that runs what a page says."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, lines: str) -> None:
        """Type *lines*."""
        assert self._process.stdin is not None
        self._process.stdin.write(lines)
        self._process.stdin.flush()

    def said(self, pattern: str) -> str:
        """Return the first group of *pattern* in the next line of stderr that has it."""
        assert self._process.stderr is not None
        seen = []
        for line in self._process.stderr:
            seen.append(line)
            if found := re.search(pattern, line):
                return found[1]
        raise AssertionError("".join(seen))


@contextmanager
def shell(folder: Path) -> Iterator[Shell]:
    """Run bash in *folder*, with `sentimill` in its path, and stop what it started."""
    path = f"{SENTIMILL.parent}{os.pathsep}{os.environ['PATH']}"
    ports = {"SENTIMILL_SERVE_PORT": "0", "SENTIMILL_SERVE_METRICS_PORT": "0"}
    with subprocess.Popen(
        ["bash"],
        cwd=folder,
        env={**os.environ, **ports, "PATH": path},
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield Shell(process)
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.communicate(timeout=60)
