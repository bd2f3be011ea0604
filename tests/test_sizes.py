"""No file and no package grows so large that a stranger loses their way in it."""

from __future__ import annotations

from pathlib import Path

from repository import ROOT

HALVES = (ROOT / "serve/sentimill", ROOT / "train/sentimill_train")
LINES_AT_MOST = 400
FILES_AT_MOST = 14


def written(folder: Path) -> list[Path]:
    """Return the Python files and templates below *folder* that people write."""
    generated = {"v1", "reference_student", "resources"}
    return [
        path
        for path in folder.rglob("*")
        if path.suffix in (".py", ".html", ".jinja")
        and not generated & set(path.relative_to(folder).parts)
    ]


def test_no_file_has_more_than_400_lines() -> None:
    """About 150 are the aim."""
    files = [path for half in HALVES for path in written(half)]
    lengths = {
        path.relative_to(ROOT).as_posix(): len(path.read_bytes().splitlines()) for path in files
    }

    assert len(files) > 150
    assert {name: lines for name, lines in lengths.items() if lines > LINES_AT_MOST} == {}


def test_no_package_has_more_than_14_files() -> None:
    """About a dozen are the aim; `__init__.py` does not count."""
    counts: dict[str, int] = {}
    for half in HALVES:
        for path in written(half):
            if path.suffix == ".py" and path.name != "__init__.py":
                folder = path.parent.relative_to(ROOT).as_posix()
                counts[folder] = counts.get(folder, 0) + 1

    assert {folder: files for folder, files in counts.items() if files > FILES_AT_MOST} == {}
