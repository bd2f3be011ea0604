"""Where this checkout and its parts lie, for tests that read files of the repository."""

from __future__ import annotations

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
"""The root of the checkout."""

SUPPORT: Final = Path(__file__).parent
"""The folder of the programs and helpers that tests share."""
