"""Inference engines: token ids in, logits out. The only file that knows ONNX Runtime.

An engine knows nothing about text, labels or batching policy.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from sentimill.errors import EngineError, UsageError

__all__ = ["Engine", "EngineInfo", "OnnxEngine", "Provider", "load_engine", "usable_providers"]

Provider = Literal["auto", "cpu", "cuda"]

_ONNX_NAMES: Final = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What really runs: the provider that the session got, not the one that was asked for."""

    provider: str
    threads: int


class Engine(Protocol):
    """A loaded graph."""

    def run(self, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return logits (rows, labels) for *ids* and *mask*, both (rows, tokens), from any thread.

        Raises EngineError when the engine fails.
        """
        ...

    def info(self) -> EngineInfo:
        """Say what runs."""
        ...


class OnnxEngine:
    """ONNX Runtime on a graph in memory, so that no file is read after its hash was checked."""

    def __init__(self, model: bytes, *, provider: Provider, threads: int | None) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise EngineError(
                "ONNX Runtime is not installed: pip install 'sentimill[cpu]', or 'sentimill[gpu]' "
                "for a CUDA machine",
                reason="ENGINE_MISSING",
            ) from error
        wanted = _choose(provider, onnxruntime.get_available_providers())
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or usable_cores()
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                model, sess_options=options, providers=[_ONNX_NAMES[wanted]]
            )
        except Exception as error:
            raise EngineError(
                f"ONNX Runtime cannot load the graph: {error}", reason="ENGINE_LOAD_FAILED"
            ) from error
        got = self._session.get_providers()[0]
        if got != _ONNX_NAMES[wanted]:
            # ONNX Runtime falls back with a warning; a GPU service on the CPU is an outage that
            # nobody sees.
            raise EngineError(
                f"asked for {wanted} and got {got}: check the driver with `sentimill doctor`, "
                "or use --provider cpu",
                reason="ENGINE_PROVIDER_FALLBACK",
            )
        self._info = EngineInfo(provider=wanted, threads=options.intra_op_num_threads)
        names = [graph_input.name for graph_input in self._session.get_inputs()]
        if sorted(names) != ["attention_mask", "input_ids"]:
            raise EngineError(
                f"the graph takes {names}, not input_ids and attention_mask: export it again",
                reason="ENGINE_BAD_GRAPH",
            )

    def run(self, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
        """See `Engine.run`."""
        try:
            (logits,) = self._session.run(None, {"input_ids": ids, "attention_mask": mask})
        except Exception as error:
            raise EngineError(f"the engine failed: {error}", reason="ENGINE_FAILED") from error
        result: NDArray[np.float32] = logits
        return result

    def info(self) -> EngineInfo:
        """See `Engine.info`."""
        return self._info


def load_engine(model: bytes, *, provider: Provider = "auto", threads: int | None = None) -> Engine:
    """Return an engine for the ONNX graph *model*.

    provider: `auto` takes CUDA where the installed ONNX Runtime has it, else the CPU. threads: CPU
    threads for one engine call; None takes every core that this process may use.

    Raises:
        EngineError: no ONNX Runtime, a graph that does not load, or another provider than the one
        asked for. UsageError: a provider that the installed ONNX Runtime does not have.
    """
    return OnnxEngine(model, provider=provider, threads=threads)


def usable_providers() -> dict[str, str]:
    """Return the version of ONNX Runtime and the providers it was built with, by name."""
    try:
        import onnxruntime
    except ImportError:
        return {}
    return {
        "onnxruntime": onnxruntime.__version__,
        "providers": ", ".join(onnxruntime.get_available_providers()),
    }


def usable_cores() -> int:
    """Return how many cores this process may use; a container has fewer than its machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _choose(provider: Provider, available: list[str]) -> str:
    if provider == "auto":
        return "cuda" if _ONNX_NAMES["cuda"] in available else "cpu"
    if provider not in _ONNX_NAMES:
        raise UsageError(
            f"unknown provider {provider!r}: use auto, {' or '.join(_ONNX_NAMES)}",
            reason="UNKNOWN_PROVIDER",
        )
    if _ONNX_NAMES[provider] not in available:
        raise UsageError(
            f"this ONNX Runtime has no {provider} provider (it has {', '.join(available)}):"
            f" pip install 'sentimill[{'gpu' if provider == 'cuda' else 'cpu'}]'",
            reason="PROVIDER_NOT_INSTALLED",
        )
    return provider
