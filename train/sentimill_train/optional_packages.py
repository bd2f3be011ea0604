"""Checks that the optional packages of a command are installed, and names the extra if not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from sentimill.errors import UsageError


def check_installed(doing: str, *names: str, extra: str = "cpu,train") -> None:
    """Raise UsageError EXTRA_MISSING unless every package of *names* is installed.

    doing: the command that needs them, for the message; extra: the extra that installs them. The
    packages are only looked up: importing them would take seconds.
    """
    if missing := [name for name in names if find_spec(name) is None]:
        raise _missing(doing, ", ".join(missing), extra)


@contextmanager
def needed_for(doing: str, more: str = "") -> Iterator[None]:
    """Turn an ImportError in the block into UsageError EXTRA_MISSING; *more* ends its message."""
    try:
        yield
    except ImportError as error:
        raise _missing(doing, str(error.name), "cpu,train", more) from error


def _missing(doing: str, names: str, extra: str, more: str = "") -> UsageError:
    why = f"{doing} needs parts that are not installed ({names}): pip install 'sentimill[{extra}]'"
    return UsageError(why + more, reason="EXTRA_MISSING")
