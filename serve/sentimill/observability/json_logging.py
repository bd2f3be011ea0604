"""Log lines as JSON, for what collects them: one object a line."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Final, Literal

__all__ = ["JsonFormatter", "as_json", "set_up"]

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
        # Libraries keep private notes on a record, such as Ray's `_ray_timestamp_ns`.
        own = {name for name in vars(record) if name not in _ORDINARY and not name.startswith("_")}
        line |= {name: value for name, value in vars(record).items() if name in own}
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def set_up(level: int, form: Literal["text", "json"]) -> None:
    """Send log lines to stderr. For the command line, and for the processes that it starts."""
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if form == "json":
        for handler in logging.getLogger().handlers:
            handler.setFormatter(JsonFormatter())


def as_json() -> bool:
    """Return whether log lines are JSON: then everything else that goes to stderr has to be."""
    handlers = logging.getLogger().handlers
    return any(isinstance(handler.formatter, JsonFormatter) for handler in handlers)
