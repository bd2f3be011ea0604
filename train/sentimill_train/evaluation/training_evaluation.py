"""The evaluation at the end of training: a draft bundle is evaluated, and may be refused."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sentimill.bundle.manifest import Source
from sentimill.bundle.reader import open_bundle
from sentimill.classifier import Classifier, Precision
from sentimill.errors import BundleError, EngineError
from sentimill_train.data.schema import SENTIMENTS, Columns
from sentimill_train.data.splits import Parted
from sentimill_train.evaluation.baselines import baseline_contenders
from sentimill_train.evaluation.behaviour import OWN_SUITE, read_cases
from sentimill_train.evaluation.evaluate import bundle_contender, judge_bundle
from sentimill_train.evaluation.labelled_set import Sample, read_sample
from sentimill_train.evaluation.regression_gate import Verdict, decide
from sentimill_train.evaluation.report import Epoch, render_report, worst_mistakes
from sentimill_train.evaluation.result import Contender, Judgement


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationConfig:
    """How a new bundle is evaluated.

    on: labelled files in addition to the test split. gate: the previous bundle; the new one is
    refused if it is significantly worse on any set, unless allow_worse. baselines: also fit simple
    models on the rows that the student learned from, and evaluate them.
    """

    on: tuple[str, ...] = ()
    gate: Path | None = None
    allow_worse: bool = False
    baselines: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationInputs:
    """The inputs of the evaluation. samples: the test split comes first."""

    config: EvaluationConfig
    parted: Parted
    samples: tuple[Sample, ...]
    previous: Contender | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """Results of the evaluation. verdict: None without a previous bundle. report: an HTML page."""

    judgement: Judgement
    verdict: Verdict | None
    report: str


def load_for_evaluation(path: Path) -> Classifier:
    """Load a bundle with the same engine on every machine, so that its figures are comparable.

    The engine is ONNX Runtime on the CPU, in fp32, or in the precision of a compact bundle.
    """
    listed = open_bundle(path).manifest.precisions
    precision: Precision = "fp32" if "fp32" in listed else "auto"
    return Classifier.load(path, engine="onnx", precision=precision, provider="cpu")


def base_contender(base: Path, labels: tuple[str, ...]) -> Contender | None:
    """Return the model in *base* as it was before training; None if it cannot be compared.

    An encoder without a head, a bundle without a graph, and one with other labels cannot.
    """
    try:
        classifier = load_for_evaluation(base)
    except (BundleError, EngineError):
        return None
    if set(classifier.labels) != set(labels):
        return None
    found = bundle_contender(classifier, labels)
    return replace(found, kind="base", note=f"The model before training, {classifier.precision}.")


def read_evaluation(
    config: EvaluationConfig,
    parted: Parted,
    labels: tuple[str, ...],
    *,
    columns: Columns,
    trained_on: Sequence[Sequence[Source]],
) -> EvaluationInputs:
    """Read all that the evaluation needs, so that errors in it are reported before training.

    Texts of the training and validation rows are removed from the files in *config.on*. trained_on:
    the files of this training and of its base; those of the gate's bundle are added to them.

    Raises:
        TableError: a set has no row to evaluate on. InputError: LABELS_DIFFER.
    """
    texts = "\0".join(example.text for example in parted.test)
    test = Sample(
        name="test",
        sha256=hashlib.sha256(texts.encode("utf-8", "replace")).hexdigest(),
        part="test",
        examples=parted.test,
    )
    learnt = (*parted.train, *parted.spare, *parted.validation)
    previous = None
    if config.gate is not None:
        gate = load_for_evaluation(config.gate)
        previous = bundle_contender(gate, labels)
        trained_on = (*trained_on, *gate.bundle.manifest.trainings)
    others = (
        read_sample(source, labels, trained_on=trained_on, columns=columns).without(learnt)
        for source in config.on
    )
    return EvaluationInputs(
        config=config, parted=parted, samples=(test, *others), previous=previous
    )


def evaluate_draft(
    inputs: EvaluationInputs,
    classifier: Classifier,
    base: Path,
    *,
    started_from_base: bool,
    curve: Sequence[Epoch],
    notes: list[str],
) -> Evaluated:
    """Evaluate the loaded draft, and also the base if it is a bundle with these labels.

    base: the folder of the encoder; the static baseline uses its word vectors. started_from_base:
    training started from the weights of *base*, not from random ones. The report names wrong
    answers by row, without texts, because it goes into the bundle.

    Raises:
        BundleError: WORSE_THAN_PREVIOUS, with every figure that fell.
    """
    manifest = classifier.bundle.manifest
    before = base_contender(base, classifier.labels) if started_from_base else None
    # The gate's bundle comes first. If the base is that bundle, it is evaluated once, as the base.
    contenders = list({c.name: c for c in (inputs.previous, before) if c is not None}.values())
    # A baseline needs at least two labels in train.
    if inputs.config.baselines and len({e.label for e in inputs.parted.train}) > 1:
        contenders += baseline_contenders(
            inputs.parted.train,
            inputs.parted.validation,
            classifier.labels,
            encoder=classifier.new_encoder(),
            weights=base / "model.safetensors",
        )
    known = set(classifier.labels) & set(SENTIMENTS)
    judgement, answered = judge_bundle(
        classifier,
        inputs.samples,
        cases=read_cases(OWN_SUITE) if known else (),
        contenders=contenders,
    )
    verdict = None
    if inputs.previous is not None:
        verdict = decide({on.name: on.comparison for on in judgement.rivals[0].sets})
        notes = [*notes, f"This bundle is {verdict.sentence()}."]
    if verdict is not None and not verdict.passed and not inputs.config.allow_worse:
        raise BundleError(
            f"the new bundle is {verdict.sentence()}: it was not written; train with other"
            " settings, or add --allow-worse to write it anyway",
            reason="WORSE_THAN_PREVIOUS",
        )
    worst = [mistake for one in answered for mistake in worst_mistakes(one, texts=False)]
    page = render_report(judgement, manifest, mistakes=worst, history=curve, notes=notes)
    return Evaluated(judgement=judgement, verdict=verdict, report=page)
