"""A graph that several modules of these tests look at, exported once."""

from __future__ import annotations

import pytest

from sentimill_train.export.onnx import export_fp32
from train_parts import loud_student


@pytest.fixture(scope="session")
def loud_graph(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return the fp32 graph of a tiny student whose attention and biases matter."""
    return export_fp32(loud_student(tmp_path_factory.mktemp("loud"))).data
