"""A training that a signal stops, and then goes on: FOLDER NUMBER. Run by test_checkpoint.

It has a process of its own, as the program has. A worker of pytest that ran Ray may die of SIGTERM,
although python has a handler: when Ray's core worker ends, it sets SIGTERM back to its default
(`RayLog::UninstallSignalAction`, Ray 2.60), and `signal.getsignal` still names the old handler.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from checkpoint_runs import assert_same, at_call, nothing, trained
from sentimill.errors import SentimillError
from sentimill_train.training.checkpoint import Checkpoint
from sentimill_train.training.loop import Progress


def main(folder: Path, number: signal.Signals) -> None:
    """Stop after the third step, and say how; then go on, and compare with a run that was let."""
    before = signal.getsignal(number)
    checkpoint = Checkpoint(folder / "c", {}, minutes=1e6)
    try:
        trained(folder, checkpoint, at_call(3, lambda: os.kill(os.getpid(), number)))
    except SentimillError as error:
        print(error.reason, error)  # noqa: T201
    assert signal.getsignal(number) is before
    told: list[Progress] = []
    found = trained(folder, checkpoint, told.append)
    assert_same(found, trained(folder / "whole", None, at_call(0, nothing)))
    assert told[0].rows == 64


if __name__ == "__main__":
    main(Path(sys.argv[1]), signal.Signals(int(sys.argv[2])))
