"""Nothing reports to anybody: no library's telemetry is on where Sentimill is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

_RUN = """
import {package}
import numpy as np, onnx, onnxruntime
from onnx import TensorProto, helper
one = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
two = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "g", [one], [two])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
session = onnxruntime.InferenceSession(model.SerializeToString())
session.run(None, {{"x": np.ones(1, np.float32)}})
"""


def left_behind(home: Path, package: str, **variables: str) -> list[Path]:
    """Return the files that ONNX Runtime leaves in *home* after one session."""
    home.mkdir()
    # Nothing else of ours: on a CI machine ONNX Runtime is silent by itself.
    environment = {"HOME": str(home), "PATH": os.environ["PATH"], **variables}
    program = _RUN.format(package=package)
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
    return [path for path in home.rglob("*") if path.is_file()]


@pytest.mark.parametrize("package", ["sentimill", "sentimill_train"])
def test_onnx_runtime_keeps_no_device_id_and_no_events(tmp_path: Path, package: str) -> None:
    """What it would send it first writes into the home folder."""
    assert left_behind(tmp_path / "silent", package) == []


def test_whoever_wants_its_telemetry_gets_it(tmp_path: Path) -> None:
    """A variable that is set already is obeyed; and the test above looks in the right place."""
    told = left_behind(tmp_path / "told", "sentimill", ORT_DISABLE_TELEMETRY="0")

    assert any("onnxruntime" in str(path) for path in told)
