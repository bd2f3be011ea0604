"""A text gets the same bits alone, among others, and at any padding, on every CPU engine."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from loaded_engine import load_engine
from sentimill import Classifier, Prediction
from sentimill.bundle.manifest import Manifest
from sentimill.bundle.reference import reference_bundle
from sentimill.engine.base import Engine
from sentimill.engine.hardware import Machine
from sentimill.errors import BundleError, EngineError, UsageError
from tiny_bundle import WORDS, attention_graph, graph, write_tiny_bundle

HAS_BF16 = bool({"avx512_bf16", "amx_bf16"} & Machine.here().cpu_flags)
ENGINES = [("onnx", "fp32"), ("openvino", "fp32"), *[("openvino", "bf16")] * HAS_BF16]


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Engine:
    """Return one engine after the other, each with a small attention graph."""
    name, precision = request.param
    return load_engine(attention_graph(), engine=name, precision=precision, threads=2)


def padded(
    row: NDArray[np.int64], tokens: int, mates: int, place: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return ids and mask (mates + 1, tokens) with *row* at *place* among full rows."""
    random = np.random.default_rng(tokens * 100 + mates)
    ids = random.integers(1, len(WORDS), (mates + 1, tokens))
    mask = np.ones_like(ids)
    ids[place], mask[place] = 0, 0
    ids[place, : len(row)], mask[place, : len(row)] = row, 1
    return ids, mask


ANY_BATCH = given(
    length=st.integers(2, 70), extra=st.integers(0, 4), mates=st.integers(0, 31), data=st.data()
)


@settings(deadline=None, max_examples=60)
@ANY_BATCH
def test_a_text_gets_the_same_bits_in_any_batch(
    engine: Engine, length: int, extra: int, mates: int, data: st.DataObject
) -> None:
    """Batch mates, padding by whole steps and the place in the batch change nothing."""
    check_bits(engine, length, extra, mates, data)


@pytest.fixture(scope="module")
def shipped() -> Engine:
    """Return the engine of the reference student, in the int8 that it is shipped in."""
    return Classifier.load(reference_bundle(), engine="onnx", precision="int8").engine


@settings(deadline=None, max_examples=20)
@ANY_BATCH
def test_nor_do_they_in_the_int8_that_is_shipped(
    shipped: Engine, length: int, extra: int, mates: int, data: st.DataObject
) -> None:
    """Whose scales of activations could be a batch's, and are a token's."""
    check_bits(shipped, length, extra, mates, data)


@pytest.mark.parametrize("tokens", [66, 131, 196])
def test_nor_where_one_query_is_alone_in_its_block(shipped: Engine, tokens: int) -> None:
    """ONNX Runtime attends to 65 queries at a time in heads of this size."""
    alone, among = padded(row := np.arange(1, tokens + 1), tokens, 0, 0), padded(row, 200, 3, 2)

    assert shipped.run(*alone)[0].tobytes() == shipped.run(*among)[2].tobytes()


def check_bits(engine: Engine, length: int, extra: int, mates: int, data: st.DataObject) -> None:
    """Check a row of *length* tokens alone against itself among *mates*, *extra* steps longer."""
    step = engine.info.token_step
    row = np.random.default_rng(length).integers(1, len(WORDS), length)
    shortest = -(-length // step) * step

    (alone,) = engine.run(*padded(row, shortest, 0, 0))
    place = data.draw(st.integers(0, mates))
    among = engine.run(*padded(row, shortest + extra * step, mates, place))[place]

    assert alone.tobytes() == among.tobytes()


def test_engines_agree(engine: Engine) -> None:
    """Each engine gives ONNX Runtime's fp32 logits, within its precision."""
    ids, mask = padded(np.array([1, 4, 6, 5, 2]), 16, 7, 3)
    limit = {"fp32": 1e-5, "bf16": 1e-2}[engine.info.precision]

    expected = load_engine(attention_graph(), engine="onnx").run(ids, mask)

    difference = np.abs(engine.run(ids, mask) - expected).max()

    assert difference <= limit * np.abs(expected).max()


def test_an_engine_may_be_called_from_several_threads(engine: Engine) -> None:
    """Calls do not mix their inputs or answers, whose bits hang on no number of threads."""
    batches = [padded(np.array([1, 4 + i % 5, 2]), 16, i, 0) for i in range(8)]
    expected = [engine.run(*batch).tobytes() for batch in batches]

    with ThreadPoolExecutor(4) as pool:
        found = list(
            pool.map(lambda batch: engine.run(*batch, other_calls=3).tobytes(), batches * 4)
        )

    assert found == expected * 4


def listing_bf16(manifest: Manifest) -> Manifest:
    """Return *manifest* with a gated bf16 entry whose file is the fp32 graph."""
    both = {**manifest.precisions, "bf16": manifest.precisions["fp32"]}
    return msgspec.structs.replace(manifest, precisions=both)


def test_a_bundle_that_lists_bf16_is_served_in_it_by_a_cpu_that_is_fast_at_it(
    tmp_path: Path,
) -> None:
    """A CPU without its instructions, or with slow ones, gets fp32."""
    made = write_tiny_bundle(tmp_path / "tiny", change=listing_bf16)

    classifier = Classifier.load(made.path)

    fast = HAS_BF16 and Machine.here().is_fast_at_bf16
    expected = ("openvino", "bf16") if fast else ("onnx", "fp32")
    assert (classifier.engine.info.engine, classifier.precision) == expected


def test_bf16_can_be_asked_for_before_a_bundle_was_gated_in_it(bundle: Path) -> None:
    """The engine rounds the fp32 graph; a CPU that cannot says so, and does not fall back."""
    if not HAS_BF16:
        with pytest.raises(UsageError, match="bf16 needs a CPU with"):
            Classifier.load(bundle, precision="bf16")
        return
    (found,) = Classifier.load(bundle, precision="bf16").classify(["good battery"])

    assert isinstance(found, Prediction)
    assert found.label == "positive"


def test_lengths_round_up_to_the_step_of_the_engine_within_the_model(tmp_path: Path) -> None:
    """Never past max_tokens, behind which a model may have no position."""
    made = write_tiny_bundle(tmp_path / "tiny", max_tokens=40)
    classifier = Classifier.load(made.path, engine="openvino")

    assert [classifier.padded_length(n) for n in (1, 16, 17, 33, 40)] == [16, 16, 32, 40, 40]


@pytest.mark.parametrize("data", [b"", b"not a graph", graph()[:100]])
def test_what_is_no_graph_does_not_load(data: bytes) -> None:
    """Broken bytes are an error of ours in OpenVINO too."""
    with pytest.raises(EngineError, match="cannot load the graph") as caught:
        load_engine(data, engine="openvino")

    assert caught.value.reason == "ENGINE_LOAD_FAILED"


def test_a_graph_that_openvino_runs_differently_is_refused(tmp_path: Path) -> None:
    """The golden texts are checked on the engine that will serve."""
    wrong = write_tiny_bundle(
        tmp_path / "tiny",
        change=lambda m: msgspec.structs.replace(
            m, golden=(msgspec.structs.replace(m.golden[0], probs=(0.1, 0.3, 0.6)),)
        ),
    )

    with pytest.raises(BundleError, match=r"moved by .* in fp32 on openvino"):
        Classifier.load(wrong.path, engine="openvino")
