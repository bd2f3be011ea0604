"""Metrics in which everything was counted that a server can count."""

from __future__ import annotations

import re

from repository import ROOT
from sentimill.errors import OUTCOMES
from sentimill.observability.metrics import Metrics
from sentimill.types import AbstainReason, Prediction, Probs

SERIES = 410
"""How many series one server may cost Prometheus; process figures are in it."""

# Every value that each label may have is known before the first request.
LABELS = {
    "sentimill_requests": {"method", "code"},
    "sentimill_request_seconds": {"method"},
    "sentimill_texts": {"outcome"},
    "sentimill_refused_requests": {"reason"},
    "sentimill_closed_batches": {"reason"},
    "sentimill_reference_label_ratio": {"outcome"},
    "sentimill_reloads": {"result"},
    "sentimill_abstained_texts": {"reason"},
    "sentimill_model_restarts": {"reason"},
    "sentimill_model": {"name", "version", "digest", "precision", "engine", "provider"},
}
METHODS = (
    "Classify",
    "ClassifyBulk",
    "ClassifyStream",
    "ClassifyStreamBulk",
    "GetModel",
    "ModelInfer",
    "ModelMetadata",
    "ModelReady",
    "ServerMetadata",
)
CODES = {outcome.grpc for outcome in OUTCOMES.values()} | {"CANCELLED"}
REFUSED = (
    "QUEUE_FULL",
    "CALLER_SHARE_FULL",
    "ENGINE_FAILED",
    "DEADLINE_TOO_SHORT",
    "DEADLINE_EXCEEDED",
    "DRAINING",
    "TOKEN_MISSING",
    "TOKEN_UNKNOWN",
    "QUOTA_EXCEEDED",
)
SOURCES = ROOT / "serve/sentimill"


def answer(
    label: str = "positive",
    score: float | None = 0.5,
    confidence: float = 0.9,
    abstain_reason: AbstainReason | None = None,
    truncated: bool = False,
) -> Prediction:
    """Return a prediction with the fields that are counted."""
    return Prediction(
        label=label,
        probs=Probs(()),
        score=score,
        confidence=confidence,
        abstained=abstain_reason is not None,
        truncated=truncated,
        tokens=1,
        abstain_reason=abstain_reason,
    )


def full() -> Metrics:
    """Return metrics in which everything was counted that a server can count."""
    metrics = Metrics()
    reasons = {
        reason
        for path in SOURCES.rglob("*.py")
        for reason in re.findall(r'reason="(\w+)"', path.read_text())
    }
    for method in METHODS:
        for code in CODES:
            metrics.observe_request(method, code, 0.01)
    metrics.observe_answers([answer(label) for label in ("negative", "neutral", "positive")])
    for reason in REFUSED:
        metrics.refused.labels(reason)
    for reason in reasons & {"EMPTY_TEXT", "TEXT_TOO_LARGE", "INVALID_UNICODE", "ENGINE_FAILED"}:
        metrics.texts.labels(reason)
    facts = dict.fromkeys(LABELS["sentimill_model"], "x")
    metrics.set_model(facts, [], {"negative": 0.2, "neutral": 0.3, "positive": 0.5})
    return metrics
