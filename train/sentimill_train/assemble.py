"""Puts a judged and exported student together as the files and the manifest of a bundle."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from sentimill.bundle import SCHEMA_VERSION, Base, File, Golden, Manifest, Precision, Source
from sentimill.classifier import probabilities
from sentimill.errors import TextError
from sentimill.text import TextEncoder, Truncation, pad
from sentimill_train.card import Card, model_card
from sentimill_train.evaluate import Metrics
from sentimill_train.export import Graph
from sentimill_train.fit import Fit, FitConfig
from sentimill_train.pretrained import Pretrained
from sentimill_train.splits import Parted

__all__ = ["GOLDEN_TEXTS", "Made", "golden_of"]

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
"""Our own sentences whose probs a bundle keeps: every load must give them again."""

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
    graph: Graph, encoder: TextEncoder, pad_id: int, temperature: float
) -> tuple[Golden, ...]:
    """Return `GOLDEN_TEXTS` with the probs that the exported graph gives each, alone."""
    golden = []
    for text, encoded in zip(GOLDEN_TEXTS, encoder.encode(GOLDEN_TEXTS), strict=True):
        if isinstance(encoded, TextError):
            continue
        probs = probabilities(graph.run(*pad([encoded.ids], pad_id)), temperature)
        golden.append(Golden(text=text, probs=tuple(probs[0].tolist())))
    return tuple(golden)


@dataclass(frozen=True, kw_only=True)
class Made:
    """All that a bundle is written from.

    refused: how many rows were left out because no model can read them. judged: calibrated figures
    by split. golden: from `golden_of`.
    """

    name: str
    preset: str
    train_embeddings: bool
    max_tokens: int
    truncation: Truncation
    config: FitConfig
    pretrained: Pretrained
    labels: tuple[str, ...]
    sources: tuple[Source, ...]
    parted: Parted
    refused: int
    fitted: Fit
    temperature: float
    judged: dict[str, Metrics]
    graph: Graph
    golden: tuple[Golden, ...]
    pad_id: int

    def files(self, work: Path) -> dict[str, bytes | Path]:
        """Return the files of the bundle; *work* holds the saved student."""
        metrics = {"temperature": self.temperature, **self.judged}
        return {
            "README.md": model_card(self.card()).encode(),
            "config.json": work / "config.json",
            "metrics.json": msgspec.json.format(msgspec.json.encode(metrics), indent=2) + b"\n",
            "model.safetensors": work / "model.safetensors",
            "onnx/fp32.onnx": self.graph.data,
            "tokenizer.json": self.pretrained.tokenizer_json(),
        }

    def card(self) -> Card:
        """Return what the model card is written from."""
        return Card(
            name=self.name,
            labels=self.labels,
            base=self._base(),
            sources=self.sources,
            training=self._training(),
            max_tokens=self.max_tokens,
            truncation=self.truncation,
            temperature=self.temperature,
            test=self.judged["test"],
        )

    def manifest(self, files: dict[str, File]) -> Manifest:
        """Return the manifest over *files*."""
        now = datetime.now(UTC)
        return Manifest(
            schema_version=SCHEMA_VERSION,
            name=self.name,
            version=now.strftime("%Y.%m.%d.%H%M%S"),
            created=now.isoformat(timespec="seconds"),
            labels=self.labels,
            max_tokens=self.max_tokens,
            truncation=self.truncation,
            pad_id=self.pad_id,
            base=self._base(),
            precisions={"fp32": self._precision()},
            golden=self.golden,
            files=files,
            metrics=self._metrics(),
            sources=self.sources,
            libraries=_libraries(),
            training=self._training(),
            label_mix=self._label_mix(),
        )

    def _label_mix(self) -> dict[str, float]:
        answers = np.sum(self.judged["test"].confusion, axis=0)
        shares = answers / answers.sum()
        return dict(zip(self.labels, shares.tolist(), strict=True))

    def _precision(self) -> Precision:
        return Precision(
            file="onnx/fp32.onnx",
            temperature=self.temperature,
            max_logit_difference=self.graph.max_logit_difference,
            parity_rows=self.graph.parity_rows,
        )

    def _base(self) -> Base:
        base = self.pretrained
        return Base(name=base.name, sha256=base.sha256, revision=base.revision)

    def _metrics(self) -> dict[str, float]:
        flat: dict[str, float] = {}
        for split, metrics in self.judged.items():
            for figure in ("rows", "accuracy", "macro_f1", "ece", "nll", "two_class_accuracy"):
                value = getattr(metrics, figure)
                if value is not None:
                    flat[f"{split}_{figure}"] = float(value)
        return flat

    def _training(self) -> dict[str, str | int | float | bool | None]:
        config = self.config
        return {
            "preset": self.preset,
            "train_embeddings": self.train_embeddings,
            "seed": config.seed,
            "epochs": self.fitted.epochs,
            "best_epoch": self.fitted.best_epoch,
            "steps": self.fitted.steps,
            "batch_tokens": config.batch_tokens,
            "learning_rate": config.learning_rate,
            "soft_weight": config.soft_weight,
            "rows_train": len(self.parted.train),
            "rows_validation": len(self.parted.validation),
            "rows_test": len(self.parted.test),
            "rows_unlabelled": self.parted.unlabelled,
            "rows_repeated": self.parted.repeated,
            "rows_refused": self.refused,
            "seconds": round(self.fitted.seconds, 1),
            "device": self.fitted.device,
            "autocast": self.fitted.autocast,
            "threads": self.fitted.threads,
            "python": platform.python_version(),
        }


def _libraries() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue  # a checkout on PYTHONPATH, or onnxruntime-gpu under its other name
    return found
