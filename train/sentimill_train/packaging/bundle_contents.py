"""Builds the files and the manifest of a bundle from an exported and evaluated student."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from sentimill.bundle.manifest import SCHEMA_VERSION, Golden, Manifest, Source
from sentimill.bundle.reader import WEIGHTS
from sentimill.classifier import probabilities
from sentimill.installed_packages import package_version
from sentimill.text.cleaning import CLEANING
from sentimill.text.tokenizer import TextEncoder, Truncation
from sentimill_train.calibration.temperature import Calibration
from sentimill_train.evaluation.result import Judgement
from sentimill_train.export.onnx import FP32_FILE, Graph, text_logits
from sentimill_train.model.pretrained import Pretrained
from sentimill_train.packaging.card_findings import findings
from sentimill_train.packaging.model_card import model_card
from sentimill_train.packaging.source_commit import commit_of

GOLDEN_TEXTS: Final = (
    "The battery died in a week.",
    "Not bad at all, I would buy it again.",
    "It is a kettle. It boils water.",
    "Oh great, another update that breaks everything.",
    "Arrived on Tuesday in a brown box.",
    "ABSOLUTELY LOVE IT!!! 😍",
    "Good food, terrible service.",
    "I used to recommend this place; not any more.",
    "Would this fit a ten-inch tablet?",
    "Lovely staff &amp; a clean room.<br />Breakfast could be better.",
    "Trop cher pour ce que c'est.",
    "We waited an hour for a table. " * 30 + "In the end the dessert made up for all of it.",
)
"""Our own texts, whose probs are in the manifest; every load must reproduce these."""

# A checkout on PYTHONPATH has no version, and neither has onnxruntime-gpu under this name.
_LIBRARIES: Final = (
    "sentimill",
    "torch",
    "transformers",
    "tokenizers",
    "datasets",
    "numpy",
    "onnx",
    "onnxruntime",
)


def golden_of(
    graph: Graph, encoder: TextEncoder, pad_id: int, temperature: float, labels: Sequence[str]
) -> tuple[Golden, ...]:
    """Return `GOLDEN_TEXTS` with the probs of the exported graph, each text run alone."""
    golden = []
    found = text_logits(graph.run, encoder, pad_id, GOLDEN_TEXTS)
    for text, logits in zip(GOLDEN_TEXTS, found, strict=True):
        if logits is not None:
            probs = probabilities(logits, temperature)[0]
            label = labels[int(probs.argmax())]
            golden.append(Golden(text=text, probs=tuple(probs.tolist()), label=label))
    return tuple(golden)


@dataclass(frozen=True, kw_only=True)
class BundleContents:
    """All inputs of a bundle.

    notes: Markdown for the card. training: how the student was trained, by name. golden: from
    `golden_of`. A bundle is written twice: first only with `files`, to evaluate it as it will be
    served, then also with `documents`.
    """

    name: str
    notes: str
    max_tokens: int
    truncation: Truncation
    pretrained: Pretrained
    labels: tuple[str, ...]
    sources: tuple[Source, ...]
    training: Mapping[str, str | int | float | bool | None]
    calibration: Calibration
    graph: Graph
    golden: tuple[Golden, ...]
    pad_id: int
    languages: tuple[str, ...] = ()
    created: datetime = field(default_factory=lambda: datetime.now(UTC))

    def files(self, work: Path) -> dict[str, bytes | Path]:
        """Return the files that the model needs; *work* contains the saved student."""
        return {
            "config.json": work / "config.json",
            WEIGHTS: work / WEIGHTS,
            FP32_FILE: self.graph.data,
            "tokenizer.json": self.pretrained.tokenizer_json(),
        }

    def documents(self, judgement: Judgement, report: str) -> dict[str, bytes]:
        """Return the model card, the figures and the report."""
        found = findings(judgement, self.calibration.abstention)
        return {
            "README.md": model_card(self.manifest(), found, self.notes).encode(),
            "metrics.json": msgspec.json.format(msgspec.json.encode(judgement), indent=2) + b"\n",
            "report.html": report.encode(),
        }

    def manifest(self, judgement: Judgement | None = None) -> Manifest:
        """Return the manifest, without its list of files; without a judgement it has no figures."""
        # Without a threshold these values describe the best attempt and are not stored.
        chosen = None if self.calibration.threshold is None else self.calibration.abstention
        return Manifest(
            schema_version=SCHEMA_VERSION,
            name=self.name,
            version=self.created.strftime("%Y.%m.%d.%H%M%S"),
            created=self.created.isoformat(timespec="seconds"),
            labels=self.labels,
            max_tokens=self.max_tokens,
            truncation=self.truncation,
            pad_id=self.pad_id,
            base=self.pretrained.as_base(),
            precisions={"fp32": self.graph.precision(self.calibration.temperature)},
            golden=self.golden,
            files={},
            threshold=self.calibration.threshold,
            threshold_coverage=None if chosen is None else chosen.coverage,
            threshold_error=None if chosen is None else chosen.error,
            metrics={} if judgement is None else _metrics(judgement),
            sources=self.sources,
            libraries={name: found for name in _LIBRARIES if (found := package_version(name))},
            training={
                **self.training,
                "python": platform.python_version(),
                "commit": commit_of(Path(__file__)),
            },
            label_mix={} if judgement is None else _label_mix(judgement),
            cleaning=CLEANING,
            languages=self.languages,
        )


def _metrics(judgement: Judgement) -> dict[str, float]:
    """Return the figures of every set, named `set_figure`."""
    flat: dict[str, float] = {}
    for result in judgement.sets:
        flat[f"{result.name}_rows"] = float(result.rows)
        flat |= {f"{result.name}_{name}": f.value for name, f in result.figures.items()}
    return flat


def _label_mix(judgement: Judgement) -> dict[str, float]:
    """Return the share of each label among the answers on the test split."""
    answers = np.sum(judgement.sets[0].confusion, axis=0)
    shares = answers / answers.sum()
    return dict(zip(judgement.bundle.labels, shares.tolist(), strict=True))
