"""The engine for GPUs, on the CPU: its buckets, bound memory and two sessions change no answer."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper

from sentimill import Classifier
from sentimill.engine import onnx_cuda_padded as engine_gpu
from sentimill.engine.base import EngineChoice, row_bucket, start_engine
from sentimill.engine.failures import FAILED
from sentimill.engine.onnx_cpu import OnnxEngine
from sentimill.engine.onnx_cuda_padded import GpuEngine
from sentimill.errors import EngineError
from sentimill.server.model_slot import warm_up
from tiny_bundle import WORDS, attention_graph, graph, write_tiny_bundle

PLAIN = OnnxEngine(attention_graph(), precision="fp32", threads=1)
BOUND = GpuEngine(attention_graph(), precision="fp32", provider="cpu")


def batch(rows: int, tokens: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return ids and mask (rows, tokens) of texts of any lengths."""
    random = np.random.default_rng(1000 * rows + tokens)
    mask = (np.arange(tokens) < random.integers(1, tokens + 1, (rows, 1))).astype(np.int64)
    return random.integers(1, len(WORDS), (rows, tokens)) * mask, mask


def shapes_of(engine: GpuEngine) -> list[set[tuple[int, ...]]]:
    """Return the shapes that each session of an idle engine has memory for."""
    sessions = [engine._idle.get() for _ in range(engine.info().calls)]
    for session in sessions:
        engine._idle.put(session)
    return [set(session._bound) for session in sessions]


@settings(deadline=None, max_examples=100)
@given(rows=st.integers(1, 70), tokens=st.integers(1, 70))
def test_buckets_and_bound_memory_change_no_bit(rows: int, tokens: int) -> None:
    """Each text gets what a plain session gives, and the rows that fill the bucket are dropped."""
    ids, mask = batch(rows, tokens)

    found = BOUND.run(ids, mask)

    assert found.dtype == np.float32
    assert found.shape == (rows, 3)
    assert found.tobytes() == PLAIN.run(ids, mask).tobytes()


def test_an_answer_stays_when_its_memory_is_used_again() -> None:
    """The second call writes where the first one did; what the first gave out is a copy."""
    engine = GpuEngine(attention_graph(), precision="fp32", provider="cpu")
    ids, mask = batch(4, 32)
    first = engine.run(ids, mask)
    kept = first.copy()

    for _ in range(2 * engine.info().calls):
        engine.run(ids[::-1], mask[::-1])

    assert first.tobytes() == kept.tobytes()


def test_calls_at_once_do_not_mix() -> None:
    """More callers than sessions wait for one another, and each gets its own answer."""
    batches = [batch(1 + i % 5, 32) for i in range(40)]
    expected = [PLAIN.run(*each).tobytes() for each in batches]

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda each: BOUND.run(*each, other_calls=1).tobytes(), batches))

    assert found == expected


def test_a_failing_call_is_an_engine_error_and_the_next_ones_run() -> None:
    """The session that failed goes back to work."""
    engine = GpuEngine(graph(fail_on="poison"), precision="fp32", provider="cpu")
    good, bad = (np.array([[WORDS.index(word)]]) for word in ("good", "poison"))

    for _ in range(engine.info().calls):
        with pytest.raises(EngineError, match=FAILED):
            engine.run(bad, np.ones_like(bad))

    for _ in range(engine.info().calls):
        assert engine.run(good, np.ones_like(good)).tolist() == [[0.0, 0.0, 3.0]]


def test_logits_in_half_precision_come_out_as_float32() -> None:
    """A graph may end in fp16; what follows computes in float32."""
    model = onnx.load_from_string(graph())
    model.graph.node[-1].output[0] = "single"
    model.graph.node.append(
        helper.make_node("Cast", ["single"], ["logits"], to=TensorProto.FLOAT16)
    )
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    engine = GpuEngine(model.SerializeToString(), precision="fp16", provider="cpu")
    row = np.array([[WORDS.index("good")]])

    found = engine.run(row, np.ones_like(row))

    assert found.dtype == np.float32
    assert found.tolist() == [[0.0, 0.0, 3.0]]


def test_warm_up_leaves_no_shape_for_a_caller(tmp_path: Path) -> None:
    """Whatever fits the budget, both sessions have had its bucket, and so has a text alone."""
    bundle = write_tiny_bundle(tmp_path / "tiny", max_tokens=80)
    engine = GpuEngine(graph(), precision="fp32", provider="cpu")
    choice = EngineChoice(engine="onnx", provider="cpu", precision="fp32", why="a test")
    classifier = Classifier(bundle, engine, choice)
    budget = 1000

    warm_up(classifier, budget)

    warmed = shapes_of(engine)
    lengths = {classifier.padded_length(n) for n in range(1, 81)}
    assert lengths == {32, 64, 80}
    expected = {
        (row_bucket(n), length) for length in lengths for n in range(1, budget // length + 1)
    }
    assert warmed == [expected, expected]


def test_cuda_gets_the_engine_with_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is chosen for CUDA asks ONNX Runtime for CUDA, in sessions of one CPU thread."""
    asked: list[tuple[str, int]] = []

    def refuse(_: bytes, provider: str, threads: int, **options: object) -> None:
        asked.append((provider, threads))
        raise EngineError("no device", reason="ENGINE_PROVIDER_FALLBACK")

    monkeypatch.setattr(engine_gpu, "open_session", refuse)
    choice = EngineChoice(engine="onnx", provider="cuda", precision="fp16", why="a test")

    with pytest.raises(EngineError, match="no device"):
        start_engine([choice], lambda _: graph(), threads=8)

    assert asked == [("cuda", 1)]
