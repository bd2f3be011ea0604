"""Runs `sentimill evaluate` as a user would, for benchmarks that judge bundles."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

__all__ = ["SENTIMILL", "evaluated"]

SENTIMILL: Final = Path(sys.executable).parent / "sentimill"


def evaluated(*options: str | Path) -> dict[str, Any]:
    """Return the judgement that `sentimill evaluate` writes with *options*.

    Raises:
        subprocess.CalledProcessError: it refused them; it has said why.
    """
    with tempfile.TemporaryDirectory() as work:
        found = Path(work, "judgement.json")
        command = [SENTIMILL, "evaluate", *options, "--json", found]
        subprocess.run(list(map(str, command)), check=True)
        judgement: dict[str, Any] = json.loads(found.read_text())
    return judgement
