"""Cheap rivals, fitted on real reviews: TF-IDF and static vectors, each with a linear head.

TF-IDF with logistic regression comes close to the student on these reviews.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import BertConfig, BertForSequenceClassification

from sentimill import Classifier
from sentimill_train.data.schema import Example
from sentimill_train.evaluation.baselines import (
    Baseline,
    fit_baseline,
    static_features,
    tfidf_features,
    word_table,
)


def fit_rivals(
    classifier: Classifier, train: Sequence[Example], validation: Sequence[Example]
) -> list[Baseline]:
    """Fit both. There are no static vectors where the bundle has graphs and no weights."""
    labels = classifier.labels
    words = tfidf_features(characters=False)
    found = [fit_baseline("TF-IDF", words, train, validation, labels)]
    weights = classifier.bundle.path / "model.safetensors"
    table = word_table(weights) if weights.is_file() else None
    if table is not None:
        means = static_features(table, classifier.encoder)
        found.append(fit_baseline("static vectors", means, train, validation, labels))
    return found


def minilm() -> BertForSequenceClassification:
    """Return the student's shape in plain transformers, with random weights."""
    config = BertConfig(
        hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
    )
    config.num_labels = 3
    return BertForSequenceClassification(config)


def pipeline_run(rows: Sequence[NDArray[np.int64]], *, batch: int = 32) -> Callable[[], None]:
    """Return a run of the student's shape in plain transformers and torch, without sorting batches.

    It measures speed alone: the weights are random, and the ids are the student's own.
    """
    model = minilm().eval()
    vocabulary = model.config.vocab_size

    def run() -> None:
        with torch.inference_mode():
            for start in range(0, len(rows), batch):
                some = rows[start : start + batch]
                ids = torch.zeros((len(some), max(map(len, some))), dtype=torch.long)
                mask = torch.zeros_like(ids)
                for i, row in enumerate(some):
                    ids[i, : len(row)] = torch.from_numpy(row) % vocabulary
                    mask[i, : len(row)] = 1
                model(input_ids=ids, attention_mask=mask)

    return run
