"""`sentimill export`: a bundle gets int8 when that passes its gate, and the truth when it does not."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from sentimill.bundle import open_bundle
from sentimill.classifier import Classifier, Prediction
from sentimill.errors import BundleError, InputError
from sentimill_train import quantise
from sentimill_train.exam import ExamConfig
from sentimill_train.export_command import export
from sentimill_train.fit import FitConfig
from sentimill_train.precisions import Export
from sentimill_train.records import write_examples
from sentimill_train.train import Train
from train_parts import TWO, reviews, write_base

app = typer.Typer()
app.command()(export)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a bundle that was really trained, beside 2,300 rows it never saw."""
    folder = tmp_path_factory.mktemp("precisions")
    write_examples(folder / "r.jsonl", reviews(300))
    write_examples(folder / "held-out.jsonl", reviews(2300, seed=8))
    Train(
        reviews=(str(folder / "r.jsonl"),),
        out=folder / "mine",
        labels=TWO,
        base=str(write_base(folder / "base")),
        preset="tiny",
        max_tokens=48,
        fit=FitConfig(epochs=2, learning_rate=5e-3, batch_tokens=1024),
        exam=ExamConfig(baselines=False),
    ).run()
    return folder


def test_int8_is_added_when_it_passes(made: Path, tmp_path: Path) -> None:
    """It loads, replays the golden texts, and answers; fp32 is the same file as before."""
    source = made / "held-out.jsonl"

    done = CliRunner().invoke(
        app,
        ["--bundle", str(made / "mine"), "--out", str(tmp_path / "b"), "--on", str(source)],
        catch_exceptions=False,
    )

    assert done.exit_code == 0
    bundle = open_bundle(tmp_path / "b")
    before = open_bundle(made / "mine")
    entry = bundle.manifest.precisions["int8"]
    assert entry.parity_rows >= 2000
    assert bundle.manifest.files["onnx/fp32.onnx"] == before.manifest.files["onnx/fp32.onnx"]
    classifier = Classifier.load(bundle.path, precision="int8", engine="onnx")
    (answer,) = classifier.classify(["item xyz was lovely"])
    assert isinstance(answer, Prediction)
    assert answer.label == "positive"
    assert "int8 passes its gate" in bundle.read("README.md").decode()
    assert "int8 passes its gate" in done.stderr


def test_int8_that_fails_is_left_out_and_the_card_says_so(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights of two bits answer otherwise: the bundle is written without them."""
    monkeypatch.setattr(quantise, "_WEIGHT_MOST", 1)
    options = Export(
        bundle=made / "mine", out=tmp_path / "b", on=(str(made / "held-out.jsonl"),)
    )

    bundle, check = options.run()

    assert not check.passed
    assert list(bundle.manifest.precisions) == ["fp32"]
    assert "onnx/int8.onnx" not in bundle.manifest.files
    assert check.sentence() in bundle.read("README.md").decode()


def test_a_refused_precision_is_an_error_of_the_command(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a script notices."""
    monkeypatch.setattr(quantise, "_WEIGHT_MOST", 1)
    source = made / "held-out.jsonl"

    done = CliRunner().invoke(
        app, ["--bundle", str(made / "mine"), "--out", str(tmp_path / "b"), "--on", str(source)]
    )

    assert isinstance(done.exception, BundleError)
    assert done.exception.reason == "PRECISION_REFUSED"


def test_rows_that_were_learnt_do_not_count(made: Path, tmp_path: Path) -> None:
    """Of a file that the model was trained on only the test rows are taken: too few here."""
    options = Export(bundle=made / "mine", out=tmp_path / "b", on=(str(made / "r.jsonl"),))

    with pytest.raises(InputError, match="2,000 labelled held-out rows") as caught:
        options.run()

    assert caught.value.reason == "TOO_FEW_ROWS"
    assert not (tmp_path / "b").exists()
