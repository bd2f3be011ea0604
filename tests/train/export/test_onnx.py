"""The graph says what torch says, and says it of a text alone and in any batch."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from loaded_engine import load_engine
from sentimill.engine.base import Engine, EngineName
from sentimill.errors import BundleError
from sentimill.text.tokenizer import pad
from sentimill_train.export import onnx as export
from sentimill_train.export.onnx import PARITY_LIMIT, Graph, check_parity, export_fp32
from sentimill_train.model.pretrained import find_pretrained
from sentimill_train.model.student import Student, load_student, new_student, save_student
from train_parts import TWO, VOCABULARY, student, write_base

pytestmark = pytest.mark.slow


def save(made: Student, folder: Path) -> Path:
    """Save *made* and return the folder."""
    save_student(made, folder)
    return folder


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a saved student with random weights."""
    folder = tmp_path_factory.mktemp("export")
    return save(student(folder / "base"), folder / "saved")


@pytest.fixture(scope="module")
def graph(saved: Path) -> Graph:
    """Return its graph."""
    return export_fp32(saved)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    """Return the graph of the default student, not trained."""
    folder = tmp_path_factory.mktemp("full")
    base = find_pretrained()
    return export_fp32(save(new_student("minilm-l6", base, TWO, vocabulary=30522), folder))


def test_the_graph_has_the_inputs_and_the_output_that_an_engine_expects(graph: Graph) -> None:
    """Rows and tokens are free, and everything is in one file."""
    model = onnx.load_model_from_string(graph.data)

    def shape(value: onnx.ValueInfoProto) -> list[str | int]:
        return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]

    assert {value.name: shape(value) for value in model.graph.input} == {
        "input_ids": ["rows", "tokens"],
        "attention_mask": ["rows", "tokens"],
    }
    assert {i.type.tensor_type.elem_type for i in model.graph.input} == {onnx.TensorProto.INT64}
    (logits,) = model.graph.output
    assert (logits.name, logits.type.tensor_type.elem_type) == ("logits", onnx.TensorProto.FLOAT)
    assert all(not tensor.external_data for tensor in model.graph.initializer)


def test_every_attention_block_is_fused(full: Graph) -> None:
    """6 of 6; a graph that is not fused is right and slow, and nobody would notice."""
    kinds = [node.op_type for node in onnx.load_model_from_string(full.data).graph.node]

    assert kinds.count("Attention") == 6
    assert kinds.count("Softmax") == 0


