"""`sentimill export`: a bundle gets int8 when that passes its gate, and the truth when it does not.

And its compact form, which has nothing else, does all that a bundle does.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file

from program import Sentimill
from reloading import reloading
from sentimill import AsyncClient
from sentimill.bundle import open_bundle
from sentimill.classifier import Classifier, Prediction
from sentimill.errors import BundleError, InputError
from sentimill_train import quantise
from sentimill_train.exam import ExamConfig
from sentimill_train.fit import FitConfig
from sentimill_train.precisions import Export
from sentimill_train.records import write_examples
from sentimill_train.train import Train
from train_parts import TWO, reviews, write_base

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
        exam=ExamConfig(baselines=False),
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a bundle that was really trained, beside 2,300 rows it never saw."""
    folder = tmp_path_factory.mktemp("precisions")
    write_examples(folder / "r.jsonl", reviews(300))
    write_examples(folder / "held-out.jsonl", reviews(2300, seed=8))
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
    assert entry.parity_rows == 2300
    assert entry.agreement is not None
    assert entry.agreement >= 0.995
    assert bundle.manifest.files["onnx/fp32.onnx"] == before.files["onnx/fp32.onnx"]
    assert bundle.manifest.version != before.version
    (answer,) = Classifier.load(out, precision="int8", engine="onnx").classify([LOVELY])
    assert isinstance(answer, Prediction)
    assert answer.label == "positive"
    assert "int8 passes its gate" in bundle.read("README.md").decode()
    assert "int8 passes its gate" in done.err


def test_int8_that_fails_is_left_out_and_the_card_says_so(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sentimill: Sentimill
) -> None:
    """Weights of nothing answer otherwise: exit code 4, and a bundle without them."""
    monkeypatch.setattr(quantise, "round_weight", broken)
    out = tmp_path / "b"

    done = sentimill("export", made / "mine", out, "--on", made / "held-out.jsonl")

    assert done.code == 4
    assert "int8 does not pass its gate" in done.error
    bundle = open_bundle(out)
    assert list(bundle.manifest.precisions) == ["fp32"]
    assert "onnx/int8.onnx" not in bundle.manifest.files
    assert "int8 does not pass its gate" in bundle.read("README.md").decode()


def test_a_compact_bundle_that_fails_is_not_written(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would have nothing to answer with."""
    monkeypatch.setattr(quantise, "round_weight", broken)
    on = (str(made / "held-out.jsonl"),)

    with pytest.raises(BundleError, match="no compact bundle was written") as caught:
        Export(bundle=made / "mine", out=tmp_path / "b", on=on, compact=True).run()

    assert caught.value.reason == "PRECISION_REFUSED"
    assert list(tmp_path.iterdir()) == []


def test_rows_that_were_learnt_do_not_count(made: Path, tmp_path: Path) -> None:
    """Of a file that the model was trained on only the test rows are taken: too few here."""
    options = Export(bundle=made / "mine", out=tmp_path / "b", on=(str(made / "r.jsonl"),))

    with pytest.raises(InputError, match="2,000 labelled held-out rows") as caught:
        options.run()

    assert caught.value.reason == "TOO_FEW_ROWS"
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
    exam = ExamConfig(baselines=False, gate=compact)

    trained = replace(options, exam=exam).run()

    weights = load_file(trained.bundle.path / "model.safetensors")
    assert {values.dtype for values in weights.values()} == {np.dtype(np.float32)}
    assert trained.verdict is not None
    assert trained.judgement.sets[0].figures["accuracy"].value > 0.9


def test_int8_cannot_be_made_of_a_compact_bundle(made: Path, compact: Path, tmp_path: Path) -> None:
    """There is no fp32 graph in it to compare with."""
    on = (str(made / "held-out.jsonl"),)

    with pytest.raises(BundleError, match="has no fp32 graph") as caught:
        Export(bundle=compact, out=tmp_path / "b", on=on).run()

    assert caught.value.reason == "NO_FP32"
