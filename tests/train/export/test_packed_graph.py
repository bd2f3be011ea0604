"""A graph without padding says what the padded one said, to any batch.

The operators that ONNX Runtime has on CUDA devices alone are written here in numpy, as its
documentation of contrib operators describes them.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from sentimill import Classifier
from sentimill.engine import onnx_cuda
from sentimill.engine.base import EngineChoice
from sentimill.engine.factory import start_engine
from sentimill.engine.failures import FAILED
from sentimill.engine.onnx_cuda import CudaEngine
from sentimill.engine.onnx_session import PACKED_INPUTS
from sentimill.errors import EngineError
from sentimill.server.model_slot import warm_up
from sentimill.text.tokenizer import pad
from sentimill_train.export.onnx import Run, open_graph
from sentimill_train.export.packed_graph import pack_graph
from sentimill_train.export.quantization.fp16 import fp16_graph
from tiny_bundle import write_tiny_bundle

LENGTHS = [(1,), (7, 7, 7), (3, 12, 1, 12, 5), tuple(range(1, 14))]


class _Contrib(OpRun):
    op_domain = "com.microsoft"


class EmbedLayerNormalization(_Contrib):
    """Looks up words, places and segments."""

    def _run(self, ids, segments, words, places, kinds, scale, shift, mask, **more):  # type: ignore[no-untyped-def]
        summed = words[ids] + places[: ids.shape[1]] + kinds[segments]
        return _norm(summed, scale, shift, more["epsilon"]), mask.sum(axis=1).astype(np.int32)


class SkipLayerNormalization(_Contrib):
    """Norm of the sum of two states and a bias."""

    def _run(self, states, skip, scale, shift, bias, epsilon=None):  # type: ignore[no-untyped-def]
        return (_norm(states + skip + bias, scale, shift, epsilon),)


class BiasGelu(_Contrib):
    """Gelu of the sum."""

    def _run(self, states, bias):  # type: ignore[no-untyped-def]
        from math import erf, sqrt

        x = states + bias
        return ((x * (1 + np.vectorize(erf)(x / sqrt(2))) / 2).astype(x.dtype),)


class PackedMultiHeadAttention(_Contrib):
    """Attention of each text to itself; *query*, *key* and *value* are (n, channels)."""

    def _run(self, query, key, value, bias, offset, ends, num_heads=None):  # type: ignore[no-untyped-def]
        assert bias is None
        assert offset.dtype == ends.dtype == np.int32
        assert len(offset) + 1 == len(ends)
        assert ends[-1] == len(query)
        found = np.empty_like(query)
        for begin, end in pairwise(ends):
            q, k, v = (
                part[begin:end].reshape(end - begin, num_heads, -1).swapaxes(0, 1)
                for part in (query, key, value)
            )
            scores = q @ k.swapaxes(1, 2) / np.sqrt(q.shape[-1])
            weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
            weights /= weights.sum(axis=-1, keepdims=True)
            found[begin:end] = (weights @ v).swapaxes(0, 1).reshape(end - begin, -1)
        return (found,)


class GatherElements(OpRun):
    """The reference's own cannot look up in a row of more than 64."""

    op_domain = ""

    def _run(self, data, indices, axis=None):  # type: ignore[no-untyped-def]
        return (np.take_along_axis(data, indices, axis),)


class RestorePadding(_Contrib):
    """Puts tokens back, with zeros between."""

    def _run(self, states, offset):  # type: ignore[no-untyped-def]
        found = np.zeros((offset.size, states.shape[1]), dtype=states.dtype)
        found[offset.ravel()[: len(states)]] = states
        return (found.reshape(*offset.shape, -1),)


def _norm(x: Any, scale: Any, shift: Any, epsilon: float) -> Any:
    mean, variance = x.mean(axis=-1, keepdims=True), x.var(axis=-1, keepdims=True)
    return ((x - mean) / np.sqrt(variance + epsilon) * scale + shift).astype(x.dtype)


OPS = [
    EmbedLayerNormalization,
    SkipLayerNormalization,
    BiasGelu,
    PackedMultiHeadAttention,
    RestorePadding,
    GatherElements,
]


class FakeSession:
    """What `open_session` would give on a GPU."""

    def __init__(self, model: bytes) -> None:
        self._graph = ReferenceEvaluator(onnx.load_model_from_string(model), new_ops=OPS)

    def get_inputs(self) -> list[object]:
        """Return the inputs."""
        return list(self._graph.input_names)

    def run(self, _: None, feeds: dict[str, NDArray[np.generic]]) -> list[NDArray[np.float32]]:
        """Return the outputs."""
        return list(self._graph.run(None, feeds))


@pytest.fixture(scope="module")
def padded(loud_graph: bytes) -> bytes:
    """Return the graph that is packed."""
    return loud_graph


