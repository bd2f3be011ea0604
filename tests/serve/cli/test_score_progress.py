"""What `sentimill score` makes of Ctrl-C and SIGTERM."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

_STOPPED = """
import signal, sys
from sentimill.cli.score_progress import stop_on_signals

with stop_on_signals() as stop:
    signal.raise_signal(int(sys.argv[1]))
    print(stop.is_set(), flush=True)
    signal.raise_signal(int(sys.argv[2]))
print("left")
"""


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_any_second_signal_ends_the_process(first: signal.Signals, second: signal.Signals) -> None:
    """The first asks it to save, also where the second is another, as from a service manager."""
    command = [sys.executable, "-c", _STOPPED, str(int(first)), str(int(second))]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    assert (ended.returncode, ended.stdout) == (-second, "True\n")
    assert "press again to end at once" in ended.stderr


def test_the_handlers_are_as_before_afterwards() -> None:
    """Also where a signal came."""
    code = _STOPPED.replace("signal.raise_signal(int(sys.argv[2]))", "pass")
    code += "print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    command = [sys.executable, "-c", code, str(int(signal.SIGTERM))]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)

    assert ended.stdout.split() == ["True", "left", "True"]
