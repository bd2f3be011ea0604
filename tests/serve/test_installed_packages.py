"""A package of an extra that is missing is named, with the command that installs it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sentimill.errors import UsageError
from sentimill.installed_packages import from_extra
from sentimill.scoring.formats.table import Layout
from sentimill.scoring.job import Score


def test_a_failed_import_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other errors inside are passed on."""
    monkeypatch.setitem(sys.modules, "nupunkt", None)
    says = r"^sentences need nupunkt \(.*nupunkt.*\): pip install 'sentimill\[evidence\]'$"

    with (
        pytest.raises(UsageError, match=says) as refused,
        from_extra("evidence", "sentences need nupunkt"),
    ):
        import nupunkt  # noqa: F401
    with pytest.raises(ValueError, match="mine"), from_extra("evidence", "sentences need nupunkt"):
        raise ValueError("mine")

    assert refused.value.reason == "EXTRA_MISSING"


def test_a_workbook_needs_the_excel_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message is the one of every other extra."""
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    (tmp_path / "in.xlsx").write_bytes(b"PK\x03\x04")

    with pytest.raises(UsageError, match=r"^Excel files need .*install 'sentimill\[excel\]'$"):
        Score(
            sources=(f"{tmp_path}/in.xlsx",), target=f"{tmp_path}/out.xlsx", layout=Layout()
        ).plan()