@pytest.fixture
def packed(padded: bytes, monkeypatch: pytest.MonkeyPatch) -> CudaEngine:
    """Return an engine of it without padding."""

    def session(model: bytes, provider: str, threads: int, **_: object) -> FakeSession:
        assert (provider, threads) == ("cuda", 1)
        return FakeSession(model)

    monkeypatch.setattr(onnx_cuda, "open_session", session)
    model = pack_graph(padded)
    assert model is not None
    made = CudaEngine(model, precision="fp32")
    assert made.info.unpadded
    return made


@pytest.fixture(scope="module")
def plain(padded: bytes) -> Run:
    """Return the padded graph, run by ONNX Runtime on the CPU."""
    return open_graph(padded)


def batch(lengths: tuple[int, ...]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return ids and mask of random texts."""
    random = np.random.default_rng(sum(lengths))
    return pad([random.integers(1, 60, n) for n in lengths], 0)


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_each_text_gets_what_the_padded_graph_gives(
    packed: CudaEngine, plain: Run, lengths: tuple[int, ...]
) -> None:
    """Also a text that is as long as the longest, and one of a single token."""
    ids, mask = batch(lengths)

    found = packed.run(ids, mask)

    assert found.dtype == np.float32
    np.testing.assert_allclose(found, plain(ids, mask), atol=2e-5)


def test_padding_is_never_looked_at(packed: CudaEngine) -> None:
    """What stands where no text is changes no bit."""
    ids, mask = batch((3, 12, 1))

    found = packed.run(ids, mask)

    assert packed.run(np.where(mask, ids, 7), mask).tobytes() == found.tobytes()


def test_half_precision_is_rewritten_too(padded: bytes) -> None:
    """It is the one that a GPU gets; its constants stay what they were."""
    model = pack_graph(fp16_graph(padded))

    assert model is not None
    kinds = {tensor.data_type for tensor in onnx.load_model_from_string(model).graph.initializer}
    assert onnx.TensorProto.FLOAT16 in kinds
    assert onnx.TensorProto.FLOAT not in kinds


@pytest.mark.parametrize("change", ["mixing", "output", "mask", "lengths"])
def test_a_graph_of_another_make_is_left_alone(padded: bytes, change: str) -> None:
    """Something looks at more than a token, or shows or takes what this module does not know."""
    model = onnx.load_model_from_string(padded)
    norms = [node for node in model.graph.node if node.op_type == "LayerNormalization"]
    attention = next(node for node in model.graph.node if node.op_type == "Attention")
    if change == "mixing":
        gelu = next(node for node in model.graph.node if node.op_type == "BiasGelu")
        gelu.op_type, gelu.domain = "Softmax", ""
    elif change == "output":
        model.graph.output.append(onnx.helper.make_empty_tensor_value_info(norms[0].output[0]))
    elif change == "lengths":
        del next(n for n in model.graph.node if n.op_type == "EmbedLayerNormalization").output[1]
    else:
        attention.input[3] = "attention_mask"

    assert pack_graph(model.SerializeToString()) is None


def test_what_is_no_graph_is_left_to_onnx_runtime() -> None:
    """Which says why it cannot be loaded."""
    assert pack_graph(b"not a graph") is None


def test_warm_up_meets_each_session_of_an_engine_that_cuda_gets(
    padded: bytes, packed: CudaEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the longest text alone, and with a full batch."""
    shapes: list[set[tuple[int, ...]]] = []

    def session(model: bytes, *_: object, **__: object) -> Mock:
        seen: set[tuple[int, ...]] = set()
        shapes.append(seen)

        def run(_: None, feeds: dict[str, NDArray[np.generic]]) -> list[NDArray[np.float32]]:
            seen.add(feeds["input_ids"].shape)
            return FakeSession(model).run(None, feeds)

        return Mock(run=run, get_inputs=lambda: PACKED_INPUTS)

    monkeypatch.setattr(onnx_cuda, "open_session", session)
    choice = EngineChoice(engine="onnx", provider="cuda", precision="fp32", why="a test")
    graph = pack_graph(padded)
    assert graph is not None
    made, _ = start_engine([choice], lambda _: graph, threads=1)
    bundle = write_tiny_bundle(tmp_path / "tiny", max_tokens=12)
    monkeypatch.setattr(Classifier, "_replay_golden", lambda _: None)

    warm_up(Classifier(bundle, made, choice), 60)

    assert shapes == [{(1, 12), (5, 12)}, {(5, 12)}, {(5, 12)}]


def test_a_failing_call_is_an_engine_error(packed: CudaEngine) -> None:
    """And the session goes back to work."""
    ids, mask = batch((3, 5))
    for _ in range(packed.info.calls + 1):
        with pytest.raises(EngineError, match=FAILED):
            packed.run(ids + 10_000, mask)

    assert packed.run(ids, mask).shape == (2, 2)


def test_the_packed_graph_takes_what_the_engine_gives_it(padded: bytes) -> None:
    """The names are agreed between the exporter and the run time."""
    model = pack_graph(padded)

    assert model is not None
    graph = onnx.load_model_from_string(model).graph
    assert tuple(each.name for each in graph.input) == PACKED_INPUTS
