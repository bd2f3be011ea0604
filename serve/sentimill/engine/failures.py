"""Handles failed engine calls: hides details from callers, limits the log, splits the batch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sentimill.errors import EngineError

log = logging.getLogger(__name__)

FAILED: Final = "the engine failed: the log of the program that runs it says why"
"""The message that callers get. The library's own message goes only into the log."""

_LOG_EVERY_S: Final = 1.0

Rows = Sequence[NDArray[np.int64]]
"""Token ids, one array for each text."""


class _Seldom(logging.Filter):
    """Lets each message pass once in `_LOG_EVERY_S`; a broken engine fails thousands of times."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether *record* is logged."""
        if record.created - self._last.get(record.msg, 0.0) < _LOG_EVERY_S:
            return False
        self._last[record.msg] = record.created
        return True


log.addFilter(_Seldom())


def call_engine(library: str, call: Callable[[], NDArray[np.generic]]) -> NDArray[np.float32]:
    """Return the logits of *call*, a call of *library*. Raises EngineError when it fails."""
    try:
        logits = call()
    except Exception as error:
        log.error("%s failed: %s", library, error)
        raise EngineError(FAILED, reason="ENGINE_FAILED") from error
    # An fp16 graph may end in fp16.
    return np.asarray(logits, dtype=np.float32)


def run_or_split(
    run: Callable[[Rows], NDArray[np.float32]], rows: Rows
) -> tuple[NDArray[np.float32] | None, dict[int, EngineError]]:
    """Run *rows* as one batch. If that fails, run halves until each bad row is alone.

    The engine counts as broken when the search has reached a single row and no call has succeeded.
    The search then stops, and every row gets the error. With a broken engine, a batch of n rows
    thus costs at most ``2 log2(n) + 1`` calls, rounded up. Without that rule it would cost
    ``2n - 1``, for each batch until somebody restarts the program.

    Returns:
        The logits (rows, labels), with NaN in a row that has no answer, and the error of each such
        row. The logits are None when no row has an answer.
    """
    good: list[tuple[range, NDArray[np.float32]]] = []
    failed: list[tuple[range, EngineError]] = []
    errors: dict[int, EngineError] = {}

    def attempt(part: range) -> None:
        try:
            logits = run(rows[part.start : part.stop])
            if len(logits) != len(part):
                why = f"the engine gave {len(logits)} rows for {len(part)} texts"
                raise EngineError(why, reason="ENGINE_FAILED")
        except Exception as error:
            log.exception("an engine call failed on %d texts", len(part))
            failed.append((part, _engine_error(error)))
        else:
            good.append((part, logits))

    attempt(range(len(rows)))
    while failed:
        part, error = failed.pop()
        if len(part) > 1:
            half = len(part) // 2
            attempt(part[half:])
            attempt(part[:half])
        elif good:
            errors[part.start] = error
        else:
            return None, dict.fromkeys(range(len(rows)), error)
    if not errors:
        return good[0][1], errors
    logits = np.full((len(rows), good[0][1].shape[1]), np.nan, dtype=np.float32)
    for part, found in good:
        logits[part.start : part.stop] = found
    return logits, errors


def _engine_error(error: Exception) -> EngineError:
    """Return *error* without its traceback, whose frames would keep the batch in memory.

    Callers do not get the message of an exception that is not a SentimillError.
    """
    if isinstance(error, EngineError):
        return EngineError(str(error), reason=error.reason)
    return EngineError(f"the engine failed with {type(error).__name__}", reason="ENGINE_FAILED")
