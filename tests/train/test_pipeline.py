"""Reviews become a bundle that verifies and answers, or nothing at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from sentimill.bundle.reader import Bundle, open_bundle
from sentimill.classifier import Classifier, Prediction
from sentimill.errors import BundleError, InputError, TableError, UsageError
from sentimill_train import pipeline
from sentimill_train.data.examples import write_examples
from sentimill_train.data.schema import Columns, Example
from sentimill_train.data.splits import part
from sentimill_train.evaluation.result import Judgement
from sentimill_train.evaluation.training_evaluation import EvaluationConfig, read_evaluation
from sentimill_train.export import onnx as export
from sentimill_train.packaging.bundle_contents import GOLDEN_TEXTS
from sentimill_train.packaging.source_commit import commit_of
from sentimill_train.pipeline import Quiet, Train, Trained, inputs, starting_point
from sentimill_train.training.loop import FitConfig, Progress
from train_parts import TWO, reviews, write_base, write_reviews

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Train:
    """Return a run of seconds."""
    folder = tmp_path_factory.mktemp("train")
    return Train(
        reviews=(str(write_reviews(folder / "r.jsonl")),),
        out=folder / "bundles" / "mine",
        labels=TWO,
        base=str(write_base(folder / "base")),
        preset="tiny",
        max_tokens=48,
        fit=FitConfig(epochs=3, learning_rate=5e-3, batch_tokens=1024, seed=3),
        evaluation=EvaluationConfig(baselines=False),
    )


@pytest.fixture(scope="module")
def trained(config: Train) -> Trained:
    """Return what it gave, with the baselines that the other runs leave out."""
    return replace(config, evaluation=EvaluationConfig()).run()


@pytest.fixture
def fresh(config: Train, tmp_path: Path) -> Iterator[Train]:
    """Return a run whose output lies in an empty folder, which must be empty after it failed."""
    yield replace(config, out=tmp_path / "out" / "mine")
    left = tmp_path / "out"
    assert not left.exists() or list(left.iterdir()) == []


def test_the_bundle_verifies_and_answers(trained: Trained) -> None:
    """Loading replays the golden texts through the graph that was exported."""
    trained.bundle.verify()
    classifier = Classifier.load(trained.bundle.path)

    good, bad = classifier.classify(["item xyz was lovely", "item xyz was broken"])

    assert isinstance(good, Prediction)
    assert isinstance(bad, Prediction)
    assert (good.label, bad.label) == ("positive", "negative")
    assert trained.test.figures["accuracy"].value == 1.0


def test_the_manifest_says_where_the_model_comes_from(trained: Trained, config: Train) -> None:
    """Everything that a person needs to repeat it."""
    manifest = open_bundle(trained.bundle.path).manifest
    precision = manifest.precisions["fp32"]
    rows = [manifest.training[f"rows_{split}"] for split in ("train", "validation", "test")]

    assert (manifest.name, manifest.labels, manifest.max_tokens) == ("mine", TWO, 48)
    assert (manifest.base.name, manifest.threshold) == ("base", None)
    assert [(s.name, s.rows, len(s.sha256)) for s in manifest.sources] == [("r.jsonl", 400, 64)]
    assert sum(int(str(count)) for count in rows) == 400
    assert manifest.training["seed"] == 3
    assert manifest.training["preset"] == "tiny"
    assert manifest.training["patience"] == config.fit.patience
    assert manifest.training["text_column"] == "text"
    assert manifest.training["label_column"] is None
    assert manifest.training["commit"] == commit_of(Path(pipeline.__file__))
    assert manifest.libraries.keys() >= {"torch", "transformers", "onnxruntime"}
    assert manifest.metrics["test_accuracy"] == 1.0
    assert precision.parity_rows > 50
    assert 0 < precision.max_logit_difference < 1e-5
    assert [golden.text for golden in manifest.golden] == list(GOLDEN_TEXTS)


def test_the_bundle_has_these_files_and_no_others(trained: Trained) -> None:
    """Nothing of the reviews is among them."""
    names = set(trained.bundle.manifest.files)

    assert names == {
        "README.md",
        "config.json",
        "metrics.json",
        "model.safetensors",
        "onnx/fp32.onnx",
        "report.html",
        "tokenizer.json",
    }
    card = trained.bundle.read("README.md").decode()
    assert "# mine" in card
    for name in ("README.md", "metrics.json", "report.html"):
        paper = trained.bundle.read(name).decode()
        assert not any(review.text in paper for review in reviews(400)), name


def test_metrics_json_is_the_judgement(trained: Trained) -> None:
    """Of the test split, which chose nothing, beside the baselines and on our own cases."""
    metrics = msgspec.json.decode(trained.bundle.read("metrics.json"), type=Judgement)

    (test,) = metrics.sets
    assert metrics == trained.judgement
    assert (test.name, test.rows) == ("test", len(trained.parted.test))
    assert {label.label: label.f1.value for label in test.labels}["positive"] == 1.0
    assert [rival.name for rival in metrics.rivals] == ["TF-IDF", "static vectors"]
    assert {result.suite for result in metrics.behaviour} == {"sentimill"}
    assert metrics.bundle.graph_sha256 == trained.bundle.manifest.files["onnx/fp32.onnx"].sha256


def test_the_report_and_the_card_say_what_the_judgement_says(trained: Trained) -> None:
    """With the learning curve, and the sentence on each baseline."""
    page = trained.bundle.read("report.html").decode()
    card = trained.bundle.read("README.md").decode()

    assert "Loss while training" in page
    for rival in trained.judgement.rivals:
        assert rival.sentence() in card
        assert rival.sentence() in page


def test_the_manifest_has_the_mix_of_labels_that_drift_is_counted_against(trained: Trained) -> None:
    """The model's own answers on the test split, which it was not chosen by."""
    mix = trained.bundle.manifest.label_mix

    assert tuple(mix) == trained.bundle.manifest.labels
    assert sum(mix.values()) == pytest.approx(1)
    confusion = trained.test.confusion
    last = sum(row[-1] for row in confusion) / trained.test.rows
    assert mix[trained.bundle.manifest.labels[-1]] == pytest.approx(last)


