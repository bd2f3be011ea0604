"""Starts an engine: the only module that knows all backends, and imports each when it is needed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from sentimill.engine.base import Engine, EngineChoice
from sentimill.engine.hardware import usable_cores
from sentimill.errors import EngineError

log = logging.getLogger(__name__)


def start_engine(
    choices: Sequence[EngineChoice],
    graph_of: Callable[[EngineChoice], bytes],
    *,
    threads: int | None,
) -> tuple[Engine, EngineChoice]:
    """Start the first of *choices* that really runs here, and return the engine and the choice.

    A choice is skipped only when its device is missing (a CUDA build without a driver) and another
    choice is left. graph_of: returns the ONNX graph for a choice. threads: CPU threads of the
    engine; None takes every core that this process may use.

    Raises:
        EngineError: the graph does not load, or the device of every choice is missing.
    """
    cores = threads or usable_cores()
    *better, last = choices
    for choice in better:
        try:
            return _start(choice, graph_of(choice), cores), choice
        except EngineError as error:
            if error.reason != "ENGINE_PROVIDER_FALLBACK":
                raise
            log.warning("%s on %s does not run here: %s", choice.engine, choice.provider, error)
    return _start(last, graph_of(last), cores), last


def _start(choice: EngineChoice, model: bytes, threads: int) -> Engine:
    if choice.engine == "openvino":
        from sentimill.engine.openvino import OpenvinoEngine

        return OpenvinoEngine(model, precision=choice.precision, threads=threads)
    if choice.provider == "cuda":
        from sentimill.engine.onnx_cuda import CudaEngine

        return CudaEngine(model, precision=choice.precision)
    from sentimill.engine.onnx_cpu import OnnxEngine

    return OnnxEngine(model, precision=choice.precision, threads=threads)
