"""Sentimill: customer sentiment from a small encoder that learned it from a large model.

from sentimill import Classifier, Client, AsyncClient
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sentimill.classifier import Classifier, Prediction
    from sentimill.client.client import AsyncClient, Client, Fallback, Security
    from sentimill.errors import SentimillError, TextError

__all__ = [
    "AsyncClient",
    "Classifier",
    "Client",
    "Fallback",
    "Prediction",
    "Security",
    "SentimillError",
    "TextError",
]

# Libraries that report to their makers unless they are told not to, by when they are imported: ONNX
# Runtime on Linux since 1.29 (onnxruntime #27379), and Ray. Who sets a variable is obeyed.
for _name, _off in {"ORT_DISABLE_TELEMETRY": "1", "RAY_USAGE_STATS_ENABLED": "0"}.items():
    os.environ.setdefault(_name, _off)

_HOMES = {
    "AsyncClient": "client.client",
    "Classifier": "classifier",
    "Client": "client.client",
    "Fallback": "client.client",
    "Prediction": "classifier",
    "Security": "client.client",
    "SentimillError": "errors",
    "TextError": "errors",
}


def __getattr__(name: str) -> object:
    """Import a public name at its first use: `import sentimill` loads no gRPC and no engine."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"sentimill.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
