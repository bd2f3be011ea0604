"""The engine for GPUs, on the CPU: its sessions change no answer.

tests/train/export/test_packed_graph.py runs it on graphs without padding.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper

from sentimill.engine import onnx_cuda
from sentimill.engine.base import EngineChoice
from sentimill.engine.factory import start_engine
from sentimill.engine.failures import FAILED
from sentimill.engine.onnx_cpu import OnnxEngine
from sentimill.engine.onnx_cuda import CudaEngine, packed_feeds
from sentimill.engine.onnx_session import PACKED_INPUTS, PADDED_INPUTS, open_session
from sentimill.errors import EngineError
from sentimill.text.tokenizer import pad
from tiny_bundle import WORDS, attention_graph, graph


@pytest.fixture(autouse=True, scope="module")
def on_the_cpu() -> object:
    """Let sessions run on the CPU, where all but the device is the same."""

    def session(model: bytes, provider: str, threads: int) -> object:
        assert (provider, threads) == ("cuda", 1)
        found: onnxruntime.InferenceSession = open_session(model, "cpu", threads)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx_cuda, "open_session", session)
        yield


@pytest.fixture(scope="module")
def engine() -> CudaEngine:
    """Return an engine of a graph whose sums would show a mix of texts."""
    return CudaEngine(attention_graph(), precision="fp32")


@pytest.fixture(scope="module")
def plain() -> OnnxEngine:
    """Return what it is compared with."""
    return OnnxEngine(attention_graph(), precision="fp32", threads=1)


def batch(rows: int, tokens: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return ids and mask (rows, tokens) of texts of any lengths."""
    random = np.random.default_rng(1000 * rows + tokens)
    mask = (np.arange(tokens) < random.integers(1, tokens + 1, (rows, 1))).astype(np.int64)
    return random.integers(1, len(WORDS), (rows, tokens)) * mask, mask


@settings(deadline=None, max_examples=30)
@given(rows=st.integers(1, 70), tokens=st.integers(1, 70))
def test_each_text_gets_what_a_plain_session_gives(
    engine: CudaEngine, plain: OnnxEngine, rows: int, tokens: int
) -> None:
    """A graph with padding runs as it is."""
    ids, mask = batch(rows, tokens)

    found = engine.run(ids, mask)

    assert found.dtype == np.float32
    assert found.shape == (rows, 3)
    assert found.tobytes() == plain.run(ids, mask).tobytes()


def test_the_inputs_say_where_texts_stand() -> None:
    """By name, in the kinds of numbers that the operators take."""
    _, mask = pad([np.array([5, 6]), np.array([7, 8, 9])], 0)

    found = packed_feeds(mask)

    assert (*PADDED_INPUTS, *found) == PACKED_INPUTS
    assert found["token_positions"].tolist() == [0, 1, 3, 4, 5]
    assert found["token_offset"].tolist() == [[0, 1, 3], [4, 5, 2]]
    assert found["cumulative_lengths"].tolist() == [0, 2, 5]
    assert found["token_offset"].dtype == found["cumulative_lengths"].dtype == np.int32


def test_calls_at_once_do_not_mix(engine: CudaEngine, plain: OnnxEngine) -> None:
    """More callers than sessions wait for one another, and each gets its own answer."""
    batches = [batch(1 + i % 5, 32) for i in range(40)]
    expected = [plain.run(*each).tobytes() for each in batches]

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda each: engine.run(*each, other_calls=1).tobytes(), batches))

    assert found == expected


def test_a_failing_call_is_an_engine_error_and_the_next_ones_run() -> None:
    """The session that failed goes back to work."""
    engine = CudaEngine(graph(fail_on="poison"), precision="fp32")
    good, bad = (np.array([[WORDS.index(word)]]) for word in ("good", "poison"))

    for _ in range(engine.info.calls):
        with pytest.raises(EngineError, match=FAILED):
            engine.run(bad, np.ones_like(bad))

    for _ in range(engine.info.calls):
        assert engine.run(good, np.ones_like(good)).tolist() == [[0.0, 0.0, 3.0]]


def test_logits_in_half_precision_come_out_as_float32() -> None:
    """A graph may end in fp16; what follows computes in float32."""
    model = onnx.load_from_string(graph())
    model.graph.node[-1].output[0] = "single"
    model.graph.node.append(
        helper.make_node("Cast", ["single"], ["logits"], to=TensorProto.FLOAT16)
    )
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    engine = CudaEngine(model.SerializeToString(), precision="fp16")
    row = np.array([[WORDS.index("good")]])

    found = engine.run(row, np.ones_like(row))

    assert found.dtype == np.float32
    assert found.tolist() == [[0.0, 0.0, 3.0]]


def test_a_graph_with_padding_is_named_as_slow(caplog: pytest.LogCaptureFixture) -> None:
    """The bundle may be older than packed graphs, or have none in this precision."""
    made = CudaEngine(graph(), precision="fp32")

    assert not made.info.unpadded
    assert "sentimill export --precision fp16" in caplog.text


def test_what_is_chosen_for_cuda_asks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime is asked for CUDA, in sessions of one CPU thread."""
    asked: list[tuple[str, int]] = []

    def refuse(_: bytes, provider: str, threads: int) -> None:
        asked.append((provider, threads))
        raise EngineError("no device", reason="ENGINE_PROVIDER_FALLBACK")

    monkeypatch.setattr(onnx_cuda, "open_session", refuse)
    choice = EngineChoice(engine="onnx", provider="cuda", precision="fp16", why="a test")

    with pytest.raises(EngineError, match="no device"):
        start_engine([choice], lambda _: graph(), threads=8)

    assert asked == [("cuda", 1)]
