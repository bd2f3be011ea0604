"""Trains a student on reviews and writes a bundle. Needs `pip install "sentimill[cpu,train]"`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sentimill as sentimill  # imported first, because it turns off usage reports of libraries

if TYPE_CHECKING:
    from sentimill_train.model.transformers_pipeline import to_transformers

__all__ = ["to_transformers"]


def __getattr__(name: str) -> object:
    """Import a public name at its first use: `import sentimill_train` loads no torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from sentimill_train.model.transformers_pipeline import to_transformers

    return to_transformers
