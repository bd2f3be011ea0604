"""Labels English reviews as negative, neutral or positive, on your own machine.

from sentimill import Classifier, Client, AsyncClient
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sentimill.classifier import Classifier
    from sentimill.client.channel import Security
    from sentimill.client.client import AsyncClient, Client
    from sentimill.client.fallback import Fallback
    from sentimill.dataframes import score, to_frame
    from sentimill.errors import SentimillError, TextError
    from sentimill.types import Prediction

__all__ = [
    "AsyncClient",
    "Classifier",
    "Client",
    "Fallback",
    "Prediction",
    "Security",
    "SentimillError",
    "TextError",
    "score",
    "to_frame",
]

# These libraries send usage reports unless a variable forbids it before the import: ONNX
# Runtime on Linux since 1.29 (onnxruntime #27379), and Ray. A variable that the user has set stays.
for _name, _off in {"ORT_DISABLE_TELEMETRY": "1", "RAY_USAGE_STATS_ENABLED": "0"}.items():
    os.environ.setdefault(_name, _off)

_MODULES = {
    "AsyncClient": "client.client",
    "Classifier": "classifier",
    "Client": "client.client",
    "Fallback": "client.fallback",
    "Prediction": "types",
    "Security": "client.channel",
    "SentimillError": "errors",
    "TextError": "errors",
    "score": "dataframes",
    "to_frame": "dataframes",
}


def __getattr__(name: str) -> object:
    """Import a public name at its first use: `import sentimill` loads no gRPC and no engine."""
    if name == "__version__":
        from importlib.metadata import version  # it loads a dozen modules

        return version(__name__)
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"sentimill.{_MODULES[name]}"), name)
    globals()[name] = value
    return value
