"""Writes to stderr, and makes untrusted text safe for a terminal."""

from __future__ import annotations

from typing import Final

from rich.console import Console

console: Final = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)
"""Everything that is not data goes here."""


def say(text: str) -> None:
    """Print *text* on stderr as it is."""
    console.print(text, markup=False)


def one_line(text: str) -> str:
    """Return *text* on one line, without the escape sequences that could change a terminal."""
    printable = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(printable.split())
