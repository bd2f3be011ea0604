"""Which Python packages are installed, and in which version."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def package_version(package: str) -> str | None:
    """Return the installed version of *package*, None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
