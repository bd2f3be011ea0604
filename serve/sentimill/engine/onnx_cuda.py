"""ONNX Runtime on a CUDA device without padding: what is computed are the tokens of texts."""

from __future__ import annotations

from queue import SimpleQueue
from typing import Final

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from sentimill.engine.base import EngineInfo
from sentimill.engine.failures import call_engine
from sentimill.engine.onnx_cpu import open_session
from sentimill.engine.packing import INPUTS, pack

__all__ = ["PackedEngine"]

_SESSIONS: Final = 3
"""Calls of one session share its stream (onnxruntime issue 12049), so each that goes at once has
its own. On an H200 two did 1.3 times as much as one at 16,384 tokens a call, three 1.4, and four no
more (benchmarks/results/engine-gpu.md, of the graph before it was as it is)."""

_CUDA_OPTIONS: Final = {"do_copy_in_default_stream": "1"}
"""The arena grows as it does by itself: past the largest call it hardly did, either way."""


class PackedEngine:
    """A graph that `packing.pack_graph` has rewritten, in as many sessions as calls go at once."""

    def __init__(self, model: bytes, *, precision: str) -> None:
        self._idle: SimpleQueue[onnxruntime.InferenceSession] = SimpleQueue()
        for _ in range(_SESSIONS):
            # One thread: a few nodes that count shapes are all that the CPU is left with.
            session = open_session(model, "cuda", threads=1, options=_CUDA_OPTIONS, inputs=INPUTS)
            self._idle.put(session)
        self._info = EngineInfo(
            engine="onnx",
            provider="cuda",
            precision=precision,
            threads=1,
            exact=False,
            packs=True,
            calls=_SESSIONS,
        )

    def run(
        self, ids: NDArray[np.int64], mask: NDArray[np.int64], *, other_calls: int = 0
    ) -> NDArray[np.float32]:
        """See `Engine.run`; more calls at once than there are sessions wait."""
        feeds = pack(ids, mask)
        session = self._idle.get()
        try:
            return call_engine("ONNX Runtime", lambda: session.run(None, feeds)[0])
        finally:
            self._idle.put(session)

    def info(self) -> EngineInfo:
        """See `Engine.info`."""
        return self._info
