"""An engine for a graph in memory, without a bundle around it."""

from __future__ import annotations

from sentimill.engine.base import Engine, EngineName, EngineWish, Precision, Provider
from sentimill.engine.factory import start_engine
from sentimill.engine.hardware import Machine
from sentimill.engine.selection import rank_engines


def load_engine(
    model: bytes,
    *,
    engine: EngineName = "auto",
    provider: Provider = "auto",
    precision: Precision = "fp32",
    threads: int | None = None,
) -> Engine:
    """Return an engine for the ONNX graph *model* run in *precision*."""
    wish = EngineWish(engine=engine, provider=provider, precision=precision)
    choices = rank_engines(wish, [precision], Machine.here())
    return start_engine(choices, lambda _: model, threads=threads)[0]