def test_a_graph_that_does_not_fuse_is_no_graph(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with an attention that the optimizer does not know."""

    def with_sdpa(folder: Path, *, attention: str) -> Student:
        return load_student(folder, attention="sdpa")

    monkeypatch.setattr(export, "load_student", with_sdpa)

    with pytest.raises(BundleError, match="0 of 2 attention blocks") as caught:
        export_fp32(saved)

    assert caught.value.reason == "EXPORT_NOT_FUSED"


def test_the_graph_agrees_with_torch(graph: Graph, full: Graph) -> None:
    """Over single rows, many, equal and mixed lengths."""
    for made in (graph, full):
        assert made.max_logit_difference <= 1e-5
        assert made.parity_rows >= 50


@pytest.mark.parametrize("wrong", [2 * PARITY_LIMIT, float("nan")])
def test_a_graph_that_differs_from_torch_is_refused(
    saved: Path, graph: Graph, wrong: float
) -> None:
    """With the figure; not a number is no agreement."""

    def run(ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
        return graph.run(ids, mask) + np.float32(wrong)

    with pytest.raises(BundleError, match=r"differs from torch by (2\.\d\de-04|nan)") as caught:
        check_parity(load_student(saved, attention="eager"), run)

    assert caught.value.reason == "EXPORT_PARITY"


def test_openvino_agrees_with_onnx_runtime(full: Graph) -> None:
    """The graph is right in every engine that a server may choose, several rows at once too."""
    run = load_engine(full.data, engine="openvino", threads=2).run
    rng = np.random.default_rng(11)

    for lengths in ([5], [16] * 3, [40] * 9, [7, 64, 33, 250]):
        ids, mask = pad([rng.integers(1000, 20000, size=n) for n in lengths], 0, tokens=256)

        assert np.abs(run(ids, mask) - full.run(ids, mask)).max() <= 1e-4


LENGTHS = (1, 2, 3, 5, 8, 16, 17, 31, 33, 47, 64, 65, 100, 129, 255, 256)


@pytest.fixture(scope="module")
def engines(full: Graph) -> dict[str, Engine]:
    """Return the full graph in each engine."""
    names: tuple[EngineName, ...] = ("onnx", "openvino")
    return {name: load_engine(full.data, engine=name, threads=2) for name in names}


def run_rows(engine: Engine, rows: list[NDArray[np.int64]], longest: int = 0) -> list[list[float]]:
    """Return the logits of *rows* in one batch, padded to the engine's step as when it serves."""
    step = engine.info.token_step
    tokens = max(longest, *map(len, rows), 1)
    ids, mask = pad(rows, 0, tokens=-(-tokens // step) * step)
    logits: list[list[float]] = engine.run(ids, mask).tolist()
    return logits


def row_of(length: int, seed: int = 0) -> NDArray[np.int64]:
    """Return random token ids."""
    return np.random.default_rng(1000 * seed + length).integers(1000, 20000, size=length)


@pytest.fixture(scope="module")
def mixed(engines: dict[str, Engine]) -> dict[str, list[list[list[float]]]]:
    """Return the logits of rows of all `LENGTHS` among 16 others, in two orders, by engine."""
    mates = [row_of(n, seed=1) for n in np.random.default_rng(3).integers(1, 256, size=16)]
    rows = [*map(row_of, LENGTHS)]
    found = {}
    for name, engine in engines.items():
        first = run_rows(engine, [*rows, *mates])
        last = run_rows(engine, [*mates, *reversed(rows)])
        found[name] = [first, last[::-1]]
    return found


@pytest.mark.parametrize(
    ("name", "length"),
    [*(("onnx", length) for length in LENGTHS), *(("openvino", n) for n in (1, 17, 64, 255))],
)
def test_a_row_gets_the_same_bits_in_any_batch(
    engines: dict[str, Engine],
    mixed: dict[str, list[list[list[float]]]],
    name: str,
    length: int,
) -> None:
    """Alone, padded, at the front and at the back of 31 others, and among rows of its length."""
    engine, row = engines[name], row_of(length)
    twins = [row_of(length, seed=2 + i) for i in range(7)]

    (alone,) = run_rows(engine, [row])

    for longest in (length + 1, length + 2, length + 13, 256):
        assert run_rows(engine, [row], longest) == [alone]
    for order in mixed[name]:
        assert order[LENGTHS.index(length)] == alone
    assert run_rows(engine, [*twins, row])[7] == alone


def test_the_id_of_padding_does_not_matter(graph: Graph) -> None:
    """What the mask hides has no say, and no number of it is infinite."""
    ids = np.array([[2, 7, 9, 3, 0, 0]])
    mask = np.array([[1, 1, 1, 1, 0, 0]])
    other = np.array([[2, 7, 9, 3, 61, 8]])

    found = graph.run(ids, mask)

    assert np.isfinite(found).all()
    assert found.tolist() == graph.run(other, mask).tolist()


def test_a_family_that_the_optimizer_does_not_know_is_exported_as_it_is(tmp_path: Path) -> None:
    """Right, and slower."""
    from transformers import ElectraConfig, ElectraModel

    config = ElectraConfig(
        vocab_size=VOCABULARY,
        embedding_size=32,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=256,
    )
    write_base(tmp_path)
    ElectraModel(config).save_pretrained(tmp_path)
    made = new_student("minilm-l6", find_pretrained(str(tmp_path)), TWO, vocabulary=VOCABULARY)

    assert export_fp32(save(made, tmp_path / "saved")).max_logit_difference <= 1e-5


def test_export_says_nothing_and_leaves_logging_as_it_was(
    saved: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Neither exporter nor optimizer has anything to say that anybody can act on."""
    before = logging.root.manager.disable

    with caplog.at_level(logging.DEBUG):
        export_fp32(saved)

    assert [r for r in caplog.records if r.levelno >= logging.INFO] == []
    assert capfd.readouterr() == ("", "")
    assert logging.root.manager.disable == before
