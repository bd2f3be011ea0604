"""The student: an encoder of the BERT family, the mean of its token states, and a linear head."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, BertConfig, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from sentimill.classifier import plan_batches
from sentimill.errors import UsageError
from sentimill.text import pad
from sentimill_train.pretrained import Pretrained
from sentimill_train.tokens import Rows, pad_rows

__all__ = [
    "PRESETS",
    "Preset",
    "Student",
    "embed",
    "freeze_embeddings",
    "load_student",
    "new_student",
    "pad_id_of",
    "predict",
    "to_device",
    "to_tensors",
]

Attention = Literal["sdpa", "eager"]
Preset = Literal["minilm-l6", "tiny"]
PRESETS: Final[tuple[Preset, ...]] = ("minilm-l6", "tiny")

_HEAD_DROPOUT: Final = 0.1


class Student(PreTrainedModel):
    """Encoder, masked mean, dropout, linear.

    Its config is the encoder's own, and the encoder sits under its family's usual name (`bert.`),
    so `AutoModel.from_pretrained` on a bundle gives the encoder alone.
    """

    config_class = PreTrainedConfig
    _supports_sdpa = True

    def __init__(self, config: PreTrainedConfig, encoder: PreTrainedModel | None = None) -> None:
        super().__init__(config)
        encoder = encoder if encoder is not None else AutoModel.from_config(config)
        self.encoder_name = encoder.base_model_prefix
        setattr(self, self.encoder_name, encoder)
        self.dropout = nn.Dropout(_HEAD_DROPOUT)
        self.head = nn.Linear(int(config.hidden_size), len(config.id2label or {}))
        self.post_init()  # type: ignore[no-untyped-call] # not annotated there

    @property
    def encoder(self) -> PreTrainedModel:
        """The encoder, whatever its family calls it."""
        found: PreTrainedModel = getattr(self, self.encoder_name)
        return found

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return logits (rows, labels) float32.

        input_ids, attention_mask: (rows, tokens) int64; a row has at least one token.
        """
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        with torch.autocast(states.device.type, enabled=False):
            return self._classify(states.float(), attention_mask.float())

    def _classify(self, states: Tensor, mask: Tensor) -> Tensor:
        """Return logits (rows, labels) of *states* (rows, tokens, hidden) where *mask* is 1.

        Spelt so that ONNX Runtime and OpenVINO give a text the same bits alone, padded and among
        others. Their product of one row with a matrix adds in another order than that of several,
        and their sum over the middle axis depends on the number of rows; both showed in the last
        bit of logits (tests/test_export.py). So the mean is a product with two equal rows, both go
        through the head, and one is kept. (OpenVINO 2026.4 computes a head that is spelt as a
        product element by element wrongly for several rows.)
        """
        weights = mask.unsqueeze(1).expand(-1, 2, -1)  # (rows, 2, tokens)
        pooled = (weights @ states) / mask.sum(1)[:, None, None]  # (rows, 2, hidden)
        return cast(Tensor, self.head(self.dropout(pooled))[:, 0])


def new_student(
    preset: Preset,
    pretrained: Pretrained,
    labels: Sequence[str],
    *,
    vocabulary: int,
    dropout: float | None = None,
) -> Student:
    """Return the student that training starts from: *pretrained* with a head, or `tiny`.

    The head is new, unless *pretrained* is a bundle with these labels: then training goes on from
    it. `tiny` takes random weights and only the tokenizer of *pretrained*. vocabulary: how many
    token ids that tokenizer has. dropout: of the encoder; None keeps what its config says. Seed
    torch first: a new head is random.

    Raises:
        UsageError: the checkpoint is of no family that this student can be.
    """
    names = dict(enumerate(labels))
    config = _tiny_config(vocabulary) if preset == "tiny" else _config_of(pretrained)
    goes_on = preset != "tiny" and _is_student(config, names)
    if dropout is not None:
        _set_dropout(config, dropout)
    config.num_labels = len(labels)
    config.id2label = names
    config.label2id = {name: i for i, name in names.items()}
    if preset == "tiny":
        return Student(config)
    if goes_on:
        return _load(pretrained.folder, config)
    with _quiet():
        try:
            encoder = AutoModel.from_pretrained(
                pretrained.folder, config=config, use_safetensors=True, dtype=torch.float32
            )
        except (OSError, ValueError) as error:
            raise _unsupported(pretrained, error) from error
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler = None  # the [CLS] head of pre-training, which the mean replaces
    return Student(config, encoder)


