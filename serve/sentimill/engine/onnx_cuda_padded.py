"""ONNX Runtime on a CUDA device, padding and all: for graphs that `packing` cannot rewrite.

Few shapes, inputs that stay in one place, a session a call. ONNX Runtime plans cuDNN's attention
for each shape in each thread, which takes a call some 30 ms the first time that it meets one.
"""

from __future__ import annotations

from dataclasses import dataclass
from queue import SimpleQueue
from typing import Final, Literal

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from sentimill.engine.base import EngineInfo, row_bucket
from sentimill.engine.failures import call_engine
from sentimill.engine.onnx_cpu import open_session

__all__ = ["GpuEngine"]

_STEP: Final = 32
"""Lengths round up to this, so that few shapes are planned and the arena stays small."""

_SESSIONS: Final = 2
"""One copies its texts in or its logits out while the other computes. It takes two sessions: all
calls of one session share its stream (onnxruntime issue 12049)."""

_CUDA_OPTIONS: Final = {
    # Grow by what is asked for: doubling would take the card's memory for one odd shape.
    "arena_extend_strategy": "kSameAsRequested",
    "do_copy_in_default_stream": "1",
}


class GpuEngine:
    """A graph in memory, in as many sessions as calls may run at once; each has its own weights.

    Rows and lengths round up to buckets, each of which is bound to memory of its own at its first
    call: `warm_up` makes all of those.
    """

    def __init__(
        self, model: bytes, *, precision: str, provider: Literal["cpu", "cuda"] = "cuda"
    ) -> None:
        """Load *model*; *provider* is `cpu` in tests, where all but the device is the same."""
        options = _CUDA_OPTIONS if provider == "cuda" else {}
        self._idle: SimpleQueue[_BoundSession] = SimpleQueue()
        for _ in range(_SESSIONS):
            # One thread: a few nodes that count shapes are all that the CPU is left with.
            session = open_session(
                model, provider, threads=1, options=options, few_shapes=provider == "cuda"
            )
            self._idle.put(_BoundSession(session, provider))
        self._info = EngineInfo(
            engine="onnx",
            provider=provider,
            precision=precision,
            threads=1,
            exact=provider == "cpu",
            token_step=_STEP,
            rounds_rows=True,
            calls=_SESSIONS,
        )

    def run(
        self, ids: NDArray[np.int64], mask: NDArray[np.int64], *, other_calls: int = 0
    ) -> NDArray[np.float32]:
        """See `Engine.run`; a third call at once waits."""
        rows = len(ids)
        # The last text again: rows without any token might give NaN, and slow numbers with it.
        chosen = np.minimum(np.arange(row_bucket(rows)), rows - 1)
        session = self._idle.get()
        try:
            logits = call_engine("ONNX Runtime", lambda: session.run(ids[chosen], mask[chosen]))
            return logits[:rows]
        finally:
            self._idle.put(session)

    def info(self) -> EngineInfo:
        """See `Engine.info`."""
        return self._info


@dataclass(frozen=True, slots=True)
class _Bound:
    """What one shape is bound to."""

    ids: onnxruntime.OrtValue
    mask: onnxruntime.OrtValue
    binding: onnxruntime.IOBinding


class _BoundSession:
    """A session for one call at a time, with memory on the device for each shape it has seen."""

    def __init__(self, session: onnxruntime.InferenceSession, device: str) -> None:
        self._session = session
        self._device = device
        self._bound: dict[tuple[int, ...], _Bound] = {}

    def run(self, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.generic]:
        """Return the logits (rows, labels) of *ids* and *mask*, both (rows, tokens)."""
        bound = self._bound.get(ids.shape)
        if bound is None:
            bound = self._bound[ids.shape] = self._bind(ids.shape)
        bound.ids.update_inplace(ids)
        bound.mask.update_inplace(mask)
        self._session.run_with_iobinding(bound.binding)  # it returns when the device is done
        logits: NDArray[np.generic] = bound.binding.copy_outputs_to_cpu()[0]
        return logits

    def _bind(self, shape: tuple[int, ...]) -> _Bound:
        ids, mask = (
            onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, np.int64, self._device, 0)
            for _ in range(2)
        )
        binding = self._session.io_binding()
        binding.bind_ortvalue_input("input_ids", ids)
        binding.bind_ortvalue_input("attention_mask", mask)
        # The first run allocates the output there, and the following ones write to the same place.
        binding.bind_output(self._session.get_outputs()[0].name, self._device, 0)
        return _Bound(ids, mask, binding)
