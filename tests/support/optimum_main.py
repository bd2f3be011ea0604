"""What `make test-optimum` trains, and what it asks of the bundles of both exporters."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from sentimill.bundle.reader import open_bundle
from sentimill.classifier import Classifier, Prediction
from sentimill.engine.base import Precision
from sentimill_train.data.examples import write_examples
from sentimill_train.evaluation.training_evaluation import EvaluationConfig
from sentimill_train.pipeline import Train
from sentimill_train.training.loop import FitConfig
from train_parts import TWO, reviews, write_base

NEAR: dict[Precision, float] = {"fp32": 1e-4, "int8": 5e-2}


def make(folder: Path) -> None:
    """Train a tiny bundle, and write rows that it never saw."""
    write_examples(folder / "r.jsonl", reviews(300))
    write_examples(folder / "held-out.jsonl", reviews(2300, seed=8))
    Train(
        reviews=(str(folder / "r.jsonl"),),
        out=folder / "mine",
        labels=TWO,
        base=str(write_base(folder / "base")),
        max_tokens=48,
        train_embeddings=True,
        fit=FitConfig(epochs=2, learning_rate=5e-3, batch_tokens=1024),
        evaluation=EvaluationConfig(baselines=False),
    ).run()


def compare(folder: Path) -> None:
    """Check that both exporters gave the same files, which verify and say the same.

    The graph of optimum is spelt another way, so it has no packed form; a GPU pads its rows.
    """
    ours, theirs = (open_bundle(folder / name) for name in ("default", "optimum"))
    assert ours.manifest.files.keys() - theirs.manifest.files.keys() == {"onnx/fp16-packed.onnx"}
    assert theirs.manifest.files.keys() <= ours.manifest.files.keys()
    assert list(ours.manifest.precisions) == list(theirs.manifest.precisions)
    assert {"fp32", "int8", "fp16"} == theirs.manifest.precisions.keys()
    for bundle in (ours, theirs):
        bundle.verify()
    card = theirs.read("README.md").decode()
    for precision in ("fp32", "int8", "fp16"):
        assert f"{precision} passes its gate" in card, card
    texts = [example.text for example in reviews(200, seed=9)]
    for precision, near in NEAR.items():
        first, second = (
            _probs(Classifier.load(each.path, precision=precision, engine="onnx"), texts)
            for each in (ours, theirs)
        )
        furthest = float(np.abs(first - second).max())
        print(f"{precision}: the exporters differ by {furthest:.1e} in a prob, at most {near}")  # noqa: T201 - a script
        assert furthest <= near


def _probs(
    classifier: Classifier, texts: list[str]
) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    answers = classifier.classify(texts)
    return np.array([a.probs for a in answers if isinstance(a, Prediction)])


if __name__ == "__main__":
    {"make": make, "compare": compare}[sys.argv[1]](Path(sys.argv[2]))
