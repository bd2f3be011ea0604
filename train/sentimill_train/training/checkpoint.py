"""The checkpoint: a killed run continues from it, and ends with the weights of an unbroken run.

One safetensors file holds every tensor of the loop, and the rest as JSON in its header: no pickle.
The file is replaced atomically, so a kill at any moment leaves the old one or the new one.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from sentimill.errors import UsageError

_FILE: Final = "checkpoint.safetensors"
_DIGEST_LENGTH: Final = 64  # values from the length of a sha256 on are not shown in messages


class Checkpoint:
    """The checkpoint of one training in *folder*.

    run: all that the weights depend on, by the name of the option; a checkpoint whose *run* differs
    is refused. minutes: between two checkpoints within an epoch. One process writes it and all read
    it, so several machines need a shared disk.
    """

    def __init__(self, folder: Path, run: Mapping[str, object], *, minutes: float = 10) -> None:
        self.folder, self.minutes = folder, minutes
        self._run = json.loads(json.dumps(run))
        self._written = time.monotonic()

    def due(self) -> bool:
        """Say whether it is time for the next checkpoint."""
        return time.monotonic() - self._written >= self.minutes * 60

    def save(self, tensors: Mapping[str, Tensor], position: Mapping[str, object]) -> None:
        """Replace the file by one with *tensors* and *position*, which must be valid in JSON."""
        self.folder.mkdir(parents=True, exist_ok=True)
        part = self.folder / f"{_FILE}.part"
        header = {"run": json.dumps(self._run), "position": json.dumps(position)}
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, part, header)
        with part.open("rb") as written:
            os.fsync(written.fileno())
        part.replace(self.folder / _FILE)
        self._written = time.monotonic()

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Return tensors and position of the last `save`, or None if there was none.

        Raises:
            UsageError: CHECKPOINT_DIFFERS if its run differs, CHECKPOINT_UNREADABLE.
        """
        path = self.folder / _FILE
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="pt") as opened:
                header = opened.metadata() or {}
                run, position = json.loads(header["run"]), json.loads(header["position"])
                self._check(run)
                return {name: opened.get_tensor(name) for name in opened.keys()}, position  # noqa: SIM118 - no mapping
        except (SafetensorError, KeyError, ValueError) as error:
            raise UsageError(
                f"{path} is not a checkpoint ({type(error).__name__}): delete it, or name another"
                " folder with --checkpoint",
                reason="CHECKPOINT_UNREADABLE",
            ) from error

    def remove(self) -> None:
        """Delete the checkpoint, once the bundle is written."""
        (self.folder / _FILE).unlink(missing_ok=True)

    def _check(self, was: Mapping[str, object]) -> None:
        now = self._run
        names = [n for n in dict.fromkeys([*was, *now]) if was.get(n) != now.get(n)]
        if names:
            raise UsageError(
                f"{self.folder} has the checkpoint of another training"
                f" ({'; '.join(_difference(n, was.get(n), now.get(n)) for n in names)}):"
                " repeat that command, give another --checkpoint, or delete the folder",
                reason="CHECKPOINT_DIFFERS",
            )


def _difference(name: str, was: object, now: object) -> str:
    if any(isinstance(value, str) and len(value) >= _DIGEST_LENGTH for value in (was, now)):
        return f"{name} changed"
    return f"{name} was {was}, now {now}"


@contextmanager
def stop_signals(*, caught: bool) -> Iterator[list[int]]:
    """Yield a list that receives the first SIGINT or SIGTERM; a second signal acts as usual.

    The list stays empty if not *caught*, or outside of the main thread.
    """
    received: list[int] = []
    if not caught or threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def first(number: int, _: FrameType | None) -> None:
        received.append(number)
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in before:
        signal.signal(number, first)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
