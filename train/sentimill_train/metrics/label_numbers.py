"""Reads the number in the name of a label, by which labels are sorted and compared."""

from __future__ import annotations

import re


def number_in(label: str) -> float | None:
    """Return the number that a label contains, None without one: -1 in `-1`, but 1 in `star-1`."""
    found = re.search(r"(?:(?<!\w)-)?\d+(?:\.\d+)?", label)
    return None if found is None else float(found[0])
