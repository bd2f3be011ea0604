"""Cheap rivals, trained on the same kind of rows: TF-IDF and static embeddings under a linear head.

They are no straw men: on these reviews TF-IDF with logistic regression comes close.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from prompts import LABELS
from reviews import Review
from safetensors.numpy import load_file
from sentimill import Classifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from transformers import BertConfig, BertForSequenceClassification

__all__ = ["Predict", "pipeline_run", "static_embeddings", "tfidf"]

Predict = Callable[[Sequence[str]], NDArray[np.float64]]
"""Texts to probs (texts, labels)."""

_EMBEDDINGS: Final = "embeddings.word_embeddings.weight"


def tfidf(train: Sequence[Review]) -> Predict:
    """Word and bigram TF-IDF with logistic regression."""
    model = make_pipeline(
        TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), min_df=2, max_features=200_000),
        LogisticRegression(C=4.0, max_iter=1000),
    )
    model.fit([row.text for row in train], [row.label for row in train])
    return _ordered(model.classes_, model.predict_proba)


def static_embeddings(train: Sequence[Review], classifier: Classifier) -> Predict | None:
    """Mean of the bundle's own input embeddings with logistic regression.

    None where the bundle has no weights beside its graphs, as the test bundle has not.
    """
    weights = classifier.bundle.path / "model.safetensors"
    if not weights.is_file():
        return None
    table = _table(weights)

    def embed(texts: Sequence[str]) -> NDArray[np.float32]:
        rows = classifier.encoder.encode(list(texts))
        means = [
            np.zeros(table.shape[1], np.float32)
            if isinstance(row, Exception)
            else table[row.ids].mean(axis=0)
            for row in rows
        ]
        return np.stack(means)

    head = LogisticRegression(max_iter=2000)
    head.fit(embed([row.text for row in train]), [row.label for row in train])
    return _ordered(head.classes_, lambda texts: head.predict_proba(embed(texts)))


def pipeline_run(rows: Sequence[NDArray[np.int64]], *, batch: int = 32) -> Callable[[], None]:
    """Return a run of a MiniLM in plain transformers: torch, batches as they come, padded.

    Speed only: the weights are random, and the ids are the student's own.
    """
    config = BertConfig(
        hidden_size=384,
        num_hidden_layers=6,
        num_attention_heads=12,
        intermediate_size=1536,
    )
    config.num_labels = len(LABELS)
    model = BertForSequenceClassification(config)
    model.train(False)

    def run() -> None:
        with torch.inference_mode():
            for start in range(0, len(rows), batch):
                some = rows[start : start + batch]
                ids = torch.zeros((len(some), max(map(len, some))), dtype=torch.long)
                mask = torch.zeros_like(ids)
                for i, row in enumerate(some):
                    ids[i, : len(row)] = torch.from_numpy(row) % config.vocab_size
                    mask[i, : len(row)] = 1
                model(input_ids=ids, attention_mask=mask)

    return run


def _table(weights: Path) -> NDArray[np.float32]:
    tensors = load_file(weights)
    name = next(name for name in tensors if name.endswith(_EMBEDDINGS))
    return tensors[name].astype(np.float32)


def _ordered(classes: Sequence[str], probs: Callable[[Sequence[str]], object]) -> Predict:
    """Put a classifier's columns in label order; a label it never saw gets 0."""
    places = [list(classes).index(label) if label in classes else None for label in LABELS]

    def predict(texts: Sequence[str]) -> NDArray[np.float64]:
        found = np.asarray(probs(list(texts)), dtype=np.float64)
        columns = [np.zeros(len(found)) if place is None else found[:, place] for place in places]
        return np.stack(columns, axis=1)

    return predict
