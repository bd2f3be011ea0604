"""ONNX Runtime behind the `Engine` protocol."""

from __future__ import annotations

from typing import Literal, NoReturn

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from loaded_engine import load_engine
from sentimill.engine import failures
from sentimill.engine.base import (
    Engine,
    EngineInfo,
)
from sentimill.engine.failures import FAILED
from sentimill.engine.hardware import Machine, usable_cores
from sentimill.engine.onnx_session import open_session
from sentimill.errors import EngineError, UsageError
from tiny_bundle import WORDS, graph


def ids(*words: str) -> NDArray[np.int64]:
    """Return one row of token ids."""
    return np.array([[WORDS.index(word) for word in words]], dtype=np.int64)


def graph_of(input_name: str) -> bytes:
    """Return a valid graph that does not take what ours take."""
    made = helper.make_graph(
        [helper.make_node("Identity", [input_name], ["logits"])],
        "other",
        [helper.make_tensor_value_info(input_name, TensorProto.FLOAT, ["rows", 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["rows", 3])],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data


def run(engine: Engine, row: NDArray[np.int64]) -> list[list[float]]:
    """Return the logits of rows without padding."""
    logits = engine.run(row, np.ones_like(row))
    assert np.float32 == logits.dtype
    found: list[list[float]] = logits.tolist()
    return found


def test_a_graph_gives_logits() -> None:
    """Ids and mask in, (rows, labels) float32 out."""
    engine = load_engine(graph())

    assert run(engine, ids("[CLS]", "good", "good", "bad")) == [[3.0, 1.0, 6.0]]


def test_the_mask_hides_padding() -> None:
    """What the mask leaves out does not count."""
    row = ids("[CLS]", "good", "bad")

    logits = load_engine(graph()).run(row, np.array([[1, 1, 0]]))

    assert logits.tolist() == [[0.0, 1.0, 3.0]]


def test_the_engine_says_what_really_runs() -> None:
    """The provider and the number of threads are facts, not wishes."""
    expected = EngineInfo(engine="onnx", provider="cpu", precision="fp32", threads=1, token_step=1)

    assert expected == load_engine(graph(), threads=1).info
    assert load_engine(graph(), threads=3).info.calls == 3
    assert usable_cores() == load_engine(graph()).info.threads


def test_auto_takes_the_cpu_where_there_is_no_cuda() -> None:
    """Without a CUDA build of ONNX Runtime, auto is the CPU."""
    if "CUDAExecutionProvider" in Machine.here().onnx_providers:
        pytest.skip("this ONNX Runtime has CUDA")

    assert load_engine(graph(), provider="auto").info.provider == "cpu"


def test_a_provider_that_is_not_installed_is_refused_with_the_remedy() -> None:
    """Nothing falls back in silence."""
    if "CUDAExecutionProvider" in Machine.here().onnx_providers:
        pytest.skip("this ONNX Runtime has CUDA")

    with pytest.raises(UsageError, match=r"CUDA is not available.* Install 'sentimill\[gpu\]'"):
        load_engine(graph(), provider="cuda")


def test_an_unknown_provider_is_refused() -> None:
    """A typo in a program is a usage error."""
    with pytest.raises(UsageError, match="unknown provider 'tpu': use auto, cpu or cuda"):
        load_engine(graph(), provider="tpu")  # type: ignore[arg-type]  # a program without mypy


@pytest.mark.parametrize("data", [b"", b"not a graph", graph()[:100]])
def test_what_is_no_graph_does_not_load(data: bytes) -> None:
    """Broken bytes are an error of ours."""
    with pytest.raises(EngineError, match="cannot load the graph") as caught:
        load_engine(data)

    assert caught.value.reason == "ENGINE_LOAD_FAILED"


def test_a_graph_with_other_inputs_does_not_load() -> None:
    """The message names what the graph takes."""
    with pytest.raises(EngineError, match=r"takes \['pixels'\].*export it again") as caught:
        load_engine(graph_of("pixels"))

    assert caught.value.reason == "ENGINE_BAD_GRAPH"


def test_a_failing_call_is_an_engine_error_and_the_next_one_runs() -> None:
    """An engine survives a failed call."""
    engine = load_engine(graph(fail_on="poison"))

    with pytest.raises(EngineError, match="the engine failed") as caught:
        run(engine, ids("poison"))

    assert caught.value.reason == "ENGINE_FAILED"
    assert run(engine, ids("good")) == [[0.0, 0.0, 3.0]]


@pytest.mark.parametrize("threads", [1, 2])
def test_a_session_is_told_its_threads_their_spinning_and_to_plan_no_shapes(threads: int) -> None:
    """Nothing of that is left to what ONNX Runtime takes by itself."""
    session = open_session(graph(), "cpu", threads)

    found = session.get_session_options()

    assert found.intra_op_num_threads == threads
    assert found.inter_op_num_threads == 1
    assert found.get_session_config_entry("session.intra_op.allow_spinning") == "1"
    assert found.get_session_config_entry("session.intra_op.spin_duration_us") == "1000"
    assert not found.enable_mem_pattern


class Broken:
    """Stands for a session of ONNX Runtime or a request of OpenVINO that fails."""

    def fail(self, *args: object, **options: object) -> NoReturn:
        """Fail as a library does, which tells of its machine."""
        raise RuntimeError("/opt/secret.cc:7")

    run = infer = fail


@pytest.mark.parametrize(("name", "part"), [("onnx", "_single"), ("openvino", "_request")])
def test_what_a_library_says_of_its_failure_is_for_the_log(
    name: Literal["onnx", "openvino"],
    part: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The error reaches callers, who have nothing to do with paths and versions."""
    engine = load_engine(graph(), engine=name, threads=1)
    monkeypatch.setattr(engine, part, Broken())
    monkeypatch.setattr(failures, "_LOG_EVERY_S", 0.0)

    with pytest.raises(EngineError) as caught:
        run(engine, ids("good"))

    assert str(caught.value) == FAILED
    assert "failed: /opt/secret.cc:7" in caplog.text


def test_a_graph_is_loaded_from_memory_alone() -> None:
    """Weights in another file are refused, so that no unchecked file is ever read."""
    tensor = TensorProto(name="weights", data_type=TensorProto.FLOAT, dims=[9, 3])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    model = onnx.load_from_string(graph())
    model.graph.initializer[0].CopyFrom(tensor)

    with pytest.raises(EngineError, match="cannot load the graph"):
        load_engine(model.SerializeToString())
