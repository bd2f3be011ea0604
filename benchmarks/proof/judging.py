"""Judges every model, and the cascade of student and teacher, on the same held-out reviews."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import numpy as np

from benchmarks.proof.cascade import curve
from benchmarks.proof.record import CascadePoint, Quality
from benchmarks.proof.reviews import QUALITY_SETS, load, taught
from benchmarks.proof.settings import Settings
from sentimill import Classifier
from sentimill.classifier import Prediction
from sentimill_train.cost.break_even import Plan
from sentimill_train.cost.claims import choose
from sentimill_train.cost.prices import load_rates
from sentimill_train.data.schema import Example
from sentimill_train.evaluation.baselines import Baseline
from sentimill_train.evaluation.labelled_set import gold_of
from sentimill_train.metrics.classification import Answers, Floats
from sentimill_train.metrics.intervals import DRAWS, Figure, resample, share


def student_probs(classifier: Classifier, examples: Sequence[Example]) -> Floats:
    """Return the student's probs (reviews, labels). A text that it refuses gets equal probs."""
    even = [1 / len(classifier.labels)] * len(classifier.labels)
    answers = classifier.classify([example.text for example in examples])
    return np.array([one.probs if isinstance(one, Prediction) else even for one in answers])


def two_class(answers: Answers) -> np.typing.NDArray[np.bool_]:
    """Return for each row that is not neutral whether the answer of two classes is right."""
    bad, middle, good = map(answers.labels.index, ("negative", "neutral", "positive"))
    rows = answers.gold != middle
    leans = answers.probs[rows, good] > answers.probs[rows, bad]
    return np.asarray(leans == (answers.gold[rows] == good))


def judge(name: str, dataset: str, answers: Answers) -> Iterator[Quality]:
    """Yield accuracy on two classes, and on three where any row is neutral."""
    neutral = answers.labels.index("neutral")
    right = two_class(answers)
    found = {2: share(int(right.sum()), len(right))}
    if (answers.gold == neutral).any():
        found[3] = share(int(answers.correct.sum()), len(answers.gold))
    for classes, accuracy in found.items():
        yield Quality(name=name, dataset=dataset, classes=classes, accuracy=accuracy)


def qualities(
    settings: Settings, classifier: Classifier, rivals: Sequence[Baseline]
) -> tuple[list[Quality], Figure]:
    """Judge student and rivals on test splits, and with the teacher on rows that none learnt.

    The second value is the share of the teacher's two-class accuracy that the student retains.
    """
    found: list[Quality] = []
    draw = random.Random(1)
    for dataset in QUALITY_SETS:
        rows = load(settings.data, dataset, "test")
        rows = draw.sample(rows, min(len(rows), settings.judged))
        for name, answers in _all(classifier, rivals, rows).items():
            found += judge(name, dataset, answers)
    shared = taught(settings.data, settings.pseudo, settings.teacher_set)
    beside = _all(classifier, rivals, shared)
    beside["teacher"] = gold_of(shared, classifier.labels, _shares(shared))
    for name, answers in beside.items():
        found += judge(name, f"teacher's {settings.teacher_set}", answers)
    return found, retained(beside["student"], beside["teacher"])


def retained(student: Answers, teacher: Answers) -> Figure:
    """Return the student's two-class accuracy divided by the teacher's, by a paired bootstrap."""
    ours, theirs = (two_class(one).astype(float) for one in (student, teacher))
    drawn = resample(len(ours), lambda w: (w @ ours) / (w @ theirs), draws=DRAWS, seed=0)
    low, high = np.quantile(drawn, [0.025, 0.975]).tolist()
    return Figure(value=float(ours.sum() / theirs.sum()), low=low, high=high, rows=len(ours))


def cascade_points(settings: Settings, classifier: Classifier, rate: float) -> list[CascadePoint]:
    """Return the curve of the cascade. rate: the student's reviews a second."""
    rows = taught(settings.data, settings.pseudo, settings.teacher_set)
    random.Random(2).shuffle(rows)
    plan = Plan(
        reviews_per_second=rate,
        usd_machine_hour=settings.usd_hour,
        utilisation=settings.utilisation,
    )
    frontier = choose(load_rates(), ())[0]
    return curve(
        gold_of(rows, classifier.labels, student_probs(classifier, rows)),
        _shares(rows),
        student_usd=plan.student_usd(),
        large_usd=plan.large_usd(frontier),
    )


def _all(
    classifier: Classifier, rivals: Sequence[Baseline], rows: Sequence[Example]
) -> dict[str, Answers]:
    probs = {"student": student_probs(classifier, rows)}
    for rival in rivals:
        probs[rival.name] = rival.probs([row.text for row in rows])
    return {name: gold_of(rows, classifier.labels, each) for name, each in probs.items()}


def _shares(rows: Sequence[Example]) -> Floats:
    return np.array([row.probs for row in rows], dtype=np.float64)
