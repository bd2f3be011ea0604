"""docs/architecture.md names packages in the order of their imports, and files that are there."""

from __future__ import annotations

import re

import pytest

from repository import ROOT
from tests.test_layers import SERVE, SERVE_ARROWS, TRAIN, TRAIN_ARROWS

PAGE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")


def lines_of(half: str) -> dict[str, int]:
    """Return the line of each package of *half* in the page's list."""
    listed = PAGE.partition(f"In `{half}`:\n\n")[2].partition("\n\n")[0]
    return {
        name: int(number)
        for number, names in re.findall(r"(\d+)  (.+)", listed)
        for name in names.split(", ")
    }


@pytest.mark.parametrize(("half", "arrows"), [(SERVE, SERVE_ARROWS), (TRAIN, TRAIN_ARROWS)])
def test_a_package_imports_only_packages_of_the_lines_above(
    half: str, arrows: dict[str, set[str]]
) -> None:
    """Every package is on the page, and what it may import is further up."""
    lines = lines_of(half)

    assert arrows.keys() - lines.keys() == set()
    assert [
        f"{package} may import {below}"
        for package, imported in arrows.items()
        for below in imported - {package}
        if lines[below] >= lines[package]
    ] == []


def test_every_file_that_the_page_names_is_there() -> None:
    """A file that moves takes its name on the page with it."""
    named = set(re.findall(r"`([a-z_0-9/]+\.py)`", PAGE))
    halves = (ROOT, ROOT / "serve" / SERVE, ROOT / "train" / TRAIN)

    assert len(named) > 15
    assert {name for name in named if not any((half / name).is_file() for half in halves)} == set()
