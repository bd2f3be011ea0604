"""ONNX Runtime, on the CPU or on a CUDA device. The only file that knows it."""

from __future__ import annotations

import logging
from typing import Final, Literal

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from sentimill.engine import FAILED, EngineInfo
from sentimill.errors import EngineError

__all__ = ["OnnxEngine"]

log = logging.getLogger(__name__)

_NAMES: Final = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}

_CUDA_STEP: Final = 32
"""Lengths on a GPU round up to this, so that few shapes are planned and the arena stays small."""

_CUDA_CALLS: Final = 2
"""One copies its texts in or its logits out while the other computes."""

_CUDA_OPTIONS: Final = {
    # Grow by what is asked for: doubling would take the card's memory for one odd shape.
    "arena_extend_strategy": "kSameAsRequested",
    "do_copy_in_default_stream": "1",
}


class OnnxEngine:
    """A graph in memory, so that no file is read after its hash was checked.

    On a CPU, as many calls at once as there are threads have one each: then no thread waits for
    another between two operators, and what a call works on stays in the cache of its core
    (benchmarks/engine.py). Fewer calls share all of the threads. That takes two sessions, each with
    weights of its own.
    """

    def __init__(
        self, model: bytes, *, provider: Literal["cpu", "cuda"], precision: str, threads: int
    ) -> None:
        on_cpu = provider == "cpu"
        self._shared = _session(model, provider, threads)
        self._single = _session(model, provider, 1) if on_cpu and threads > 1 else self._shared
        names = [graph_input.name for graph_input in self._shared.get_inputs()]
        if sorted(names) != ["attention_mask", "input_ids"]:
            raise EngineError(
                f"the graph takes {names}, not input_ids and attention_mask: export it again",
                reason="ENGINE_BAD_GRAPH",
            )
        self._info = EngineInfo(
            engine="onnx",
            provider=provider,
            precision=precision,
            threads=threads,
            exact=on_cpu,
            token_step=1 if on_cpu else _CUDA_STEP,
            calls=threads if on_cpu else _CUDA_CALLS,
        )

    def run(
        self, ids: NDArray[np.int64], mask: NDArray[np.int64], *, beside: int = 0
    ) -> NDArray[np.float32]:
        """See `Engine.run`."""
        session = self._single if beside + 1 >= self._info.threads else self._shared
        try:
            (logits,) = session.run(None, {"input_ids": ids, "attention_mask": mask})
        except Exception as error:
            log.error("ONNX Runtime failed: %s", error)
            raise EngineError(FAILED, reason="ENGINE_FAILED") from error
        # An fp16 graph may end in fp16.
        result: NDArray[np.float32] = np.asarray(logits, dtype=np.float32)
        return result

    def info(self) -> EngineInfo:
        """See `Engine.info`."""
        return self._info


def _session(
    model: bytes, provider: Literal["cpu", "cuda"], threads: int
) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    wanted = _NAMES[provider]
    try:
        session = onnxruntime.InferenceSession(
            model,
            sess_options=options,
            providers=[(wanted, _CUDA_OPTIONS if provider == "cuda" else {})],
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
            f"asked for {provider} and got {got}: check the driver with `sentimill doctor`, or use"
            " --provider cpu",
            reason="ENGINE_PROVIDER_FALLBACK",
        )
    return session
