"""ONNX Runtime on a CUDA device, with or without padding."""

from __future__ import annotations

import logging
from queue import SimpleQueue
from typing import Final

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from sentimill.engine.base import EngineInfo
from sentimill.engine.failures import call_engine
from sentimill.engine.onnx_session import PACKED_INPUTS, open_session

log = logging.getLogger(__name__)

_SESSIONS: Final = 3
"""Calls of one session share its stream (onnxruntime issue 12049), so each concurrent call has a
session of its own. On an H200, at 16,384 tokens per call, two sessions had 1.3 times the throughput
of one, three 1.4 times, and four no more (benchmarks/results/engine-gpu.md, an older graph)."""


class CudaEngine:
    """A graph in as many sessions as calls run at once.

    A bundle may have a graph for GPUs that computes no padding, made by
    `sentimill_train.export.packed_graph`. Any other graph gets the padded batch as it is.
    """

    def __init__(self, model: bytes, *, precision: str) -> None:
        # One thread: only a few nodes, which compute shapes, run on the CPU.
        sessions = [open_session(model, "cuda", 1) for _ in range(_SESSIONS)]
        self._idle: SimpleQueue[onnxruntime.InferenceSession] = SimpleQueue()
        for session in sessions:
            self._idle.put(session)
        unpadded = len(sessions[0].get_inputs()) == len(PACKED_INPUTS)
        if not unpadded:
            log.warning(
                "the bundle has no graph without padding in %s, so the GPU computes padding too:"
                " make one with `sentimill export --precision fp16`",
                precision,
            )
        self.info = EngineInfo(
            engine="onnx",
            provider="cuda",
            precision=precision,
            threads=1,
            unpadded=unpadded,
            calls=_SESSIONS,
        )

    def run(
        self, ids: NDArray[np.int64], mask: NDArray[np.int64], *, other_calls: int = 0
    ) -> NDArray[np.float32]:
        """See `Engine.run`; a call waits while all sessions are busy."""
        feeds: dict[str, NDArray[np.generic]] = {"input_ids": ids, "attention_mask": mask}
        if self.info.unpadded:
            feeds |= packed_feeds(mask)
        session = self._idle.get()
        try:
            return call_engine("ONNX Runtime", lambda: session.run(None, feeds)[0])
        finally:
            self._idle.put(session)


def packed_feeds(mask: NDArray[np.int64]) -> dict[str, NDArray[np.generic]]:
    """Return the inputs of a graph without padding that come after ids and *mask*, by name.

    mask: (rows, tokens). token_positions: (n,) int64, the positions in the flattened ids of the n
    tokens that are not padding. token_offset: (rows, tokens) int32, those positions and then those
    of padding. cumulative_lengths: (rows + 1,) int32, where each text begins among the n tokens,
    and where the last one ends. PackedMultiHeadAttention of ONNX Runtime defines the last two.
    """
    flat = mask.ravel() != 0
    positions = np.flatnonzero(flat)
    order = np.concatenate([positions, np.flatnonzero(~flat)])
    ends = np.cumsum(mask.sum(axis=1))
    return {
        "token_positions": positions,
        "token_offset": order.astype(np.int32).reshape(mask.shape),
        "cumulative_lengths": np.concatenate([[0], ends]).astype(np.int32),
    }
