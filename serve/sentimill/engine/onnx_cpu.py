"""ONNX Runtime on the CPU. It and `engine_gpu` are the only files that know that library."""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from functools import cache
from typing import Final, Literal

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from sentimill.engine.base import EngineInfo
from sentimill.engine.failures import call_engine
from sentimill.errors import EngineError

__all__ = ["OnnxEngine", "open_session"]

log = logging.getLogger(__name__)

_NAMES: Final = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}

_SPIN_US: Final = 1000
"""How long a thread without work spins before it sleeps: longer than from one operator to the next,
or each would wait for it to wake. By itself ONNX Runtime counts turns and not time, which take 3 to
500 ms by processor (onnxruntime pull request 27916): after a call on all threads they would keep a
core from calls that have one each, from gRPC and from the tokenizers."""


_LEFT_OUT: Final[Mapping[str, list[str]]] = {
    "cpu": ["SkipLayerNormFusion"],
    "cuda": ["MatMulAddFusion"],
}
"""Fusions that cost time, where a graph comes without them, as the exporter of `train` writes it.
On a CPU a norm fused with the sums before it takes 2.6 ms for 1,024 tokens of 384 channels, and the
three operators one by one 0.6 (onnxruntime 1.32). On CUDA a product fused with its bias writes that
to every row first, which takes twice as long as the product (an H200, onnxruntime 1.31)."""


class OnnxEngine:
    """A graph in memory, so that no file is read after its hash was checked.

    On a CPU, as many calls at once as there are threads have one each: then no thread waits for
    another between two operators, and what a call works on stays in the cache of its core
    (benchmarks/engine/engine_rate.py). Fewer calls share all of the threads. That takes two
    sessions, each with weights of its own.
    """

    def __init__(self, model: bytes, *, precision: str, threads: int) -> None:
        self._shared = open_session(model, "cpu", threads)
        self._single = open_session(model, "cpu", 1) if threads > 1 else self._shared
        self._info = EngineInfo(
            engine="onnx",
            provider="cpu",
            precision=precision,
            threads=threads,
            exact=True,
            calls=threads,
        )

    def run(
        self, ids: NDArray[np.int64], mask: NDArray[np.int64], *, other_calls: int = 0
    ) -> NDArray[np.float32]:
        """See `Engine.run`."""
        session = self._single if other_calls + 1 >= self._info.threads else self._shared
        feeds = {"input_ids": ids, "attention_mask": mask}
        return call_engine("ONNX Runtime", lambda: session.run(None, feeds)[0])

    def info(self) -> EngineInfo:
        """See `Engine.info`."""
        return self._info


def open_session(
    model: bytes,
    provider: Literal["cpu", "cuda"],
    threads: int,
    *,
    options: Mapping[str, str] | None = None,
    inputs: Sequence[str] = ("input_ids", "attention_mask"),
    few_shapes: bool = False,
) -> onnxruntime.InferenceSession:
    """Return a session that really runs on *provider*, with a graph that takes *inputs*.

    threads: 0 for as many as ONNX Runtime chooses. options: of the provider. few_shapes: the same
    come again and again. Raises EngineError.
    """
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    settings.log_severity_level = 3
    # Versions before 1.26 pass over a name that they do not know.
    settings.add_session_config_entry("session.intra_op.allow_spinning", "1")
    settings.add_session_config_entry("session.intra_op.spin_duration_us", str(_SPIN_US))
    # A plan of memory is kept for each shape (onnxruntime issue 11118), and mostly any may come.
    # Without plans an int8 student took 5.5 MB less a session and no more time.
    settings.enable_mem_pattern = few_shapes
    wanted = _NAMES[provider]
    if provider == "cuda":
        _preload()
    try:
        session = onnxruntime.InferenceSession(
            model,
            sess_options=settings,
            providers=[(wanted, dict(options or {}))],
            disabled_optimizers=_LEFT_OUT[provider],
        )
    except Exception as error:
        raise EngineError(
            f"ONNX Runtime cannot load the graph: {error}", reason="ENGINE_LOAD_FAILED"
        ) from error
    got = session.get_providers()[0]
    if got != wanted:
        # ONNX Runtime falls back with a warning; a GPU service on the CPU is an outage that nobody
        # sees.
        raise EngineError(
            f"asked for {provider} and got {got}: check the driver with `sentimill doctor`, get the"
            " libraries with `pip install 'onnxruntime-gpu[cuda,cudnn]'`, or use --provider cpu",
            reason="ENGINE_PROVIDER_FALLBACK",
        )
    names = [graph_input.name for graph_input in session.get_inputs()]
    if sorted(names) != sorted(inputs):
        raise EngineError(
            f"the graph takes {names}, not {' and '.join(inputs)}: export it again",
            reason="ENGINE_BAD_GRAPH",
        )
    return session


@cache
def _preload() -> None:
    """Load CUDA's libraries from where pip puts them; the system's own are found without."""
    with redirect_stdout(io.StringIO()) as said:  # it prints what it does not find
        onnxruntime.preload_dlls(directory="")
    if said.getvalue():
        log.info("CUDA's libraries: %s", said.getvalue().strip())
