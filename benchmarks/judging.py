"""Quality of every model on the same held-out reviews, and the cascade between two of them."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from baselines import Predict
from cascade import curve
from numpy.typing import NDArray
from quality import PUBLISHED, judge
from record import CascadePoint, Quality
from reviews import QUALITY_SETS, Review, load, teacher_rows
from sentimill import Classifier
from sentimill_train.cost.plan import Plan
from sentimill_train.cost.rates import load_rates
from sentimill_train.cost.verdict import choose
from settings import Settings

__all__ = ["cascade_points", "qualities", "student_probs"]


def student_probs(classifier: Classifier, reviews: Sequence[Review]) -> NDArray[np.float64]:
    """Return the student's probs (reviews, labels)."""
    answers = classifier.classify([review.text for review in reviews])
    return np.array(
        [
            np.full(3, 1 / 3) if isinstance(answer, Exception) else answer.probs
            for answer in answers
        ],
        dtype=np.float64,
    )


def qualities(
    settings: Settings, classifier: Classifier, baselines: Mapping[str, Predict]
) -> Iterator[Quality]:
    """Judge student and baselines on test splits, and beside the teacher on its own rows."""
    draw = random.Random(1)
    test: list[Review] = []
    for dataset in QUALITY_SETS:
        rows = load(settings.data, dataset, "test")
        test += draw.sample(rows, min(len(rows), settings.judged_cap))
    shared = teacher_rows(settings.data, settings.pseudo, frozenset(settings.teacher_parts))
    for name, reviews in (("test splits", test), ("teacher's rows", shared)):
        suffix = "" if name == "test splits" else f" ({name})"
        predicts: dict[str, NDArray[np.float64]] = {"student": student_probs(classifier, reviews)}
        for rival, predict in baselines.items():
            predicts[rival] = predict([review.text for review in reviews])
        if suffix:
            given = [review.teacher for review in reviews]
            predicts["teacher (frontier)"] = np.array(given, dtype=np.float64)
        for model, probs in predicts.items():
            for row in judge(model, probs, reviews):
                if not suffix:
                    yield row
                elif row.dataset == "all":
                    yield _named(row, name)
    yield from PUBLISHED


def cascade_points(settings: Settings, classifier: Classifier, rate: float) -> list[CascadePoint]:
    """Draw the cascade's curve; rate: the student's reviews a second."""
    parts = frozenset(settings.teacher_parts)
    reviews = teacher_rows(settings.data, settings.pseudo, parts)
    random.Random(2).shuffle(reviews)
    plan = Plan(
        reviews_per_second=rate,
        usd_machine_hour=settings.usd_hour,
        utilisation=settings.utilisation,
    )
    frontier = choose(load_rates(), ())[0]
    return curve(
        student_probs(classifier, reviews),
        reviews,
        student_usd=plan.student_usd(),
        large_usd=plan.large_usd(frontier),
    )


def _named(row: Quality, dataset: str) -> Quality:
    return Quality(
        name=row.name,
        dataset=dataset,
        classes=row.classes,
        rows=row.rows,
        accuracy=row.accuracy,
        low=row.low,
        high=row.high,
        against=row.against,
    )
