"""`sentimill export`: a bundle gets int8 when that passes its gate, and the truth when it does not.

And its compact form, which has nothing else, does all that a bundle does.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper
from safetensors.numpy import load_file, save

from cli_in_process import Sentimill
from reload_server import reloading
from sentimill import AsyncClient
from sentimill.bundle.reader import open_bundle
from sentimill.bundle.writer import write_bundle
from sentimill.classifier import Classifier, Prediction
from sentimill.engine.hardware import Machine
from sentimill.errors import BundleError, InputError, UsageError
from sentimill_train.data.examples import write_examples
from sentimill_train.evaluation.training_evaluation import EvaluationConfig
from sentimill_train.export import onnx as export
from sentimill_train.export import precisions
from sentimill_train.export.packed_graph import pack_graph
from sentimill_train.export.precisions import Export, Exported
from sentimill_train.export.quantization import int8 as quantise
from sentimill_train.pipeline import Train
from sentimill_train.training.loop import FitConfig
from train_parts import TWO, reviews, write_base

pytestmark = pytest.mark.slow

LOVELY = "item xyz was lovely"


def broken(
    weight: NDArray[np.float32], moments: NDArray[np.float64] | None
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return weights that say the same of every text."""
    return np.zeros_like(weight, dtype=np.int8), np.ones(weight.shape[1], np.float32)


