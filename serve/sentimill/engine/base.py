"""The types of an inference engine: token ids in, logits out.

An engine knows nothing about text, labels or how batches are formed. `selection` ranks the engines
that a machine can run, and `factory` starts one. Each backend library has a file of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    import numpy as np  # the command line needs only the names; without numpy `--help` is quick
    from numpy.typing import NDArray

EngineName = Literal["auto", "onnx", "openvino"]
Provider = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "fp32", "fp16", "bf16", "int8"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineInfo:
    """What really runs, as the loaded engine reports it. It may differ from what was asked for.

    token_step: lengths should be rounded up to a multiple of this. unpadded: the engine computes no
    padding. calls: how many calls at once give the most throughput.
    """

    engine: str
    provider: str
    precision: str
    threads: int
    token_step: int = 1
    unpadded: bool = False
    calls: int = 1


class Engine(Protocol):
    """A loaded graph."""

    info: EngineInfo

    def run(
        self, ids: NDArray[np.int64], mask: NDArray[np.int64], *, other_calls: int = 0
    ) -> NDArray[np.float32]:
        """Return logits (rows, labels) for *ids* and *mask*, both (rows, tokens), from any thread.

        other_calls: how many other calls run now or soon. It may decide how many threads this call
        takes. It never changes the logits.

        Raises EngineError when the engine fails.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineWish:
    """What the user asked for; `auto` leaves a choice to `selection.rank_engines`."""

    engine: EngineName = "auto"
    provider: Provider = "auto"
    precision: Precision = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineChoice:
    """One way to run a graph, and why it has its rank.

    flags: the CPU needs one of these; if empty, any CPU can run it.
    """

    engine: Literal["onnx", "openvino"]
    provider: Literal["cpu", "cuda"]
    precision: str
    why: str
    flags: frozenset[str] = frozenset()
