"""OpenVINO on the CPU, in bf16 or fp32 from the fp32 graph. No other module imports it."""

from __future__ import annotations

import threading
from typing import Final

import numpy as np
import openvino
from numpy.typing import NDArray

from sentimill.engine.base import EngineInfo
from sentimill.engine.failures import call_engine
from sentimill.errors import EngineError

_STEP: Final = 16
"""Lengths are rounded up to a multiple of this. At other lengths the kernels add in another order,
but a text must get the same bits at any padding (tests/serve/test_invariance.py,
benchmarks/engine/engine_rate.py)."""

_HINTS: Final = {"fp32": "f32", "bf16": "bf16"}
_TYPES: Final = {"fp32": openvino.Type.f32, "bf16": openvino.Type.bf16}


class OpenvinoEngine:
    """A graph in memory, compiled for this CPU; one call runs at a time on all its threads."""

    def __init__(self, model: bytes, *, precision: str, threads: int) -> None:
        core = openvino.Core()
        settings = {
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            # Pinned threads would fight with gRPC and the tokenizers for the same core while
            # another one idles.
            "ENABLE_CPU_PINNING": False,
        }
        try:
            compiled = core.compile_model(core.read_model(model), "CPU", settings)
        except Exception as error:
            raise EngineError(
                f"OpenVINO cannot load the graph: {error}", reason="ENGINE_LOAD_FAILED"
            ) from error
        names = sorted(one.get_any_name() for one in compiled.inputs)
        if names != ["attention_mask", "input_ids"]:
            raise EngineError(
                f"the graph takes {names}, not input_ids and attention_mask: export it again",
                reason="ENGINE_BAD_GRAPH",
            )
        got = compiled.get_property("INFERENCE_PRECISION_HINT")
        if got != _TYPES[precision]:
            raise EngineError(
                f"asked for {precision} and got {got}: use --precision fp32",
                reason="ENGINE_PROVIDER_FALLBACK",
            )
        self._request = compiled.create_infer_request()
        self._lock = threading.Lock()
        self.info = EngineInfo(
            engine="openvino",
            provider="cpu",
            precision=precision,
            threads=int(compiled.get_property("INFERENCE_NUM_THREADS")),
            token_step=_STEP,
        )

    def run(
        self, ids: NDArray[np.int64], mask: NDArray[np.int64], *, other_calls: int = 0
    ) -> NDArray[np.float32]:
        """See `Engine.run`."""
        # One stream would run two calls one after the other anyway, and a request is not
        # thread-safe.
        feeds = {"input_ids": ids, "attention_mask": mask}
        with self._lock:
            # A copy: the next call writes its logits to the same place.
            return call_engine(
                "OpenVINO", lambda: np.array(self._request.infer(feeds, share_inputs=True)[0])
            )
