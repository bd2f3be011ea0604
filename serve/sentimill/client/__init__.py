"""Clients of the gRPC service. This package needs no engine, no tokenizer and no numpy."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sentimill.client.channel import Security
    from sentimill.client.client import AsyncClient, Client
    from sentimill.client.fallback import Fallback

__all__ = ["AsyncClient", "Client", "Fallback", "Security"]


def __getattr__(name: str) -> object:
    """Import a public name at its first use: `import sentimill.client` loads no gRPC."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("sentimill"), name)
