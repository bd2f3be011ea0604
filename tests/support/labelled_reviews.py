"""A small labelled CSV that a tiny student can learn."""

from __future__ import annotations

import csv
from pathlib import Path

__all__ = ["write_labelled"]

_WORDS = {
    "negative": "bad broken awful",
    "neutral": "box arrived",
    "positive": "good great fine",
}


def write_labelled(path: Path) -> None:
    """Write 270 rows with the columns text and label, a third of each label."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for i in range(90):
            for label, text in _WORDS.items():
                writer.writerow([f"{text} item {i}", label])
