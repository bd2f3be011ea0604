"""Opens a session of ONNX Runtime on a CPU or a GPU, from a graph in memory."""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping
from contextlib import redirect_stdout
from functools import cache
from typing import Final, Literal

import onnxruntime

from sentimill.errors import EngineError

log = logging.getLogger(__name__)

PADDED_INPUTS: Final = ("input_ids", "attention_mask")
"""The inputs of a graph that runs on any device: both (rows, tokens)."""

PACKED_INPUTS: Final = (*PADDED_INPUTS, "token_positions", "token_offset", "cumulative_lengths")
"""The inputs of a graph that computes no padding; see `onnx_cuda.packed_feeds`."""

_NAMES: Final = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_OPTIONS: Final[Mapping[str, dict[str, str]]] = {
    "cpu": {},
    # The memory arena keeps its default growth: with either strategy it hardly grew after the
    # largest call.
    "cuda": {"do_copy_in_default_stream": "1"},
}
_INPUTS: Final[Mapping[str, list[tuple[str, ...]]]] = {
    "cpu": [PADDED_INPUTS],
    "cuda": [PADDED_INPUTS, PACKED_INPUTS],
}

_SPIN_US: Final = 1000
"""How long a thread without work spins before it sleeps. It has to be longer than the gap between
two operators, or each operator would wait for the thread to wake. ONNX Runtime's default counts
iterations, which take 3 to 500 ms, depending on the processor (onnxruntime pull request 27916).
After a call on all threads, its threads would keep the cores from one-thread calls, gRPC and the
tokenizers."""

_DISABLED_FUSIONS: Final[Mapping[str, list[str]]] = {
    "cpu": ["SkipLayerNormFusion"],
    "cuda": ["MatMulAddFusion"],
}
"""`train` exports graphs without these fusions, and ONNX Runtime must not add them: they cost time.
On a CPU, a norm fused with the sums before it takes 2.6 ms for 1,024 tokens of 384 channels, and
the three separate operators 0.6 ms (onnxruntime 1.32). On CUDA, a MatMul fused with its bias first
writes the bias to every row, which takes twice as long as the MatMul (an H200, onnxruntime 1.31).
"""


def open_session(
    model: bytes, provider: Literal["cpu", "cuda"], threads: int
) -> onnxruntime.InferenceSession:
    """Return a session that really runs on *provider*.

    threads: 0 for as many as ONNX Runtime chooses. Raises EngineError.
    """
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    settings.log_severity_level = 3
    # Versions before 1.26 ignore a name that they do not know.
    settings.add_session_config_entry("session.intra_op.allow_spinning", "1")
    settings.add_session_config_entry("session.intra_op.spin_duration_us", str(_SPIN_US))
    # ONNX Runtime would keep a memory plan for each shape (issue 11118), and there are many shapes.
    # Without plans an int8 student took 5.5 MB less per session and no more time.
    settings.enable_mem_pattern = False
    wanted = _NAMES[provider]
    if provider == "cuda":
        _preload()
    try:
        session = onnxruntime.InferenceSession(
            model,
            sess_options=settings,
            providers=[(wanted, _OPTIONS[provider])],
            disabled_optimizers=_DISABLED_FUSIONS[provider],
        )
    except Exception as error:
        raise EngineError(
            f"ONNX Runtime cannot load the graph: {error}", reason="ENGINE_LOAD_FAILED"
        ) from error
    got = session.get_providers()[0]
    if got != wanted:
        # ONNX Runtime only warns and uses the CPU. For a GPU service that is an unnoticed outage.
        raise EngineError(
            f"asked for {provider} and got {got}: check the driver with `sentimill doctor`, get the"
            " libraries with `pip install 'onnxruntime-gpu[cuda,cudnn]'`, or use --provider cpu",
            reason="ENGINE_PROVIDER_FALLBACK",
        )
    names = [graph_input.name for graph_input in session.get_inputs()]
    if sorted(names) not in [sorted(inputs) for inputs in _INPUTS[provider]]:
        raise EngineError(
            f"the graph takes {names}, not {' and '.join(PADDED_INPUTS)}: export it again",
            reason="ENGINE_BAD_GRAPH",
        )
    return session


@cache
def _preload() -> None:
    """Load CUDA's libraries from pip's folders; ONNX Runtime itself finds those of the system."""
    with redirect_stdout(io.StringIO()) as said:  # it prints what it does not find
        onnxruntime.preload_dlls(directory="")
    if said.getvalue():
        log.info("CUDA's libraries: %s", said.getvalue().strip())
