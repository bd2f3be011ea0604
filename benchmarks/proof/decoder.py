"""A large generic decoder, used in the fastest fair way: one forward pass and one token a review.

The keys and values of the instruction are computed once and shared by all rows. Reviews of similar
length share a batch. The output matrix is applied at the last token alone. Nothing is generated.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    PreTrainedConfig,
    Qwen2Config,
)

from benchmarks.proof.prompts import LABELS, Prompt
from benchmarks.proof.shapes import DecoderShape
from sentimill.classifier import plan_batches

Encode = Callable[[str], list[int]]
"""Text to token ids, without special tokens."""

_REVIEW_TOKENS: Final = 512
"""A longer review loses its middle, as the student's does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A model with its tokenizer. random: its weights are random, so its answers mean nothing."""

    # A causal language model of transformers, whose own types do not cover what is called here.
    model: Any
    encode: Encode
    random: bool


def make_random(shape: DecoderShape, encode: Encode, *, dtype: torch.dtype, device: str) -> Loaded:
    """Build the real architecture with random weights: its speed is real, its answers are not."""
    torch.manual_seed(0)
    with torch.device(device):
        model: Any = AutoModelForCausalLM.from_config(_config(shape), dtype=dtype)
    return Loaded(model=model.eval(), encode=_folded(encode, shape.vocabulary), random=True)


def load_checkpoint(path: Path, *, dtype: torch.dtype, device: str) -> Loaded:
    """Load a checkpoint from a folder; its answers count."""
    tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    model: Any = AutoModelForCausalLM.from_pretrained(
        path, dtype=dtype, local_files_only=True, use_safetensors=True
    )

    def encode(text: str) -> list[int]:
        ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    return Loaded(model=model.to(device).eval(), encode=encode, random=False)


class Decoder:
    """A decoder bound to a prompt. One thread uses it."""

    def __init__(self, loaded: Loaded, prompt: Prompt, *, batch_tokens: int = 4096) -> None:
        self.random = loaded.random
        self._model = loaded.model
        self._encode = loaded.encode
        self._batch_tokens = batch_tokens
        some = next(loaded.model.parameters())
        self._device = some.device
        self.precision = {torch.float32: "fp32", torch.bfloat16: "bf16"}[some.dtype]
        self._before = loaded.encode(prompt.before)
        self._after = loaded.encode(prompt.after)
        self._label_ids = [0, 1, 2] if loaded.random else _first_tokens(loaded.encode)
        self._prefix = self._prefill()

    @property
    def prompt_tokens(self) -> int:
        """The tokens of the instruction: `before` is computed once, `after` for every review."""
        return len(self._before) + len(self._after)

    @property
    def cached_tokens(self) -> int:
        """The number of tokens whose keys and values all rows share."""
        return len(self._before)

    def weights_mib(self) -> float:
        """The memory that the parameters take."""
        size: int = sum(p.numel() * p.element_size() for p in self._model.parameters())
        return size / 2**20

    def rows(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids that are computed for each review: its own, and the cue for the answer."""
        found: list[list[int]] = []
        for text in texts:
            ids = self._encode(text)
            if len(ids) > _REVIEW_TOKENS:
                head = _REVIEW_TOKENS // 4
                ids = ids[:head] + ids[head - _REVIEW_TOKENS :]
            found.append(ids + self._after)
        return found

    def classify(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Return probs (reviews, labels): the label tokens' log-probabilities, renormalised."""
        rows = self.rows(texts)
        probs = np.zeros((len(rows), len(LABELS)))
        for chosen in plan_batches([len(row) for row in rows], self._batch_tokens):
            probs[chosen] = self.forward([rows[i] for i in chosen])
        return probs

    def forward(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float64]:
        """Compute one batch. Rows are padded on the right, where causal attention never looks."""
        longest = max(map(len, rows))
        ids = torch.zeros((len(rows), longest), dtype=torch.long)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
        last = torch.tensor([len(row) - 1 for row in rows], device=self._device)
        with torch.inference_mode():
            cache = copy.deepcopy(self._prefix)
            cache.batch_repeat_interleave(len(rows))
            hidden = self._model.model(
                input_ids=ids.to(self._device), past_key_values=cache, use_cache=True
            ).last_hidden_state
            at_last = hidden[torch.arange(len(rows), device=self._device), last]
            logits = self._model.lm_head(at_last)[:, self._label_ids].float()
            probs: NDArray[np.float64] = logits.softmax(-1).cpu().double().numpy()
        return probs

    def _prefill(self) -> Any:
        ids = torch.tensor([self._before], device=self._device)
        with torch.inference_mode():
            return self._model.model(input_ids=ids, use_cache=True).past_key_values


def _config(shape: DecoderShape) -> PreTrainedConfig:
    kind: Callable[..., PreTrainedConfig]
    kind = Qwen2Config if shape.family == "qwen2" else LlamaConfig
    return kind(
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        intermediate_size=shape.inner,
        vocab_size=shape.vocabulary,
        tie_word_embeddings=shape.tied,
        max_position_embeddings=4096,
    )


def _folded(encode: Encode, vocabulary: int) -> Encode:
    """Map the ids of a stand-in tokenizer into the vocabulary of the random model."""

    def folded(text: str) -> list[int]:
        return [i % vocabulary for i in encode(text)]

    return folded


def _first_tokens(encode: Encode) -> list[int]:
    """Return each label's first token, as it follows the cue."""
    firsts = [encode(f" {label}")[0] for label in LABELS]
    if len(set(firsts)) != len(firsts):
        raise SystemExit(f"the labels begin with the same token {firsts}: choose other words")
    return firsts
