"""Picks the rows of a file to label next: those that the models are least sure of, none twice.

On tweets about airlines, labels of such rows taught a student no more than labels of random rows
(`benchmarks/results/sampling.md`). But the choice saves labels of near-duplicates, and of texts
that have a label already.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from sentimill.atomic_write import write_atomically
from sentimill.classifier import Classifier, Prediction
from sentimill.errors import InputError, UsageError
from sentimill_train.curation.near_duplicates import jaccard, shingles
from sentimill_train.data.examples import stream_texts
from sentimill_train.data.schema import Columns
from sentimill_train.data.splits import normalise, text_key
from sentimill_train.metrics.classification import Floats
from sentimill_train.monitoring.recent_rows import draw_rows

NEAR: Final = 0.8
"""Jaccard similarity of word pairs from which on two texts count as the same, as in `curate`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleJob:
    """What to pick from *source* and where to write it.

    most: how many rows are drawn at random to pick from. exclude: files whose texts have labels.
    """

    source: str
    out: Path
    budget: int
    columns: Columns
    most: int = 20_000
    exclude: tuple[str, ...] = ()
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Picked:
    """How many rows were picked. excluded, unreadable: how many of those looked at."""

    picked: int
    rows_in_file: int
    looked_at: int
    excluded: int
    unreadable: int


def load_models(bundles: Sequence[Path]) -> list[Classifier]:
    """Return the models of *bundles*. Raises InputError LABELS_DIFFER."""
    models = [Classifier.load(bundle) for bundle in bundles]
    for other in models[1:]:
        if set(other.labels) != set(models[0].labels):
            raise InputError(
                f"{other.bundle.path} has the labels {', '.join(other.labels)}, not"
                f" {', '.join(models[0].labels)}: use bundles with the same labels",
                reason="LABELS_DIFFER",
            )
    return models


def pick_rows(models: Sequence[Classifier], job: SampleJob) -> Picked:
    """Write the rows of *job* to label next, as JSON lines with all their columns.

    Each row also gets `sample_uncertainty`, 0 to 1, and the split train, which replaces its own: a
    chosen sample is biased, so these rows must not be used for testing.

    Raises:
        TableError: a file cannot be used. InputError: NOTHING_CLASSIFIED, NOTHING_LEFT.
        UsageError: OUTPUT_EXISTS.
    """
    if job.out.exists():
        raise UsageError(
            f"{job.out} exists, and may contain labels: choose another --out",
            reason="OUTPUT_EXISTS",
        )
    drawn = draw_rows(job.source, columns=job.columns, most=job.most, seed=job.seed, whole=True)
    labelled = {
        text_key(text) for file in job.exclude for text, _ in stream_texts(file, job.columns)
    }
    fresh = [i for i, text in enumerate(drawn.texts) if text_key(text) not in labelled]
    if not fresh:
        raise InputError(
            f"every text of {job.source} is in a file of --exclude: give newer ones",
            reason="NOTHING_LEFT",
        )
    unsure = uncertainty(models, [drawn.texts[i] for i in fresh])
    read = [i for i, found in zip(fresh, unsure, strict=True) if not np.isnan(found)]
    if not read:
        raise InputError(
            f"none of {len(fresh)} texts can be read: are they empty? Name their column with"
            " --text-column",
            reason="NOTHING_CLASSIFIED",
        )
    of_row = dict(zip(fresh, unsure.tolist(), strict=True))
    places = choose([drawn.texts[i] for i in read], np.array([of_row[i] for i in read]), job.budget)
    lines = []
    for row in (read[place] for place in places):
        more = {"split": "train", "sample_uncertainty": round(of_row[row], 4)}
        lines.append(msgspec.json.encode({**drawn.rows[row], **more}, enc_hook=str))
    write_atomically(job.out, b"".join(line + b"\n" for line in lines))
    return Picked(
        picked=len(lines),
        rows_in_file=drawn.rows_in_file,
        looked_at=len(drawn.rows),
        excluded=len(drawn.rows) - len(fresh),
        unreadable=len(fresh) - len(read),
    )


def uncertainty(models: Sequence[Classifier], texts: Sequence[str]) -> Floats:
    """Return the entropy of the mean probs, 0 to 1 (texts,); NaN for texts that cannot be read."""
    unread = [np.nan] * len(models[0].labels)
    found = []
    for model in models:
        order = [model.labels.index(label) for label in models[0].labels]
        answers = model.classify(texts)
        probs = [a.probs if isinstance(a, Prediction) else unread for a in answers]
        found.append(np.array(probs)[:, order])
    mean = np.mean(found, axis=0)
    entropy = -(mean * np.log(np.clip(mean, 1e-12, None))).sum(axis=1)
    return np.asarray(entropy / np.log(len(unread)))


def choose(texts: Sequence[str], unsure: Floats, budget: int) -> list[int]:
    """Return the indices of up to *budget* of *texts*, the least sure first, no two similar.

    There are fewer if the other texts are similar to chosen ones.
    """
    chosen: list[int] = []
    known: dict[str, set[str]] = {}
    for place in np.argsort(-unsure, kind="stable").tolist():
        text = normalise(texts[place])
        words = shingles(text)
        if text in known or any(jaccard(words, other) >= NEAR for other in known.values()):
            continue
        chosen.append(place)
        known[text] = words
        if len(chosen) == budget:
            break
    return chosen
