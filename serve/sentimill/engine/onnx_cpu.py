"""ONNX Runtime on the CPU."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sentimill.engine.base import EngineInfo
from sentimill.engine.failures import call_engine
from sentimill.engine.onnx_session import open_session


class OnnxEngine:
    """A graph in memory, so that no file is read after its hash was checked.

    When as many calls run at once as there are threads, each call gets one thread. No thread then
    waits for another between two operators, and the data of a call stays in the cache of its core
    (benchmarks/engine/engine_rate.py). Fewer calls share all of the threads. That takes two
    sessions, each with weights of its own.
    """

    def __init__(self, model: bytes, *, precision: str, threads: int) -> None:
        self._shared = open_session(model, "cpu", threads)
        self._single = open_session(model, "cpu", 1) if threads > 1 else self._shared
        self.info = EngineInfo(
            engine="onnx", provider="cpu", precision=precision, threads=threads, calls=threads
        )

    def run(
        self, ids: NDArray[np.int64], mask: NDArray[np.int64], *, other_calls: int = 0
    ) -> NDArray[np.float32]:
        """See `Engine.run`."""
        session = self._single if other_calls + 1 >= self.info.threads else self._shared
        feeds = {"input_ids": ids, "attention_mask": mask}
        return call_engine("ONNX Runtime", lambda: session.run(None, feeds)[0])
