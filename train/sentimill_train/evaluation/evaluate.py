"""Evaluates a bundle on sets, on behaviour and against rivals, and returns one `Judgement`.

`sentimill evaluate` and the end of `sentimill train` both call this with a `Classifier`, so they
evaluate the exported graph, not the model in the memory of the training.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np

from sentimill.classifier import Classifier, Prediction
from sentimill.errors import InputError
from sentimill_train.evaluation.behaviour import Case, run_cases
from sentimill_train.evaluation.labelled_set import (
    Answered,
    Sample,
    answer,
    classify_all,
    with_unique_names,
)
from sentimill_train.evaluation.result import Contender, Judged, Judgement, judge_rival, judge_set
from sentimill_train.metrics.classification import Floats
from sentimill_train.metrics.intervals import DRAWS


def judge_bundle(
    classifier: Classifier,
    samples: Sequence[Sample],
    *,
    cases: Sequence[Case] = (),
    contenders: Sequence[Contender] = (),
    draws: int = DRAWS,
    seed: int = 0,
) -> tuple[Judgement, list[Answered]]:
    """Return the judgement, and the answers to each sample from which it was computed."""
    answered = [answer(classifier, sample) for sample in with_unique_names(samples)]
    manifest = classifier.bundle.manifest
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
        rivals=tuple(judge_rival(one, answered, draws=draws, seed=seed) for one in contenders),
    )
    return judgement, answered


def bundle_contender(other: Classifier, labels: Sequence[str]) -> Contender:
    """Return another bundle as a contender for a bundle with *labels*.

    Raises:
        InputError: LABELS_DIFFER if it has other labels.
    """
    if set(other.labels) != set(labels):
        raise InputError(
            f"{other.bundle.path} has the labels {', '.join(other.labels)}, not"
            f" {', '.join(labels)}: compare bundles with the same labels",
            reason="LABELS_DIFFER",
        )

    columns = [other.labels.index(label) for label in labels]

    def probs(texts: Sequence[str]) -> Floats:
        refused = (np.nan,) * len(columns)
        answers = classify_all(other, texts)
        found = [one.probs if isinstance(one, Prediction) else refused for one in answers]
        return np.array(found)[:, columns]

    manifest = other.bundle.manifest
    return Contender(
        name=f"{manifest.name} {manifest.version} ({other.bundle.digest[:8]})",
        kind="bundle",
        note=f"Another bundle, {other.precision}, made {manifest.created}.",
        probs=probs,
    )
