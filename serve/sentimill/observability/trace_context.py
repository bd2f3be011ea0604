"""The trace that a call belongs to, so that a slow bucket leads to one."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

__all__ = ["trace_id"]

_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")


def trace_id(metadata: Iterable[tuple[str, str | bytes]]) -> str | None:
    """Return the trace id of a caller's `traceparent` (W3C Trace Context, section 3.2)."""
    for key, value in metadata:
        if key == "traceparent" and isinstance(value, str):
            found = _TRACEPARENT.fullmatch(value)
            return found and found[1]
    return None
