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
from transformers import AutoConfig, AutoModel, BertConfig, PreTrainedModel
from transformers import (
    PretrainedConfig as PreTrainedConfig,  # the name in the versions of both exporters
)
from transformers.utils import logging as transformers_logging

from sentimill.classifier import plan_batches
from sentimill.errors import UsageError
from sentimill.text.tokenizer import pad
from sentimill_train.data.tokenized import Rows, pad_rows
from sentimill_train.model.pretrained import Pretrained

Attention = Literal["sdpa", "eager"]
Preset = Literal["minilm-l6", "minilm-l3", "tiny"]

_HEAD_DROPOUT: Final = 0.1
_FEW_LAYERS: Final = 3  # of minilm-l3
_BATCH_TOKENS: Final = 8192
_POSITIONS_AFTER_PADDING: Final = ("roberta", "xlm-roberta", "camembert", "mpnet")
"""The families that number positions from their padding id + 1."""


class Student(PreTrainedModel):
    """Encoder, masked mean, dropout, linear.

    It has the config of the encoder, and names the encoder as its family does (`bert.`), so
    `AutoModel.from_pretrained` on a bundle returns only the encoder.
    """

    config_class = PreTrainedConfig
    _supports_sdpa = True

    def __init__(self, config: PreTrainedConfig, encoder: PreTrainedModel | None = None) -> None:
        super().__init__(config)
        encoder = encoder if encoder is not None else AutoModel.from_config(config)
        if getattr(encoder, "pooler", None) is not None:
            encoder.pooler = None  # the mean replaces this [CLS] head of pre-training
        self.encoder_name = encoder.base_model_prefix
        setattr(self, self.encoder_name, encoder)
        self.dropout = nn.Dropout(_HEAD_DROPOUT)
        self.head = nn.Linear(int(config.hidden_size), len(config.id2label or {}))
        self.post_init()  # type: ignore[no-untyped-call] # not annotated there

    @property
    def encoder(self) -> PreTrainedModel:
        """The encoder, under the name of any family."""
        found: PreTrainedModel = getattr(self, self.encoder_name)
        return found

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return logits (rows, labels) float32.

        input_ids, attention_mask: (rows, tokens) int64; a row has at least one token.
        """
        return self.read(input_ids, attention_mask)[0]

    def read(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits, and the output of the last layer (rows, tokens, hidden)."""
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        with torch.autocast(states.device.type, enabled=False):
            return self._classify(states.float(), attention_mask.float()), states

    def _classify(self, states: Tensor, mask: Tensor) -> Tensor:
        """Return logits (rows, labels) of *states* (rows, tokens, hidden) where *mask* is 1.

        Written so that ONNX Runtime and OpenVINO give a text the same bits alone, padded and in a
        batch. They add up the product of a matrix with one row in another order than with several
        rows, and their sum over the middle axis depends on the number of rows; both changed the
        last bit of logits (tests/train/export/test_onnx.py). So the mean is a product with two
        equal rows, both go through the head, and one is kept. (For a head written as an elementwise
        product, OpenVINO 2026.4 gives wrong results on several rows.)
        """
        weights = mask.unsqueeze(1).expand(-1, 2, -1)  # (rows, 2, tokens)
        pooled = (weights @ states) / mask.sum(1)[:, None, None]  # (rows, 2, hidden)
        return cast(Tensor, self.head(self.dropout(pooled))[:, 0])


def goes_on(pretrained: Pretrained, labels: Sequence[str]) -> bool:
    """Say whether *pretrained* is a student of ours, with its head and these labels."""
    config = _config_of(pretrained)
    return is_student(config) and config.id2label == dict(enumerate(labels))


def new_student(
    preset: Preset,
    pretrained: Pretrained,
    labels: Sequence[str],
    *,
    vocabulary: int,
    dropout: float | None = None,
) -> Student:
    """Return the student that training starts from: *pretrained* with a head, or `tiny`.

    `minilm-l3` keeps three evenly spaced layers, including the last: of six, counted from 0, these
    are 1, 3 and 5. The mean, and the head of a bundle, were trained with the output of the last
    layer. Before training, the means of 400 starter reviews have a cosine of 0.44 with those of all
    six layers, but of only 0.30 if layers 0, 2 and 4 are kept. (A linear probe on the means prefers
    0, 2 and 4: accuracy 0.60 against 0.55. The difference after training was not measured.)

    The head is new, unless *pretrained* is a bundle with these labels, which training continues.
    `tiny` takes random weights and only the tokenizer of *pretrained*. vocabulary: how many token
    ids that tokenizer has. dropout: of the encoder; None keeps that of its config. Seed torch
    first, because a new head is random.

    Raises:
        UsageError: this student does not support the family of the checkpoint.
    """
    config = _tiny_config(vocabulary) if preset == "tiny" else _config_of(pretrained)
    if dropout is not None:
        _set_dropout(config, dropout)
    config.id2label = dict(enumerate(labels))
    config.label2id = {name: i for i, name in enumerate(labels)}
    if preset == "tiny":
        return Student(config)
    if goes_on(pretrained, labels):
        student = _load(pretrained.folder, config)
    else:
        with _quiet():
            try:
                encoder = AutoModel.from_pretrained(
                    pretrained.folder, config=config, use_safetensors=True, dtype=torch.float32
                )
            except (OSError, ValueError) as error:
                raise _unsupported(pretrained, error) from error
        student = Student(config, encoder)
    if preset == "minilm-l3":
        _keep_few_layers(student, pretrained.name)
    return student


