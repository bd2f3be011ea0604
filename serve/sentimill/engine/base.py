"""Inference engines: token ids in, logits out.

An engine knows nothing about text, labels or batching policy. ONNX Runtime is behind
`engine_onnx` and, on a GPU, `engine_packed` and `engine_gpu`; OpenVINO is behind `engine_openvino`,
and `engine_choice` says which of them a machine should use.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from sentimill.engine.hardware import Machine, usable_cores
from sentimill.errors import EngineError

__all__ = [
    "Engine",
    "EngineChoice",
    "EngineInfo",
    "EngineName",
    "EngineWish",
    "Precision",
    "Provider",
    "load_engine",
    "row_bucket",
    "start_engine",
    "usable_cores",
    "usable_providers",
]

log = logging.getLogger(__name__)

EngineName = Literal["auto", "onnx", "openvino"]
Provider = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "fp32", "fp16", "bf16", "int8"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineInfo:
    """What really runs, asked of the loaded engine: not what was wished for.

    exact: a text gets the same bits whatever its batch mates and padding. token_step: the engine
    profits from lengths that are multiples of this. rounds_rows: it fills a batch up to
    `row_bucket`. packs: it computes no padding. calls: it does most with so many calls at once.
    """

    engine: str
    provider: str
    precision: str
    threads: int
    exact: bool
    token_step: int = 1
    rounds_rows: bool = False
    packs: bool = False
    calls: int = 1


class Engine(Protocol):
    """A loaded graph."""

    def run(
        self, ids: NDArray[np.int64], mask: NDArray[np.int64], *, other_calls: int = 0
    ) -> NDArray[np.float32]:
        """Return logits (rows, labels) for *ids* and *mask*, both (rows, tokens), from any thread.

        other_calls: how many other calls run now or soon. It may decide how many threads this call
        takes. It never changes the logits.

        Raises EngineError when the engine fails.
        """
        ...

    def info(self) -> EngineInfo:
        """Say what runs."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineWish:
    """What the user asked for; `auto` leaves it to `engine_choice.rank_engines`."""

    engine: EngineName = "auto"
    provider: Provider = "auto"
    precision: Precision = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineChoice:
    """One engine that this machine can run, and why it is ranked where it is."""

    engine: Literal["onnx", "openvino"]
    provider: Literal["cpu", "cuda"]
    precision: str
    why: str


def start_engine(
    choices: Sequence[EngineChoice], graph_of: Callable[[str], bytes], *, threads: int | None
) -> tuple[Engine, EngineChoice]:
    """Start the first of *choices* that really runs here, and return which it is.

    graph_of: the ONNX graph of a precision. A choice is passed over only when the machine turns out
    not to have its device (a CUDA build without a driver) and another choice is left. threads: CPU
    threads of the engine; None takes every core that this process may use.

    Raises:
        EngineError: the graph does not load, or the only device asked for is not to be had.
    """
    cores = threads or usable_cores()
    for place, choice in enumerate(choices):
        try:
            engine = _start(choice, graph_of(choice.precision), cores)
        except EngineError as error:
            if error.reason != "ENGINE_PROVIDER_FALLBACK" or place + 1 == len(choices):
                raise
            log.warning("%s on %s does not run here: %s", choice.engine, choice.provider, error)
            continue
        return engine, choice
    raise EngineError("there is no engine to choose from", reason="ENGINE_MISSING")


def load_engine(
    model: bytes,
    *,
    engine: EngineName = "auto",
    provider: Provider = "auto",
    precision: Precision = "fp32",
    threads: int | None = None,
) -> Engine:
    """Return an engine for the ONNX graph *model* run in *precision*.

    Raises:
        UsageError: an engine, provider or precision that cannot be had on this machine.
        EngineError: the graph does not load, or another provider was got than the one asked for.
    """
    from sentimill.engine.selection import rank_engines

    wish = EngineWish(engine=engine, provider=provider, precision=precision)
    choices = rank_engines(wish, [precision], Machine.here())
    return start_engine(choices, lambda _: model, threads=threads)[0]


def row_bucket(rows: int) -> int:
    """Return *rows* rounded up to one of eight sizes an octave; up to 16 every number is one.

    A batch then has at most a ninth of rows that nobody asked for, and a budget of 32,768 tokens
    about 400 shapes.
    """
    step = 1 << max(0, (rows - 1).bit_length() - 4)
    return -(-rows // step) * step


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


def _start(choice: EngineChoice, model: bytes, threads: int) -> Engine:
    if choice.engine == "openvino":
        from sentimill.engine.openvino import OpenvinoEngine

        return OpenvinoEngine(model, precision=choice.precision, threads=threads)
    if choice.provider == "cuda":
        return _start_cuda(model, choice.precision)
    from sentimill.engine.onnx_cpu import OnnxEngine

    return OnnxEngine(model, precision=choice.precision, threads=threads)


def _start_cuda(model: bytes, precision: str) -> Engine:
    from sentimill.engine.onnx_cuda_padded import GpuEngine

    try:
        from sentimill.engine.packing import pack_graph
    except ImportError:
        log.warning("without onnx, padding is computed too: pip install 'sentimill[gpu]'")
        return GpuEngine(model, precision=precision)
    packed = pack_graph(model)
    if packed is None:
        log.warning("the graph is of another make than ours, so padding is computed too")
        return GpuEngine(model, precision=precision)
    from sentimill.engine.onnx_cuda import PackedEngine

    return PackedEngine(packed, precision=precision)
