"""Judges a bundle on sets, on behaviour and against rivals, and returns one `Judgement`.

`sentimill evaluate` and the end of `sentimill train` both come through here, with a `Classifier`,
so what is judged is the exported graph and not the model that training still holds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from sentimill.classifier import Classifier
from sentimill.errors import InputError
from sentimill.text.tokenizer import TextEncoder
from sentimill_train.data.schema import Example
from sentimill_train.data.splits import sample_rows
from sentimill_train.evaluation.baselines import (
    Baseline,
    fit_baseline,
    static_features,
    tfidf_features,
    word_table,
)
from sentimill_train.evaluation.behaviour import Case, run_cases
from sentimill_train.evaluation.labelled_set import (
    Answered,
    Sample,
    answer,
    gold_of,
    with_unique_names,
)
from sentimill_train.evaluation.result import Judged, Judgement, judge_rival, judge_set
from sentimill_train.metrics.classification import Floats
from sentimill_train.metrics.intervals import DRAWS

_FEWEST_LABELS: Final = 2  # a baseline needs two labels, so two rows
BASELINE_ROWS: Final = 50_000
"""Of more rows the baselines are fitted on a sample: their features are held in memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """Another model for the same rows. probs: examples to (rows, labels) in the bundle's order."""

    name: str
    kind: str
    note: str
    probs: Callable[[Sequence[Example]], Floats]


def judge_bundle(
    classifier: Classifier,
    samples: Sequence[Sample],
    *,
    cases: Sequence[Case] = (),
    contenders: Sequence[Contender] = (),
    draws: int = DRAWS,
    seed: int = 0,
) -> tuple[Judgement, list[Answered]]:
    """Return the judgement, and the answers that it rests on, a sample each."""
    answered = [answer(classifier, sample) for sample in with_unique_names(samples)]
    manifest = classifier.bundle.manifest
    rivals = [
        judge_rival(
            contender.name,
            contender.kind,
            contender.note,
            [
                (one, gold_of(one.examples, classifier.labels, contender.probs(one.examples)))
                for one in answered
            ],
            draws=draws,
            seed=seed,
        )
        for contender in contenders
    ]
    judgement = Judgement(
        bundle=Judged(
            name=manifest.name,
            version=manifest.version,
            graph_sha256=manifest.files[manifest.precision(classifier.precision).file].sha256,
            precision=classifier.precision,
            created=manifest.created,
            labels=manifest.labels,
            threshold=classifier.threshold,
        ),
        created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        draws=draws,
        seed=seed,
        sets=tuple(judge_set(one, draws=draws, seed=seed) for one in answered),
        behaviour=tuple(run_cases(classifier, cases)),
        rivals=tuple(rivals),
    )
    return judgement, answered


def bundle_contender(other: Classifier, labels: Sequence[str]) -> Contender:
    """Return another bundle as a contender for a bundle with *labels*.

    Raises:
        InputError: LABELS_DIFFER when it does not answer with the same labels.
    """
    if set(other.labels) != set(labels):
        raise InputError(
            f"{other.bundle.path} answers {', '.join(other.labels)}, not {', '.join(labels)}:"
            " compare bundles with the same labels",
            reason="LABELS_DIFFER",
        )

    def probs(examples: Sequence[Example]) -> Floats:
        sample = Sample(name=other.bundle.path.name, sha256="", part="", examples=tuple(examples))
        return answer(other, sample, labels=labels).answers.probs

    manifest = other.bundle.manifest
    return Contender(
        name=f"{manifest.name} {manifest.version} ({other.bundle.digest[:8]})",
        kind="bundle",
        note=f"Another bundle, {other.precision}, made {manifest.created}.",
        probs=probs,
    )


def baseline_contenders(
    train: Sequence[Example],
    validation: Sequence[Example],
    labels: tuple[str, ...],
    *,
    encoder: TextEncoder | None = None,
    weights: Path | None = None,
) -> list[Contender]:
    """Fit the baselines on the labelled rows of *train* and return them as contenders.

    encoder, weights: the tokenizer and model.safetensors of the base encoder; without them, and
    without word vectors among the weights, there is no static baseline. The baselines learn from
    hard labels alone: a teacher's shares are an advantage of the student.
    """
    labelled = [example for example in train if example.label in labels]
    fit_on = sample_rows(labelled, BASELINE_ROWS)
    choose_on = sample_rows([e for e in validation if e.label in labels], BASELINE_ROWS)
    if len({example.label for example in fit_on}) < _FEWEST_LABELS:
        raise InputError(
            f"the baselines have {len(fit_on)} training rows and need two labels: give the files"
            " that the bundle was trained on",
            reason="TOO_FEW_ROWS",
        )
    fitted = [
        fit_baseline("TF-IDF", tfidf_features(), fit_on, choose_on or fit_on, labels),
    ]
    table = None if weights is None else word_table(weights)
    if encoder is not None and table is not None:
        features = static_features(table, encoder)
        fitted.append(fit_baseline("static vectors", features, fit_on, choose_on or fit_on, labels))
    what = {
        "TF-IDF": "Words, word pairs and 3 to 5 letters, weighed by TF-IDF",
        "static vectors": "The mean of the base encoder's word embeddings over a text",
    }
    part = "" if len(fit_on) == len(labelled) else f" a sample of {len(fit_on):,} of"
    rows = f"{len(labelled):,} rows"
    return [
        Contender(
            name=baseline.name,
            kind="baseline",
            note=f"{what[baseline.name]}, with a logistic regression (C = {baseline.strength:g})"
            f" fitted on{part} the {rows} that the student learned from, by their hard labels.",
            probs=_texts(baseline),
        )
        for baseline in fitted
    ]


def _texts(baseline: Baseline) -> Callable[[Sequence[Example]], Floats]:
    return lambda examples: baseline.probs([example.text for example in examples])
