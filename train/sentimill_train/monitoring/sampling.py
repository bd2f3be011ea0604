"""Picks the rows of a file that are worth a label, with the bundles that answer today."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import msgspec
import numpy as np

from sentimill.bundle.manifest import open_bundle
from sentimill.classifier import Classifier, Precision, Prediction
from sentimill.errors import BundleError, InputError, UsageError
from sentimill_train.atomic_write import write_whole
from sentimill_train.data.schema import normalise
from sentimill_train.metrics.classification import Floats
from sentimill_train.monitoring.observations import embeddings, look
from sentimill_train.monitoring.recent_rows import Drawn, draw_rows
from sentimill_train.monitoring.selection import Choice, choose

__all__ = ["Picked", "SampleJob", "load_models", "pick", "pick_rows"]

_ALL = 1 << 62  # rows


@dataclass(frozen=True, kw_only=True)
class SampleJob:
    """What to pick from *source* and where to write it.

    most: rows of it that are looked at, drawn by chance. exclude: files whose texts have labels
    already.
    """

    source: str
    out: Path
    budget: int
    text_column: str = "text"
    most: int = 20_000
    exclude: tuple[str, ...] = ()
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Picked:
    """What came of it: excluded and unreadable are rows of those that were looked at."""

    choices: tuple[Choice, ...]
    rows_in_file: int
    looked_at: int
    excluded: int
    unreadable: int


def load_models(
    bundles: Sequence[Path], tell: Callable[[str], None] = lambda said: None
) -> list[Classifier]:
    """Return each of *bundles* in each precision that runs here; *tell* hears of one that does not.

    Raises:
        InputError: LABELS_DIFFER. BundleError: one does not verify. UsageError: none runs here.
    """
    models: list[Classifier] = []
    for bundle in bundles:
        for precision in open_bundle(bundle).manifest.precisions:
            try:
                models.append(Classifier.load(bundle, precision=cast(Precision, precision)))
            except UsageError as error:
                tell(f"{bundle} in {precision} is left out: {error}")
    if not models:
        raise UsageError(
            "no precision of any --bundle runs here: `sentimill doctor` says what does",
            reason="ENGINE_MISSING",
        )
    for other in models[1:]:
        if set(other.labels) != set(models[0].labels):
            raise InputError(
                f"{other.bundle.path} answers {', '.join(other.labels)}, not"
                f" {', '.join(models[0].labels)}: use bundles with the same labels",
                reason="LABELS_DIFFER",
            )
    return models


def pick_rows(models: Sequence[Classifier], job: SampleJob) -> Picked:
    """Write the rows of *job* that are best labelled next, as JSON lines with all their columns.

    Each row also gets `sample_reason`, `sample_uncertainty` and `sample_disagreement`, and the
    split train, whatever it had: chosen rows are no fair picture, so no hash may make them test
    rows. How alike texts are is for the first model to say.

    Raises:
        TableError: a file cannot be used. InputError: NOTHING_CLASSIFIED, NOTHING_LEFT.
        BundleError: BUNDLE_NO_WEIGHTS. UsageError: OUTPUT_EXISTS.
    """
    if job.out.exists():
        raise UsageError(
            f"{job.out} exists, and may hold labels by now: choose another --out",
            reason="OUTPUT_EXISTS",
        )
    drawn = draw_rows(
        job.source, text_column=job.text_column, most=job.most, seed=job.seed, whole=True
    )
    fresh = _fresh(drawn, job)
    texts = [drawn.texts[i] for i in fresh]
    kept, choices = pick(models, texts, job.budget, seed=job.seed)
    rows = [(drawn.rows[fresh[int(kept[choice.row])]], choice) for choice in choices]
    lines = [msgspec.json.encode(_row(row, choice), enc_hook=str) for row, choice in rows]
    write_whole(job.out, b"".join(line + b"\n" for line in lines))
    return Picked(
        choices=tuple(choices),
        rows_in_file=drawn.rows_in_file,
        looked_at=len(drawn.rows),
        excluded=len(drawn.rows) - len(fresh),
        unreadable=len(fresh) - len(kept),
    )


def pick(
    models: Sequence[Classifier], texts: Sequence[str], budget: int, *, seed: int
) -> tuple[np.typing.NDArray[np.int64], list[Choice]]:
    """Return which of *texts* can be read, and the choice among those."""
    seen = look(models[0], texts)
    read = [texts[i] for i in seen.kept]
    points = embeddings(models[0], read)
    if points is None:
        raise BundleError(
            f"{models[0].bundle.path} holds no model.safetensors, which says how alike texts are:"
            " give a bundle that `train` wrote first",
            reason="BUNDLE_NO_WEIGHTS",
        )
    probs = [seen.probs, *(_probs(other, read, models[0].labels) for other in models[1:])]
    return seen.kept, choose(read, np.stack(probs), points, budget, seed=seed)


def _fresh(drawn: Drawn, job: SampleJob) -> list[int]:
    """Return the places of the rows whose text is in no file of `exclude`."""
    labelled: set[str] = set()
    for source in job.exclude:
        found = draw_rows(source, text_column=job.text_column, most=_ALL, seed=0)
        labelled |= {normalise(text) for text in found.texts}
    fresh = [i for i, text in enumerate(drawn.texts) if normalise(text) not in labelled]
    if not fresh:
        raise InputError(
            f"every text of {job.source} is in a file of --exclude: give newer ones",
            reason="NOTHING_LEFT",
        )
    return fresh


def _probs(model: Classifier, texts: Sequence[str], labels: Sequence[str]) -> Floats:
    """Return the answers of *model* (rows, labels), in the order of *labels*."""
    answers = [a.probs for a in model.classify(texts) if isinstance(a, Prediction)]
    columns = [model.labels.index(label) for label in labels]
    return np.array(answers, dtype=np.float64)[:, columns]


def _row(row: dict[str, object], choice: Choice) -> dict[str, object]:
    return {
        **row,
        "split": "train",
        "sample_reason": choice.reason,
        "sample_uncertainty": round(choice.uncertainty, 4),
        "sample_disagreement": round(choice.disagreement, 4),
    }
