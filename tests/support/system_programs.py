"""Programs of the operating system that a test needs; `.ci/run` installs them."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

__all__ = ["find", "promtool"]

PACKAGES = {
    "promtool": "prometheus",
    "prometheus": "prometheus",
    "haproxy": "haproxy",
    "unshare": "util-linux",
    "chromedriver": "chromium-driver",
}


def find(name: str) -> str:
    """Return the path of *name*; without it the test fails in CI, and is skipped elsewhere."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if found is None:
        package = PACKAGES[name]
        why = f"this test needs {name}: apt-get install -y --no-install-recommends {package}"
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    return found


def promtool(*args: str) -> str:
    """Run promtool and return what it says; raises CalledProcessError where it says no."""
    return subprocess.run(
        [find("promtool"), *args], capture_output=True, check=True, text=True, timeout=280
    ).stdout
