"""docs/faults.md names tests that are there, one or more for each fault."""

from __future__ import annotations

import ast
import re

from repository import ROOT

PAGE = (ROOT / "docs/faults.md").read_text(encoding="utf-8")
NAMED = re.compile(r"`(tests/[a-z_0-9/]+\.py)::(test_[a-z_0-9]+)`")


def test_every_test_that_the_page_names_is_there() -> None:
    """A test that is renamed takes its name on the page with it."""
    there: dict[str, set[str]] = {}
    for path, _ in NAMED.findall(PAGE):
        tree = ast.parse((ROOT / path).read_bytes())
        functions = (ast.FunctionDef, ast.AsyncFunctionDef)
        there[path] = {node.name for node in ast.walk(tree) if isinstance(node, functions)}

    assert len(there) > 10
    assert [name for path, name in NAMED.findall(PAGE) if name not in there[path]] == []


def test_every_fault_has_its_test() -> None:
    """A row without a test would be a promise that nobody keeps."""
    rows = [line for line in PAGE.splitlines() if re.match(r"\| (?!fault \|)", line)]

    assert [row for row in rows if row.count(" | ") != 3 or not NAMED.search(row)] == []
