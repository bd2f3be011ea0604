"""Which Python packages are installed, in which version, and the error where one is missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version

from sentimill.errors import UsageError


def package_version(package: str) -> str | None:
    """Return the installed version of *package*, None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@contextmanager
def from_extra(extra: str, why: str) -> Iterator[None]:
    """Turn an import inside that fails into UsageError, which says *why* and what to install."""
    try:
        yield
    except ImportError as error:
        why = f"{why} ({error}): pip install 'sentimill[{extra}]'"
        raise UsageError(why, reason="EXTRA_MISSING") from error
