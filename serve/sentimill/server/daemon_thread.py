"""Runs work in threads for which the end of the process does not wait.

Such a thread may be loading a model, or waiting for a hanging engine.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final, NoReturn, TypeVar

T = TypeVar("T")

_NAMES: Final = ("engine", "tokenizer", "daemon")
"""Name prefixes of the threads that may run code outside Python."""

_LAST_SECONDS: Final = 0.5


async def run_in_daemon_thread(work: Callable[[], T]) -> T:
    """Return what *work* returns in a thread of its own. A cancelled caller leaves it running."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - whoever awaits it gets it
            if not future.cancelled():
                future.set_exception(error)

    threading.Thread(target=run, name=f"daemon {work}", daemon=True).start()
    return await asyncio.wrap_future(future)


def has_busy_threads() -> bool:
    """Return whether a thread still loads or computes; Python might wait for it at its exit."""
    threads = [one for one in threading.enumerate() if one.name.startswith(_NAMES)]
    for thread in threads:
        thread.join(_LAST_SECONDS / len(threads))  # idle ones have been told to end
    return any(thread.is_alive() for thread in threads)


def end_process(code: int) -> NoReturn:
    """End the process at once, with its log written."""
    logging.shutdown()
    os._exit(code)
