"""A tiny bundle whose graph has states, and indexes of labelled reviews for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from msgspec.structs import replace

from loaded_engine import load_engine
from sentimill.bundle.manifest import Golden, Manifest
from sentimill.classifier import Classifier
from sentimill.evidence.index import Index
from tiny_bundle import attention_graph, write_tiny_bundle

REVIEWS = [
    ("a", "good battery", "positive"),
    ("b", "bad battery", "negative"),
    ("c", "the battery", "neutral"),
    ("d", "good the fine", "positive"),
    ("e", "bad the bad", "negative"),
    ("f", "fine fine", "neutral"),
    ("g", "good good good", "positive"),
]
"""Id, text and label."""


def write_state_bundle(folder: Path, version: str = "1", languages: tuple[str, ...] = ()) -> Path:
    """Write a bundle whose graph has states: attention, a mean and a head."""
    ids = np.array([[1, 4, 6, 2]])
    logits = load_engine(attention_graph(), engine="onnx").run(ids, np.ones_like(ids))[0]
    probs = tuple((np.exp(logits) / np.exp(logits).sum()).tolist())

    def golden(manifest: Manifest) -> Manifest:
        made = (Golden(text="good battery", probs=probs),)
        return replace(manifest, golden=made, version=version, languages=languages)

    return write_tiny_bundle(folder, model=attention_graph(), change=golden).path


def write_index(path: Path, bundle: Path, rows: Sequence[tuple[str, str, str]] = REVIEWS) -> Path:
    """Write an index of *rows*, with their texts."""
    classifier = Classifier.load(bundle, states=True, threads=1)
    ids, texts, labels = zip(*rows, strict=True)
    _, values = classifier.compute(texts)
    made = Index(classifier.bundle.digest, texts=True)
    made.add(ids, labels, texts, values[:, len(classifier.labels) :])
    made.save(path)
    return path
