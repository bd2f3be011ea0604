"""The report: one HTML file that explains a judgement, without scripts or external files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from sentimill.bundle.manifest import Manifest
from sentimill_train.evaluation.headline import headline
from sentimill_train.evaluation.labelled_set import Answered
from sentimill_train.evaluation.published_rates import PUBLISHED
from sentimill_train.evaluation.result import Judgement
from sentimill_train.metrics.intervals import Figure
from sentimill_train.reporting import charts
from sentimill_train.reporting.html import render

_SHOWN_CHARACTERS: Final = 700

_MEASURES: Final = {
    "accuracy": ("accuracy", "%", True),
    "macro_f1": ("macro-F1", "%", True),
    "two_class_accuracy": ("two-class accuracy", "%", True),
    "ece": ("calibration error (ECE)", "", False),
    "brier": ("Brier", "", False),
    "nll": ("NLL, nats", "", False),
    "aurc": ("AURC", "", False),
    "augrc": ("AUGRC", "", False),
    "neutral_share": ("called neutral", "%", True),
    "quadratic_kappa": ("kappa (stars)", "", True),
    "star_mae": ("MAE (stars)", "", False),
    "label_kappa": ("kappa (labels)", "", True),
    "label_mae": ("MAE (labels)", "", False),
}


_FILTERS: Final[dict[str, Callable[[float], str]]] = {
    "percent": lambda value: f"{value * 100:.1f}",
    "number": lambda value: f"{value:.3f}",
    "points": lambda value: f"{value * 100:+.1f}",
    "p": lambda value: "< 0.001" if value < 0.001 else f"{value:.3f}",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """A point of the learning curves. rows: reviews seen so far. None means not measured here."""

    rows: int
    train_loss: float | None = None
    validation_loss: float | None = None
    validation_macro_f1: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """A wrong answer. text: None in the report inside a bundle, which contains no reviews."""

    sample: str
    id: str
    text: str | None
    gold: str
    predicted: str
    confidence: float


def worst_mistakes(answered: Answered, most: int = 20, *, texts: bool = True) -> list[Mistake]:
    """Return the wrong answers with the highest confidence. Often it is the label that is wrong."""
    answers = answered.answers
    confidence, predicted = answers.confidence, answers.predicted
    wrong = [int(i) for i in (-confidence).argsort(kind="stable") if not answers.correct[i]]
    return [
        Mistake(
            sample=answered.sample.name,
            id=answered.examples[i].id,
            text=answered.examples[i].text[:_SHOWN_CHARACTERS] if texts else None,
            gold=answers.labels[int(answers.gold[i])],
            predicted=answers.labels[int(predicted[i])],
            confidence=float(confidence[i]),
        )
        for i in wrong[:most]
    ]


def render_report(
    judgement: Judgement,
    manifest: Manifest,
    *,
    mistakes: Sequence[Mistake] = (),
    history: Sequence[Epoch] = (),
    notes: Sequence[str] = (),
) -> str:
    """Return the page. notes: sentences below the headline, such as that of an `Abstention`."""
    from markupsafe import Markup

    drawn = {name: Markup(svg) for name, svg in _charts(judgement, history).items()}
    reliability = {
        result.name: Markup(charts.reliability_chart(result.reliability))
        for result in judgement.sets
    }
    values = {
        "judgement": judgement,
        "manifest": manifest,
        "mistakes": mistakes,
        "headline": headline(judgement, manifest),
        "notes": [*(rival.sentence() for rival in judgement.rivals), *notes],
        "charts": drawn,
        "reliability": reliability,
        "suites": _suites(judgement),
        "published": PUBLISHED,
        "measures": _MEASURES,
    }
    return render("report.html.j2", values, _FILTERS)


def _charts(judgement: Judgement, history: Sequence[Epoch]) -> dict[str, str]:
    sets = judgement.sets
    models: dict[str, dict[str, Figure]] = {
        result.name: {judgement.bundle.name: result.figures["macro_f1"]} for result in sets
    }
    for rival in judgement.rivals:
        for on in rival.sets:
            models[on.name][rival.name] = on.figures["macro_f1"]
    curves = {result.name: result.curve for result in sets}
    found = {"risk": charts.risk_chart(curves, judgement.bundle.threshold)}
    if sum(map(len, models.values())) > 1:  # one dot compares nothing
        found["models"] = charts.intervals_chart(models, "macro-F1, %")
    losses = {
        "training": [(e.rows, e.train_loss) for e in history if e.train_loss is not None],
        "validation": [
            (e.rows, e.validation_loss) for e in history if e.validation_loss is not None
        ],
    }
    # After one epoch there is one point on the validation rows, which is no curve.
    if drawn := {name: points for name, points in losses.items() if len(points) > 1}:
        found["loss"] = charts.curves_chart(drawn, "reviews seen", "loss")
    scores = [
        (e.rows, e.validation_macro_f1 * 100) for e in history if e.validation_macro_f1 is not None
    ]
    if len(scores) > 1:
        found["score"] = charts.curves_chart({"validation": scores}, "reviews seen", "macro-F1, %")
    return found


def _suites(judgement: Judgement) -> dict[str, list[object]]:
    found: dict[str, list[object]] = {}
    for result in judgement.behaviour:
        found.setdefault(result.suite, []).append(result)
    return found