def test_the_same_run_gives_the_same_model(trained: Trained, fresh: Train) -> None:
    """To the bit, on one machine."""
    again = replace(fresh, evaluation=EvaluationConfig()).run()

    for name in ("model.safetensors", "onnx/fp32.onnx"):
        assert again.bundle.manifest.files[name] == trained.bundle.manifest.files[name], name
    assert again.judgement.sets == trained.judgement.sets
    assert again.judgement.rivals == trained.judgement.rivals
    for path in sorted(again.bundle.path.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    again.bundle.path.rmdir()


def test_a_taken_name_is_refused_before_anything_is_read(
    config: Train, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not after an hour of training."""
    monkeypatch.setattr(inputs, "read_examples", None)

    with pytest.raises(UsageError, match="--overwrite") as caught:
        config.run()

    assert caught.value.reason == "OUTPUT_EXISTS"


class Interrupter(Quiet):
    """Somebody who presses Ctrl-C in the middle of an epoch."""

    def progress(self, progress: Progress) -> None:
        """Press it."""
        raise KeyboardInterrupt


def test_an_interrupt_leaves_nothing_behind(
    fresh: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither under the final name nor among temporary files."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))

    with pytest.raises(KeyboardInterrupt):
        fresh.run(Interrupter())

    assert list(temporary.iterdir()) == []


def test_a_graph_that_differs_from_torch_gives_no_bundle(
    fresh: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the error has the figure."""
    opened = export.open_graph

    def off(data: bytes) -> export.Run:
        run = opened(data)
        return lambda ids, mask: run(ids, mask) + np.float32(0.01)

    monkeypatch.setattr(export, "open_graph", off)

    with pytest.raises(BundleError, match=r"by 1\.00e-02 in a logit") as caught:
        fresh.run()

    assert caught.value.reason == "EXPORT_PARITY"


def test_reviews_that_cannot_be_used_give_no_bundle(fresh: Train) -> None:
    """The error is that of the reader."""
    with pytest.raises(TableError) as caught:
        replace(fresh, reviews=("none.csv",)).run()

    assert caught.value.reason == "FILE_NOT_FOUND"


@pytest.mark.parametrize("labels", [("positive",), ("positive", "positive")])
def test_two_different_labels_are_the_least(fresh: Train, labels: tuple[str, ...]) -> None:
    """A closed set of one says nothing."""
    with pytest.raises((UsageError, TableError)) as caught:
        replace(fresh, labels=labels).run()

    assert caught.value.reason in ("BAD_LABELS", "UNKNOWN_LABEL")


def test_more_tokens_than_positions_are_refused(fresh: Train, config: Train) -> None:
    """With the most that the encoder can read."""
    with pytest.raises(UsageError, match="at most 512") as caught:
        replace(fresh, max_tokens=513).run()

    assert caught.value.reason == "MAX_TOKENS_TOO_LARGE"


def test_unreadable_texts_are_left_out_and_named(config: Train, tmp_path: Path) -> None:
    """One empty review does not stop a training."""
    path = tmp_path / "r.jsonl"
    bad = Example(id="bad", text="\x00", label="positive", split="train", source="made")
    write_examples(path, [*reviews(200), bad])
    short = replace(config.fit, epochs=1)

    found = replace(config, reviews=(str(path),), out=tmp_path / "mine", fit=short).run()

    assert [(r.example.id, r.error.reason) for r in found.refused] == [("bad", "EMPTY_TEXT")]
    assert found.bundle.manifest.training["rows_refused"] == 1


def test_several_files_make_one_training_set(config: Train, tmp_path: Path) -> None:
    """With other labels than sentiments, taken as they are found."""
    sources = []
    for i, label in enumerate(("late", "rude")):
        path = tmp_path / f"{i}.csv"
        lines = [f"{label} {n} of them,{label}" for n in range(150)]
        path.write_text("\n".join(["text,label", *lines]))
        sources.append(str(path))
    short = replace(config.fit, epochs=1)

    found = replace(
        config, reviews=tuple(sources), labels=None, out=tmp_path / "mine", fit=short
    ).run()

    manifest = found.bundle.manifest
    (answer,) = Classifier.load(found.bundle.path).classify(["late again"])
    assert manifest.labels == ("late", "rude")
    assert [source.name for source in manifest.sources] == ["0.csv", "1.csv"]
    assert "two_class_accuracy" not in found.test.figures
    assert found.judgement.behaviour == ()
    assert isinstance(answer, Prediction)
    assert answer.score is None


def test_an_existing_bundle_can_be_replaced(config: Train, tmp_path: Path) -> None:
    """By a whole one, at once."""
    short = replace(config, out=tmp_path / "mine", fit=replace(config.fit, epochs=1))
    first: Bundle = short.run().bundle

    second = replace(short, overwrite=True, name="second").run().bundle

    assert (first.manifest.name, second.manifest.name) == ("mine", "second")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_target_error_becomes_the_threshold_of_the_bundle(fresh: Train) -> None:
    """By which classifier, server and jobs abstain; the card says what it buys."""
    found = replace(fresh, target_error=0.2).run()

    abstention = found.abstention
    assert abstention is not None
    manifest = found.bundle.manifest
    assert manifest.threshold == abstention.threshold
    assert manifest.threshold_coverage == abstention.coverage
    assert manifest.threshold_error == abstention.error
    assert found.bundle.manifest.training["target_error"] == 0.2
    assert abstention.sentence() in found.bundle.read("README.md").decode()
    assert abstention.threshold is not None
    shutil.rmtree(found.bundle.path)


def test_a_set_to_judge_on_loses_what_was_learnt(config: Train, tmp_path: Path) -> None:
    """The report counts it, and the figures are of the rest."""
    path = tmp_path / "more.jsonl"
    write_examples(path, [*reviews(50, seed=9), *reviews(400)[:100]])
    short = replace(config.fit, epochs=1)

    found = replace(
        config,
        out=tmp_path / "mine",
        fit=short,
        evaluation=EvaluationConfig(on=(str(path),), baselines=False),
    ).run()

    more = found.judgement.sets[1]
    assert more.name == "more"
    assert more.learnt > 50
    assert more.rows + more.learnt == 150
    assert found.judgement.rivals == ()


def test_rows_that_the_base_learnt_are_not_judged_on(
    config: Train, trained: Trained, tmp_path: Path
) -> None:
    """Its bundle names its files; the new one does so too, for whoever judges it later."""
    write_examples(tmp_path / "new.jsonl", reviews(200, seed=5))
    again = replace(
        config,
        reviews=(str(tmp_path / "new.jsonl"),),
        base=str(trained.bundle.path),
        preset="minilm-l6",
        out=tmp_path / "mine",
        fit=replace(config.fit, epochs=1),
        evaluation=EvaluationConfig(on=config.reviews, baselines=False),
    )

    found = again.run()

    learnt = found.judgement.sets[1]
    assert (learnt.part, learnt.rows) == ("test", len(trained.parted.test))
    base = found.bundle.manifest.base
    assert base.sources == trained.bundle.manifest.sources
    assert starting_point(again.base, "tiny").sources == ()


def test_rows_that_the_bundle_of_the_gate_learnt_are_not_judged_on(
    config: Train, trained: Trained
) -> None:
    """It would know them by heart, and the new one would lose to it."""
    wanted = EvaluationConfig(on=config.reviews, gate=trained.bundle.path)
    parted = part(reviews(200, seed=5), TWO)

    found = read_evaluation(wanted, parted, TWO, columns=Columns(), trained_on=())

    assert [sample.part for sample in found.samples] == ["test", "test"]
    assert len(found.samples[1].examples) == len(trained.parted.test)


@pytest.fixture
def blind(config: Train) -> Train:
    """Return a run that learns next to nothing."""
    return replace(config, fit=replace(config.fit, epochs=1, learning_rate=1e-9))


def test_a_bundle_that_is_worse_than_the_previous_one_is_not_written(
    blind: Train, trained: Trained, fresh: Train
) -> None:
    """The error names the figures that fell."""
    gate = EvaluationConfig(gate=trained.bundle.path, baselines=False)

    with pytest.raises(BundleError, match="accuracy on test by") as caught:
        replace(blind, out=fresh.out, evaluation=gate).run()

    assert caught.value.reason == "WORSE_THAN_PREVIOUS"


def test_a_worse_bundle_is_written_on_request_and_says_so(
    blind: Train, trained: Trained, tmp_path: Path
) -> None:
    """In its report and in the outcome."""
    evaluation = EvaluationConfig(gate=trained.bundle.path, allow_worse=True, baselines=False)

    found = replace(blind, out=tmp_path / "mine", evaluation=evaluation).run()

    assert found.verdict is not None
    assert not found.verdict.passed
    assert "significantly worse than the previous" in found.bundle.read("report.html").decode()


def test_a_gate_with_other_labels_is_refused_before_training(fresh: Train, bundle: Path) -> None:
    """There is no fair comparison, and no reason to wait for hours to be told."""
    with pytest.raises(InputError) as caught:
        replace(fresh, evaluation=EvaluationConfig(gate=bundle)).run(Interrupter())

    assert caught.value.reason == "LABELS_DIFFER"


def test_golden_texts_are_our_own_and_of_every_kind() -> None:
    """Short and too long, plain and with mark-up, emoji and another language."""
    assert 8 <= len(GOLDEN_TEXTS) <= 12
    assert len(set(GOLDEN_TEXTS)) == len(GOLDEN_TEXTS)
    assert max(len(text.split()) for text in GOLDEN_TEXTS) > 200
