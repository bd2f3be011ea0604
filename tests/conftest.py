"""What every test may use: a tiny bundle, and an environment without our variables."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tiny import write_tiny_bundle


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the settings of the person who runs the tests out of them."""
    for name in list(os.environ):
        if name.startswith("SENTIMILL_"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a tiny bundle; tests only read it."""
    return write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny").path