def training(folder: Path, out: str, *, base: str) -> Train:
    """Return a training of a tiny student on 300 reviews."""
    return Train(
        reviews=(str(folder / "r.jsonl"),),
        out=folder / out,
        labels=TWO,
        base=base,
        max_tokens=48,
        train_embeddings=True,
        fit=FitConfig(epochs=2, learning_rate=5e-3, batch_tokens=1024),
        evaluation=EvaluationConfig(baselines=False),
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a bundle that was really trained, with 600 rows that it never saw.

    And 300 for validation in the same file, to fit temperatures on.
    """
    folder = tmp_path_factory.mktemp("precisions")
    write_examples(folder / "r.jsonl", reviews(300))
    held_out = [replace(e, split="test") for e in reviews(600, seed=8)]
    held_out += [replace(e, split="validation") for e in reviews(300, seed=9)]
    write_examples(folder / "held-out.jsonl", held_out)
    training(folder, "mine", base=str(write_base(folder / "base"))).run()
    return folder


@pytest.fixture(scope="module")
def compact(made: Path) -> Path:
    """Return its compact form."""
    on = (str(made / "held-out.jsonl"),)
    return Export(bundle=made / "mine", out=made / "small", on=on, compact=True).run().bundle.path


def test_int8_is_added_when_it_passes(made: Path, tmp_path: Path, sentimill: Sentimill) -> None:
    """It loads, replays the golden texts, and answers; fp32 is the same file as before."""
    out = tmp_path / "b"

    done = sentimill("export", made / "mine", out, "--on", made / "held-out.jsonl")

    assert done.code == 0, done.err
    bundle = open_bundle(out)
    before = open_bundle(made / "mine").manifest
    entry = bundle.manifest.precisions["int8"]
    assert entry.parity_rows == 600
    assert entry.agreement is not None
    assert entry.agreement >= 0.995
    temperature = before.precision("fp32").temperature
    assert bundle.manifest.precision("fp32").temperature == temperature
    assert entry.temperature != temperature
    assert entry.temperature == pytest.approx(temperature, rel=0.1)
    assert f"with its temperature {entry.temperature:.4f}" in bundle.read("README.md").decode()
    assert bundle.manifest.files["onnx/fp32.onnx"] == before.files["onnx/fp32.onnx"]
    assert bundle.manifest.version != before.version
    (answer,) = Classifier.load(out, precision="int8", engine="onnx").classify([LOVELY])
    assert isinstance(answer, Prediction)
    assert answer.label == "positive"
    assert "int8 passes its gate" in bundle.read("README.md").decode()
    assert "int8 passes its gate" in bundle.read("report.html").decode()
    assert "int8 passes its gate" in done.err


def test_int8_that_fails_is_left_out_and_the_card_says_so(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sentimill: Sentimill
) -> None:
    """Weights of nothing answer otherwise: exit code 4, and a bundle without them."""
    monkeypatch.setattr(quantise, "quantize_weight", broken)
    out = tmp_path / "b"

    done = sentimill("export", made / "mine", out, "--on", made / "held-out.jsonl")

    assert done.code == 4
    assert "int8 does not pass its gate" in done.error
    bundle = open_bundle(out)
    assert list(bundle.manifest.precisions) == ["fp32"]
    assert "onnx/int8.onnx" not in bundle.manifest.files
    assert "int8 does not pass its gate" in bundle.read("README.md").decode()
    assert "int8 does not pass its gate" in bundle.read("report.html").decode()


@pytest.fixture(scope="module")
def with_fp16(made: Path) -> Exported:
    """Return the bundle with int8, and then with fp16."""
    on = (str(made / "held-out.jsonl"),)
    int8 = Export(bundle=made / "mine", out=made / "int8", on=on).run().bundle.path
    return Export(bundle=int8, out=made / "fp16", on=on, precisions=("fp16",)).run()


def test_fp16_is_added_to_what_is_there(with_fp16: Exported) -> None:
    """The figures of int8, made earlier, stay in manifest, card and report."""
    done = with_fp16
    (check,) = done.checks
    assert check.passed
    assert list(done.bundle.manifest.precisions) == ["fp32", "int8", "fp16"]
    entry = done.bundle.manifest.precisions["fp16"]
    assert (entry.file, entry.parity_rows) == ("onnx/fp16.onnx", 600)
    assert done.bundle.manifest.graph_file("fp16", "cpu") == "onnx/fp16.onnx"
    packed = done.bundle.manifest.graph_file("fp16", "cuda")
    assert pack_graph(done.bundle.read("onnx/fp16.onnx")) == done.bundle.read(packed)
    files = done.bundle.manifest.files
    assert files[entry.file].size_bytes < 0.7 * files["onnx/fp32.onnx"].size_bytes
    for paper in ("README.md", "report.html"):
        text = done.bundle.read(paper).decode()
        assert text.count("int8 passes its gate") == 1
        assert text.count("fp16 passes its gate") == 1


def test_fp16_that_fails_is_left_out(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A graph whose states ran over answers with no numbers, which no limit lets through."""
    model = onnx.load_model_from_string((made / "mine/onnx/fp32.onnx").read_bytes())
    head = next(t for t in model.graph.initializer if t.name == "head.bias")
    head.CopyFrom(numpy_helper.from_array(np.full(2, np.nan, np.float32), head.name))
    monkeypatch.setattr(precisions, "fp16_graph", lambda data: model.SerializeToString())
    on = (str(made / "held-out.jsonl"),)

    done = Export(bundle=made / "mine", out=tmp_path / "b", on=on, precisions=("fp16",)).run()

    assert not done.checks[0].passed
    assert list(done.bundle.manifest.precisions) == ["fp32"]
    assert not any("fp16" in name for name in done.bundle.manifest.files)
    assert "fp16 does not pass its gate" in done.bundle.read("report.html").decode()


def test_bf16_is_judged_on_a_cpu_that_has_it_alone(
    made: Path, tmp_path: Path, sentimill: Sentimill
) -> None:
    """Elsewhere it is left out, card and report say why, and the exit code is 4."""
    out = tmp_path / "b"

    done = sentimill(
        "export", made / "mine", out, "--on", made / "held-out.jsonl", "--precision", "bf16"
    )

    has = bool({"avx512_bf16", "amx_bf16"} & Machine.here().cpu_flags)
    bundle = open_bundle(out)
    report = bundle.read("report.html").decode()
    assert done.code == (0 if has else 4), done.err
    assert ("bf16" in bundle.manifest.precisions) is has
    assert ("bf16 passes its gate" in report) is has
    assert ("bf16 was not judged, and so is not in the bundle" in report) is not has


def test_bf16_that_passes_names_the_graph_of_fp32(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With OpenVINO in fp32 where the CPU has no bf16: no file is added, and the bundle loads."""
    if not {"avx512_bf16", "amx_bf16"} & Machine.here().cpu_flags:
        in_fp32 = Classifier.load(made / "mine", engine="openvino", precision="fp32")
        monkeypatch.setattr(Classifier, "load", lambda path, precision: in_fp32)
    on = (str(made / "held-out.jsonl"),)

    done = Export(bundle=made / "mine", out=tmp_path / "b", on=on, precisions=("bf16",)).run()

    monkeypatch.undo()
    entry = done.bundle.manifest.precisions["bf16"]
    assert entry.file == "onnx/fp32.onnx"
    assert entry.agreement is not None
    assert entry.agreement >= 0.995
    (answer,) = Classifier.load(done.bundle.path).classify([LOVELY])
    assert isinstance(answer, Prediction)
    assert answer.label == "positive"


def test_bf16_whose_golden_texts_do_not_come_out_is_left_out(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a bundle would not load; the card does not name the path of the one that was tried."""

    def load(path: Path, precision: str) -> Classifier:
        raise BundleError(f"{path} does not verify", reason="BUNDLE_GOLDEN_MISMATCH")

    monkeypatch.setattr(Classifier, "load", load)
    on = (str(made / "held-out.jsonl"),)

    done = Export(bundle=made / "mine", out=tmp_path / "b", on=on, precisions=("bf16",)).run()

    assert list(done.bundle.manifest.precisions) == ["fp32"]
    card = done.bundle.read("README.md").decode()
    assert "bf16 was not judged" in card
    assert str(made) not in card


def test_a_bundle_without_weights_to_train_on_gets_precisions_too(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An installation that only serves has none; the new bundle does not list them."""
    shutil.copytree(made / "mine", tmp_path / "a")
    (tmp_path / "a/model.safetensors").unlink()

    def load(path: Path, precision: str) -> Classifier:
        raise UsageError("no such CPU", reason="PRECISION_NOT_USABLE")

    monkeypatch.setattr(Classifier, "load", load)
    on = (str(made / "held-out.jsonl"),)
    done = Export(bundle=tmp_path / "a", out=tmp_path / "b", on=on, precisions=("bf16",)).run()

    assert "model.safetensors" not in done.bundle.manifest.files
    assert "onnx/fp32.onnx" in done.bundle.manifest.files


def test_an_unknown_precision_is_refused(made: Path, tmp_path: Path, sentimill: Sentimill) -> None:
    """With the names there are."""
    done = sentimill("export", made, tmp_path / "b", "--on", "x", "--precision", "int4")

    assert done.code == 2
    assert "unknown precision 'int4': use int8, fp16 or bf16" in done.error


def test_the_other_lane_needs_its_extra(made: Path, tmp_path: Path, sentimill: Sentimill) -> None:
    """It cannot be installed together with train (`make test-optimum` runs it)."""
    done = sentimill("export", made, tmp_path / "b", "--on", "x", "--exporter", "optimum")

    assert done.code == 2
    assert "pip install 'sentimill[optimum]'" in done.error


BF16_OF_OPTIMUM = Export(
    bundle=Path(), out=Path(), on=("x",), precisions=("bf16",), exporter="optimum"
)
COMPACT_IN_FP16 = Export(bundle=Path(), out=Path(), on=("x",), precisions=("fp16",), compact=True)


@pytest.mark.parametrize(
    ("asked", "says", "reason"),
    [
        # It would be judged as the bundle's own fp32, rounded, and another be shipped.
        (BF16_OF_OPTIMUM, "leave bf16 out, and add it", "EXPORTER_WITHOUT_BF16"),
        # It is int8 by what it is for.
        (COMPACT_IN_FP16, "--compact writes only int8", "COMPACT_IS_INT8"),
    ],
)
def test_a_precision_that_cannot_be_made_so_is_refused(
    made: Path, tmp_path: Path, asked: Export, says: str, reason: str
) -> None:
    """Before anything is read or computed, with what to ask instead."""
    options = replace(asked, bundle=made / "mine", out=tmp_path / "b")

    with pytest.raises(UsageError, match=says) as caught:
        options.run()

    assert caught.value.reason == reason


def test_what_was_made_of_another_fp32_does_not_stay(
    made: Path, with_fp16: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its figures compare it with a graph that is no longer there; the card says why it went."""
    on = (str(made / "held-out.jsonl"),)
    data = (made / "mine/onnx/fp32.onnx").read_bytes()
    graph = export.Graph(
        data=data, run=export.open_graph(data), max_logit_difference=0.0, parity_rows=9
    )
    monkeypatch.setattr(precisions, "check_installed", lambda *names, extra: None)
    monkeypatch.setattr(precisions, "export_with_optimum", lambda folder: graph)

    done = Export(bundle=with_fp16.bundle.path, out=tmp_path / "b", on=on, exporter="optimum").run()

    assert list(done.bundle.manifest.precisions) == ["fp32", "int8"]
    assert not any("fp16" in name for name in done.bundle.manifest.files)
    card = done.bundle.read("README.md").decode()
    assert "fp16 passes" not in card
    assert "fp16 was not judged, and so is not in the bundle: it was made of the fp32 that" in card


def test_a_compact_bundle_that_fails_is_not_written(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would have nothing to answer with."""
    monkeypatch.setattr(quantise, "quantize_weight", broken)
    on = (str(made / "held-out.jsonl"),)

    with pytest.raises(BundleError, match="no compact bundle was written") as caught:
        Export(bundle=made / "mine", out=tmp_path / "b", on=on, compact=True).run()

    assert caught.value.reason == "PRECISION_REFUSED"
    assert list(tmp_path.iterdir()) == []


def test_rows_that_were_learnt_do_not_count(made: Path, tmp_path: Path) -> None:
    """Of a file that the model was trained on only the test rows are taken: too few here.

    That is said before any graph is made or answers.
    """
    options = Export(bundle=made / "mine", out=tmp_path / "b", on=(str(made / "r.jsonl"),))
    stages: list[str] = []

    with pytest.raises(InputError, match="needs 300 held-out rows") as caught:
        options.run(stages.append)

    assert caught.value.reason == "TOO_FEW_ROWS"
    assert stages == ["reading reviews"]
    assert not (tmp_path / "b").exists()


def test_a_compact_bundle_holds_int8_alone_and_weights_in_fp16(made: Path, compact: Path) -> None:
    """It is much smaller, loads where nothing is said of a precision, and its card explains it."""
    bundle = open_bundle(compact)
    before = load_file(made / "mine" / "model.safetensors")
    after = load_file(compact / "model.safetensors")

    assert list(bundle.manifest.precisions) == ["int8"]
    assert "onnx/fp32.onnx" not in bundle.manifest.files
    assert bundle.manifest.golden == open_bundle(made / "mine").manifest.golden
    assert {values.dtype for values in after.values()} == {np.dtype(np.float16)}
    assert all(np.allclose(after[name], before[name], atol=1e-3) for name in before)
    classifier = Classifier.load(compact)
    assert classifier.precision == "int8"
    (answer,) = classifier.classify([LOVELY])
    assert isinstance(answer, Prediction)
    assert answer.label == "positive"
    card = bundle.read("README.md").decode()
    assert "answers in int8 alone" in card
    assert "fp16 passes its gate" in card
    report = bundle.read("report.html").decode()
    assert report.count("This one answers in int8 alone") == 1
    assert "int8 passes its gate" in report


def test_too_few_rows_are_told_before_fp32_is_made(
    made: Path, compact: Path, tmp_path: Path
) -> None:
    """Making fp32 of a compact bundle takes a while."""
    stages: list[str] = []
    with pytest.raises(InputError, match="needs 300 held-out rows"):
        Export(bundle=compact, out=tmp_path / "b", on=(str(made / "r.jsonl"),)).run(stages.append)

    assert stages == ["reading reviews"]


def test_a_compact_bundle_verifies(compact: Path, sentimill: Sentimill) -> None:
    """Its golden texts are those of fp32, and int8 comes near enough."""
    done = sentimill("bundle", "verify", compact)

    assert done.code == 0
    assert "int8: golden texts give the same probs on cpu" in done.out


async def test_a_server_goes_over_to_a_compact_bundle(made: Path, compact: Path) -> None:
    """It was serving fp32, reloads without a pause, and answers in int8."""
    async with reloading(made / "mine") as server:
        server.lead_to(compact)
        reloads = await server.reload()
        async with AsyncClient(server.address) as client:
            model = await client.model()
            (answer,) = await client.classify([LOVELY])

    assert reloads == (1, 0)
    assert model.precision == "int8"
    assert isinstance(answer, Prediction)
    assert answer.label == "positive"


def test_training_goes_on_from_a_compact_bundle(made: Path, compact: Path) -> None:
    """In float32, with its head, and judged against it: nothing is lost by the small form."""
    options = training(made, "further", base=str(compact))
    evaluation = EvaluationConfig(baselines=False, gate=compact)

    trained = replace(options, evaluation=evaluation).run()

    weights = load_file(trained.bundle.path / "model.safetensors")
    assert {values.dtype for values in weights.values()} == {np.dtype(np.float32)}
    assert trained.verdict is not None
    assert trained.judgement.sets[0].figures["accuracy"].value > 0.9


def test_a_compact_bundle_gets_fp16_from_its_weights(
    made: Path, compact: Path, tmp_path: Path
) -> None:
    """fp32 is made again from the weights; the golden texts give its temperature."""
    on = (str(made / "held-out.jsonl"),)

    done = Export(bundle=compact, out=tmp_path / "b", on=on, precisions=("fp16",)).run()

    bundle, before = done.bundle, open_bundle(made / "mine")
    assert list(bundle.manifest.precisions) == ["fp32", "int8", "fp16"]
    temperature = bundle.manifest.precision("fp32").temperature
    assert temperature == pytest.approx(before.manifest.precision("fp32").temperature, rel=2e-3)
    text = ["Not what I hoped for, but it does its work."]
    (old,), (new,) = (
        Classifier.load(path, precision="fp32").classify(text)
        for path in (before.path, bundle.path)
    )
    assert isinstance(old, Prediction)
    assert isinstance(new, Prediction)
    assert list(new.probs) == pytest.approx(list(old.probs), abs=1e-3)
    card = bundle.read("README.md").decode()
    assert "fp32 was made again" in card
    assert "answers in int8 alone" not in card
    assert "answers in int8 alone" not in bundle.read("report.html").decode()


def test_a_compact_bundle_without_weights_gets_no_other_precision(
    made: Path, compact: Path, tmp_path: Path
) -> None:
    """There is nothing to make an fp32 graph from."""
    shutil.copytree(compact, tmp_path / "a")
    (tmp_path / "a" / "model.safetensors").unlink()
    on = (str(made / "held-out.jsonl"),)

    with pytest.raises(BundleError, match="neither an fp32 graph") as caught:
        Export(bundle=tmp_path / "a", out=tmp_path / "b", on=on).run()

    assert caught.value.reason == "NO_FP32"


def test_other_weights_than_those_of_the_graphs_are_refused(
    made: Path, compact: Path, tmp_path: Path
) -> None:
    """The golden texts tell."""
    opened = open_bundle(compact)
    weights = load_file(compact / "model.safetensors")
    weights["head.weight"] = weights["head.weight"][::-1].copy()
    files = {name: opened.read(name) for name in opened.manifest.files}
    files["model.safetensors"] = save(weights)
    other = write_bundle(tmp_path / "a", files, opened.manifest)
    on = (str(made / "held-out.jsonl"),)

    with pytest.raises(BundleError, match="does not belong to the graphs"):
        Export(bundle=other.path, out=tmp_path / "b", on=on).run()
