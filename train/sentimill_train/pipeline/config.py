"""The settings of one training: what it reads, how it learns, and what it writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sentimill.text.tokenizer import Truncation
from sentimill_train.data.schema import SENTIMENTS, Columns
from sentimill_train.evaluation.training_evaluation import EvaluationConfig
from sentimill_train.model.lora import Lora
from sentimill_train.model.student import Preset
from sentimill_train.training.loop import FitConfig


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Train a student on *reviews* and write it as a bundle to *out*.

    reviews: files, `starter`, `hard-kinds`, or `hub:owner/name[@revision]`. weight_of, labels_of:
    by source, see `read_reviews`. labels: the closed set in order; None takes those that occur.
    class_weights: see `weigh_classes`. base: as for `find_pretrained`; None continues the
    reference student, where there is one and the preset does not ask for random weights.
    train_embeddings: also train the word vectors; in a few thousand reviews, most words are too
    rare to learn from. train_tokens: truncates the training reviews to fewer than max_tokens, by
    the same rule, to train faster. dropout: of the encoder; None keeps that of *base*.
    target_error: chooses the threshold below which the bundle abstains. notes: Markdown for the
    model card. teacher_bundle: a fine-tuned classifier whose answers are learnt, also for rows
    without a label; see `load_teacher`. teacher_logits: a file of such answers, see
    `learn_from_teacher`. teacher_share: the weight of these answers in a row that has soft labels
    already. checkpoint: the folder for the checkpoint, from which the same command continues a
    killed run; written every checkpoint_minutes, after each epoch, and on SIGINT and SIGTERM. lora:
    trains adapters instead of the weights of the encoder, and merges them. replay, anchors,
    interpolate: three ways to forget less when a student with these labels is continued. It also
    learns reviews of the package, keeps the answers of its base on the texts of *anchors*, and
    blends the new weights with the old ones; see `read_replay` and `interpolate`.
    """

    reviews: tuple[str, ...]
    out: Path
    name: str | None = None
    columns: Columns = field(default_factory=Columns)
    weight_of: Mapping[str, float] = field(default_factory=dict)
    labels_of: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    labels: tuple[str, ...] | None = SENTIMENTS
    class_weights: str | None = None
    base: str | None = None
    preset: Preset = "minilm-l6"
    train_embeddings: bool = False
    max_tokens: int = 256
    train_tokens: int | None = None
    dropout: float | None = None
    truncation: Truncation = "head-tail"
    fit: FitConfig = field(default_factory=FitConfig)
    target_error: float | None = None
    notes: str = ""
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    overwrite: bool = False
    teacher_bundle: Path | None = None
    teacher_logits: Path | None = None
    teacher_share: float = 0.5
    checkpoint: Path | None = None
    checkpoint_minutes: float = 10
    lora: Lora | None = None
    interpolate: bool = True
    replay: bool = True
    anchors: tuple[str, ...] = ()

    @property
    def learnt_tokens(self) -> int:
        """How many tokens of a training review are read at most."""
        return min(self.max_tokens, self.train_tokens or self.max_tokens)
