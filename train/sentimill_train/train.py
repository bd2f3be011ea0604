"""Reviews in, a bundle out: one pass through the rooms of this package, in order."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from tokenizers import Tokenizer
from torch import nn

from sentimill.bundle import Bundle, Source, check_writable, write_bundle
from sentimill.classifier import probabilities
from sentimill.errors import UsageError
from sentimill.text import TextEncoder, Truncation
from sentimill_train.assemble import Made, golden_of
from sentimill_train.calibrate import find_temperature
from sentimill_train.evaluate import Metrics, evaluate
from sentimill_train.export import export_fp32
from sentimill_train.fit import Fit, FitConfig, Progress, fit, seed_everything
from sentimill_train.pretrained import Pretrained, find_pretrained
from sentimill_train.records import SENTIMENTS, Columns, Example, label_set, read_examples
from sentimill_train.sources import digest_of
from sentimill_train.splits import Parted, part
from sentimill_train.student import Preset, Student, new_student, pad_id_of, predict, save_student
from sentimill_train.tokens import Refused, Rows, tokenise

__all__ = ["Quiet", "Train", "Trained", "Watcher"]


class Watcher(Protocol):
    """Who is told how training goes. Either method may raise to stop it; nothing is left then."""

    def stage(self, name: str) -> None:
        """Say what begins now."""
        ...

    def progress(self, progress: Progress) -> None:
        """Say where the loop is."""
        ...


class Quiet:
    """A watcher that says nothing."""

    def stage(self, name: str) -> None:
        """See `Watcher.stage`."""

    def progress(self, progress: Progress) -> None:
        """See `Watcher.progress`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What a run gave. refused: rows whose text no model can read, and which were left out."""

    bundle: Bundle
    test: Metrics
    fit: Fit
    parted: Parted
    refused: tuple[Refused, ...]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train a student on *reviews* and write it as a bundle to *out*.

    reviews: files, `starter`, or `hub:owner/name[@revision]`. labels: the closed set in order;
    None takes those that occur. base: as for `find_pretrained`.
    """

    reviews: tuple[str, ...]
    out: Path
    name: str | None = None
    columns: Columns = field(default_factory=Columns)
    labels: tuple[str, ...] | None = SENTIMENTS
    base: str | None = None
    preset: Preset = "minilm-l6"
    max_tokens: int = 256
    truncation: Truncation = "head-tail"
    fit: FitConfig = field(default_factory=FitConfig)
    overwrite: bool = False

    def run(self, watcher: Watcher | None = None) -> Trained:
        """Do it. The folder *out* appears at the very end, whole, or not at all.

        Raises:
            UsageError: an option that cannot be, or *out* is taken; before anything is trained.
            TableError: the reviews cannot be used. BundleError: the export is not good enough.
        """
        watcher = watcher or Quiet()
        started = time.perf_counter()
        check_writable(self.out, overwrite=self.overwrite)
        pretrained = find_pretrained(self.base)
        watcher.stage("reading reviews")
        sources, examples = self._read()
        labels = self._labels(examples)
        parted = part(examples, labels)
        encoder = self._encoder(pretrained)
        rows, refused = _tokenise(parted, encoder, labels)
        watcher.stage("training")
        student = self._student(pretrained, labels)
        fitted = fit(student, rows["train"], rows["validation"], self.fit, watcher.progress)
        watcher.stage("calibrating and judging")
        temperature, judged = _judge(student, rows, labels)
        watcher.stage("exporting")
        with tempfile.TemporaryDirectory(prefix="sentimill-") as work:
            save_student(student, Path(work))
            graph = export_fp32(Path(work), seed=self.fit.seed)
            pad_id = pad_id_of(student.config)
            made = Made(
                name=self.name or self.out.resolve().name,
                preset=self.preset,
                max_tokens=self.max_tokens,
                truncation=self.truncation,
                config=self.fit,
                pretrained=pretrained,
                labels=labels,
                sources=sources,
                parted=parted,
                refused=len(refused),
                fitted=fitted,
                temperature=temperature,
                judged=judged,
                graph=graph,
                golden=golden_of(graph, encoder, pad_id, temperature),
                pad_id=pad_id,
            )
            bundle = write_bundle(
                self.out, made.files(Path(work)), made.manifest, overwrite=self.overwrite
            )
        return Trained(
            bundle=bundle,
            test=judged["test"],
            fit=fitted,
            parted=parted,
            refused=refused,
            seconds=time.perf_counter() - started,
        )

    def _read(self) -> tuple[tuple[Source, ...], list[Example]]:
        sources, examples = [], []
        for review in self.reviews:
            found = read_examples(review, columns=self.columns, labels=self.labels)
            # The name alone: where a file lay is nobody's business.
            name = Path(review).name if "/" in review and ":" not in review else review
            sources.append(Source(name=name, sha256=digest_of(review), rows=len(found)))
            examples += found
        return tuple(sources), examples

    def _labels(self, examples: Sequence[Example]) -> tuple[str, ...]:
        labels = self.labels if self.labels is not None else label_set(examples)
        if len(set(labels)) != len(labels) or len(labels) < 2:
            raise UsageError(
                f"{len(labels)} labels ({', '.join(labels)}): give two or more different ones"
                " with --labels",
                reason="BAD_LABELS",
            )
        return labels

    def _encoder(self, pretrained: Pretrained) -> TextEncoder:
        return TextEncoder.from_bytes(
            pretrained.tokenizer_json(), max_tokens=self.max_tokens, truncation=self.truncation
        )

    def _student(self, pretrained: Pretrained, labels: Sequence[str]) -> Student:
        seed_everything(self.fit.seed)
        vocabulary = Tokenizer.from_buffer(pretrained.tokenizer_json()).get_vocab_size()
        student = new_student(self.preset, pretrained, labels, vocabulary=vocabulary)
        # RoBERTa numbers positions from behind its padding id.
        offset = pad_id_of(student.config) + 1 if student.config.model_type == "roberta" else 0
        longest = int(student.config.max_position_embeddings) - offset
        if self.max_tokens > longest:
            raise UsageError(
                f"--max-tokens {self.max_tokens} is more than {pretrained.name} has positions"
                f" for: use at most {longest}",
                reason="MAX_TOKENS_TOO_LARGE",
            )
        module: nn.Module = student
        module.to("cuda" if torch.cuda.is_available() else "cpu")
        return student


def _tokenise(
    parted: Parted, encoder: TextEncoder, labels: Sequence[str]
) -> tuple[dict[str, Rows], tuple[Refused, ...]]:
    rows: dict[str, Rows] = {}
    refused: list[Refused] = []
    for split in ("train", "validation", "test"):
        rows[split], left_out = tokenise(parted[split], encoder, labels)
        refused += left_out
    return rows, tuple(refused)


def _judge(
    student: Student, rows: dict[str, Rows], labels: Sequence[str]
) -> tuple[float, dict[str, Metrics]]:
    """Return the temperature, found on validation, and the calibrated figures of both splits."""
    logits = {split: predict(student, rows[split]) for split in ("validation", "test")}
    temperature = find_temperature(logits["validation"], rows["validation"].gold)
    return temperature, {
        split: evaluate(probabilities(logits[split], temperature), rows[split].gold, labels)
        for split in logits
    }
