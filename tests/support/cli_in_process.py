"""The program, run in this process: arguments and stdin in, exit code, stdout and stderr out."""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from sentimill.cli.main import main


@dataclass(frozen=True)
class Run:
    """What a command left."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """Return the one line of the error, which is all that there is on stderr but progress."""
        *_, line = self.err.strip().splitlines()
        assert line.startswith("error: ")
        assert "Traceback" not in self.err
        return line.removeprefix("error: ")


class Sentimill:
    """Runs the program in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch) -> None:
        self._capsys = capsys
        self._patch = patch

    def __call__(self, *args: str | Path, stdin: bytes | None = None) -> Run:
        """Run it on *args*; without *stdin* there is a terminal in its place."""
        self._capsys.readouterr()
        self._patch.setattr(sys, "stdin", Terminal() if stdin is None else Pipe(stdin))
        with pytest.raises(SystemExit) as caught:
            main([str(arg) for arg in args])
        found = self._capsys.readouterr()
        assert isinstance(caught.value.code, int)
        return Run(caught.value.code, found.out, found.err)


class Terminal(io.StringIO):
    """Somebody who types nothing."""

    def isatty(self) -> bool:
        """Say that this is a terminal."""
        return True


class Pipe(io.TextIOWrapper):
    """Bytes from another program."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data), encoding="utf-8")