def to_device(model: PreTrainedModel) -> None:
    """Move *model* to the GPU where torch has one, else leave it on the CPU."""
    module: nn.Module = model
    module.to("cuda" if torch.cuda.is_available() else "cpu")


def freeze_embeddings(student: Student) -> None:
    """Exclude the word, position and type vectors of *student* from training."""
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
            folder,
            config=config,
            use_safetensors=True,
            dtype=torch.float32,  # even if a compact bundle stores them in fp16
            attn_implementation=attention,
        )
    return student


def save_student(student: Student, folder: Path) -> None:
    """Write config.json and model.safetensors into *folder*."""
    with _quiet():
        student.save_pretrained(folder)


def predict(student: Student, rows: Rows) -> NDArray[np.float32]:
    """Return the logits of every row (rows, labels), in order, without dropout."""
    logits = np.zeros((len(rows), student.head.out_features), dtype=np.float32)
    was_training = student.training
    student.train(False)
    with torch.inference_mode():
        for chosen in plan_batches(rows.lengths().tolist(), _BATCH_TOKENS):
            ids, mask = to_tensors(student, rows, chosen)
            logits[chosen] = student(ids, mask).cpu().numpy()
    student.train(was_training)
    return logits


def embed(student: Student, rows: Sequence[NDArray[np.int64]]) -> NDArray[np.float32]:
    """Return the mean token state of every row of token ids (rows, hidden), the input of the head.

    The student must not be in training mode, in which dropout would change the result.
    """
    found = np.zeros((len(rows), int(student.config.hidden_size)), dtype=np.float32)
    with torch.inference_mode():
        for chosen in plan_batches([len(row) for row in rows], _BATCH_TOKENS):
            ids, mask = (
                torch.from_numpy(each).to(student.device)
                for each in pad([rows[i] for i in chosen], pad_id_of(student.config))
            )
            states = student.encoder(input_ids=ids, attention_mask=mask).last_hidden_state.float()
            mean = (states * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)
            found[chosen] = mean.cpu().numpy()
    return found


def to_tensors(model: PreTrainedModel, rows: Rows, chosen: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return ids and mask of the *chosen* rows, both (rows, longest), on the device of *model*."""
    ids, mask = pad_rows(rows, chosen, pad_id_of(model.config))
    return torch.from_numpy(ids).to(model.device), torch.from_numpy(mask).to(model.device)


def pad_id_of(config: PreTrainedConfig) -> int:
    """Return the token id that fills a short row. It is masked, so its value has no effect."""
    return int(getattr(config, "pad_token_id", None) or 0)


def positions_of(config: PreTrainedConfig) -> int:
    """Return how many tokens the encoder has positions for."""
    offset = pad_id_of(config) + 1 if config.model_type in _POSITIONS_AFTER_PADDING else 0
    return int(config.max_position_embeddings) - offset


def _config_of(pretrained: Pretrained) -> PreTrainedConfig:
    try:
        return cast(PreTrainedConfig, AutoConfig.from_pretrained(pretrained.folder))
    except (OSError, ValueError) as error:
        raise _unsupported(pretrained, error) from error


def is_student(config: PreTrainedConfig) -> bool:
    """Say whether a checkpoint is a student of ours, with its head."""
    return Student.__name__ in (config.architectures or [])


def _keep_few_layers(student: Student, name: str) -> None:
    # BERT, MiniLM and RoBERTa call the stack `encoder`, DistilBERT `transformer`.
    encoder = student.encoder
    stack = getattr(encoder, "encoder", None) or getattr(encoder, "transformer", None)
    layers = getattr(stack, "layer", None)
    if stack is None or not isinstance(layers, nn.ModuleList) or len(layers) < _FEW_LAYERS:
        raise UsageError(
            f"preset minilm-l3 keeps {_FEW_LAYERS} layers, and {name} has fewer, or none that it"
            " can select: use another --base, or preset minilm-l6",
            reason="BASE_UNSUPPORTED",
        )
    kept = [len(layers) * (k + 1) // _FEW_LAYERS - 1 for k in range(_FEW_LAYERS)]
    stack.layer = nn.ModuleList([layers[i] for i in kept])
    for config in (student.config, encoder.config):
        config.num_hidden_layers = _FEW_LAYERS


def _set_dropout(config: PreTrainedConfig, dropout: float) -> None:
    """Set every dropout of an encoder, whose names depend on its family."""
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
    """Silence the progress bar of the loader, and its warning of weights left out on purpose."""
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
