"""Log lines as text or as JSON, one object per line. Logging never blocks a server."""

from __future__ import annotations

import json
import logging
import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Final, Literal, TextIO

_MOST_WAITING: Final = 1000
"""The most lines that wait for a slow reader of stderr."""

_MOST_A_SECOND: Final = 20
"""The most lines that one place in the source may log in a second."""

_FLUSH_SECONDS: Final = 1.0

_ORDINARY: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """Writes time (UTC), level, logger and message, the record's own fields, and its error."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, object] = {
            "time": at,
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name, value in vars(record).items():
            # Libraries keep private notes on a record, such as Ray's `_ray_timestamp_ns`.
            if name not in _ORDINARY and not name.startswith("_"):
                line[name] = value
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class BackgroundHandler(logging.Handler):
    """Hands lines to a thread that writes them, and drops lines if there are too many.

    If nobody reads stderr, its pipe fills up, and writing to it would stop the event loop. A source
    line that logs for every call of a broken engine would fill a disk.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._lines: queue.Queue[str] = queue.Queue(_MOST_WAITING)
        self._second = 0
        self._written: dict[tuple[str, int], int] = {}
        self._dropped = 0
        threading.Thread(target=self._write, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue the line of *record*, or drop it."""
        if (second := int(record.created)) != self._second:
            self._second = second
            self._written.clear()
        key = record.pathname, record.lineno
        self._written[key] = count = self._written.get(key, 0) + 1
        try:
            if count > _MOST_A_SECOND:
                raise queue.Full
            self._lines.put_nowait(self.format(record))
        except queue.Full:
            self._dropped += 1

    def flush(self) -> None:
        """Wait for the lines that are queued, for a second at most."""
        end = time.monotonic() + _FLUSH_SECONDS
        while self._lines.unfinished_tasks and time.monotonic() < end:
            time.sleep(0.005)

    def _write(self) -> None:
        while True:
            line = self._lines.get()
            self.acquire()
            dropped, self._dropped = self._dropped, 0
            self.release()
            if dropped:
                why = f"{dropped} log lines were dropped"
                about = {"name": __name__, "levelname": "WARNING", "msg": why}
                line = f"{line}\n{self.format(logging.makeLogRecord(about))}"
            try:
                self._stream.write(f"{line}\n")
                self._stream.flush()
            except (OSError, ValueError):
                pass  # nobody can be told
            self._lines.task_done()


@contextmanager
def log_in_background() -> Iterator[None]:
    """Write log lines to stderr in a thread while a server runs."""
    root = logging.getLogger()
    plain = [one for one in root.handlers if type(one) is logging.StreamHandler]
    pairs = [(one, BackgroundHandler(one.stream)) for one in plain]
    for old, new in pairs:
        new.setFormatter(old.formatter)
        root.removeHandler(old)
        root.addHandler(new)
    try:
        yield
    finally:
        for old, new in pairs:
            new.flush()
            root.removeHandler(new)
            root.addHandler(old)


def set_up(level: int, form: Literal["text", "json"]) -> None:
    """Send log lines to stderr. For the command line, and for the processes that it starts."""
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if form == "json":
        for handler in logging.getLogger().handlers:
            handler.setFormatter(JsonFormatter())


def as_json() -> bool:
    """Return whether log lines are JSON: then everything else on stderr has to be JSON too."""
    handlers = logging.getLogger().handlers
    return any(isinstance(handler.formatter, JsonFormatter) for handler in handlers)