def to_device(student: Student) -> None:
    """Move *student* to the GPU where torch has one, else leave it on the CPU."""
    module: nn.Module = student
    module.to("cuda" if torch.cuda.is_available() else "cpu")


def freeze_embeddings(student: Student) -> None:
    """Keep the word, position and type vectors of *student* as they are."""
    for name, parameter in student.named_parameters():
        if ".embeddings." in name:
            parameter.requires_grad_(False)


def load_student(folder: Path, *, attention: Attention = "sdpa") -> Student:
    """Return the student that `save_pretrained` wrote to *folder*, ready to predict."""
    with _quiet():
        config = AutoConfig.from_pretrained(folder, attn_implementation=attention)
    student = _load(folder, config, attention)
    student.train(False)
    return student


def _load(folder: Path, config: PreTrainedConfig, attention: Attention = "sdpa") -> Student:
    with _quiet():
        student: Student = Student.from_pretrained(
            folder, config=config, use_safetensors=True, attn_implementation=attention
        )
    return student


def save_student(student: Student, folder: Path) -> None:
    """Write config.json and model.safetensors into *folder*."""
    with _quiet():
        student.save_pretrained(folder)


def predict(student: Student, rows: Rows, *, batch_tokens: int = 8192) -> NDArray[np.float32]:
    """Return the logits of every row (rows, labels), in order, without dropout."""
    logits = np.zeros((len(rows), student.head.out_features), dtype=np.float32)
    was_training = student.training
    student.train(False)
    with torch.inference_mode():
        for chosen in plan_batches(rows.lengths().tolist(), batch_tokens):
            ids, mask = to_tensors(student, rows, chosen)
            logits[chosen] = student(ids, mask).cpu().numpy()
    student.train(was_training)
    return logits


def embed(
    student: Student, rows: Sequence[NDArray[np.int64]], *, batch_tokens: int = 8192
) -> NDArray[np.float32]:
    """Return what the head reads of every row of token ids (rows, hidden): the mean of its states.

    The student must not be training: dropout would change it.
    """
    found = np.zeros((len(rows), int(student.config.hidden_size)), dtype=np.float32)
    with torch.inference_mode():
        for chosen in plan_batches([len(row) for row in rows], batch_tokens):
            ids, mask = (
                torch.from_numpy(each).to(student.device)
                for each in pad([rows[i] for i in chosen], pad_id_of(student.config))
            )
            states = student.encoder(input_ids=ids, attention_mask=mask).last_hidden_state.float()
            mean = (states * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)
            found[chosen] = mean.cpu().numpy()
    return found


def to_tensors(student: Student, rows: Rows, chosen: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return ids and mask of the *chosen* rows, both (rows, longest), where the student is."""
    ids, mask = pad_rows(rows, chosen, pad_id_of(student.config))
    return torch.from_numpy(ids).to(student.device), torch.from_numpy(mask).to(student.device)


def pad_id_of(config: PreTrainedConfig) -> int:
    """Return the token id that fills a short row; what it is never shows, for it is masked."""
    return int(getattr(config, "pad_token_id", None) or 0)


def _config_of(pretrained: Pretrained) -> PreTrainedConfig:
    try:
        return cast(PreTrainedConfig, AutoConfig.from_pretrained(pretrained.folder))
    except (OSError, ValueError) as error:
        raise _unsupported(pretrained, error) from error


def _is_student(config: PreTrainedConfig, names: dict[int, str]) -> bool:
    """Say whether a checkpoint is a student of ours with the labels *names*, head and all."""
    return Student.__name__ in (config.architectures or []) and config.id2label == names


def _set_dropout(config: PreTrainedConfig, dropout: float) -> None:
    """Set every dropout of an encoder, whatever its family calls them."""
    for name, value in config.to_dict().items():
        if "dropout" in name and isinstance(value, int | float):
            setattr(config, name, dropout)


def _tiny_config(vocabulary: int) -> PreTrainedConfig:
    return BertConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=512,
    )


def _unsupported(pretrained: Pretrained, error: Exception) -> UsageError:
    return UsageError(
        f"{pretrained.name} cannot be loaded ({error}): use a checkpoint of the BERT family",
        reason="BASE_UNSUPPORTED",
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the loader's progress bar and its report of the weights left out on purpose."""
    verbosity = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
