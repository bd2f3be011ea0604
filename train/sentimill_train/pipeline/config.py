"""The settings of one training: what is read, how it is learnt, and what is written."""

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
    class_weights: see `read_class_weights`. base: as for `find_pretrained`; None continues the
    reference student, where there is one and the preset does not ask for random weights.
    train_embeddings: also train the word vectors; a few thousand reviews show most words too seldom
    to learn from. train_tokens: cuts the reviews of train shorter than max_tokens, by the same
    rule, which trains faster. dropout: of the encoder; None keeps that of *base*. target_error:
    chooses the threshold below which the bundle abstains. notes: Markdown that goes into the model
    card. teacher_bundle: a fine-tuned classifier whose answers are learnt, also for rows without a
    label; see `load_teacher`. teacher_logits: a file of such answers, see `learn_from_teacher`.
    teacher_share: how much they count against shares that a row has already. checkpoint: the folder
    in which a killed run leaves what the same command continues from; written every
    checkpoint_minutes, after each epoch, and on SIGINT and SIGTERM. lora: learns adapters of the
    encoder in place of its weights, and merges them. replay, anchors, interpolate: how a student
    that continues one with these labels forgets less: it also learns reviews that come with the
    package, keeps the answers of its base on the texts of *anchors*, and blends the new weights
    with the old ones; see `read_replay` and `interpolate`.
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
        """How many tokens of a review of train are read."""
        return min(self.max_tokens, self.train_tokens or self.max_tokens)
