"""MiniLM's shape in torch without padding: all reviews of a batch are in one row.

Nested (jagged) tensors keep attention within each review, and torch runs its variable-length
kernels for them on a GPU. The weights are random: this measures what the shape could do.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as fn

from benchmarks.proof.shapes import MINILM_L6

_HEADS = 12
_VOCABULARY = 30_522
_POSITIONS = 512


class _Layer(nn.Module):
    def __init__(self, hidden: int, inner: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(hidden, 3 * hidden)
        self.out = nn.Linear(hidden, hidden)
        self.up = nn.Linear(hidden, inner)
        self.down = nn.Linear(inner, hidden)
        self.norm1 = nn.LayerNorm(hidden)
        self.norm2 = nn.LayerNorm(hidden)

    def forward(self, x: Tensor, offsets: Tensor) -> Tensor:
        """Return states. x: (tokens, hidden). offsets: (reviews + 1,), where each review begins."""
        tokens, hidden = x.shape
        parts = self.qkv(x).view(tokens, 3, _HEADS, hidden // _HEADS).unbind(1)
        q, k, v = (torch.nested.nested_tensor_from_jagged(p.contiguous(), offsets) for p in parts)
        mixed = fn.scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        )
        x = self.norm1(x + self.out(mixed.transpose(1, 2).values().reshape(tokens, hidden)))
        found: Tensor = self.norm2(x + self.down(fn.gelu(self.up(x))))
        return found


class VarlenStudent:
    """A MiniLM-L6 with a mean-pooled head, from ids to logits (reviews, labels)."""

    def __init__(self, *, dtype: torch.dtype, device: str) -> None:
        torch.manual_seed(0)
        shape = MINILM_L6
        self._device = device
        self._words = nn.Embedding(_VOCABULARY, shape.hidden, device=device, dtype=dtype)
        self._places = nn.Embedding(_POSITIONS, shape.hidden, device=device, dtype=dtype)
        self._layers = [
            _Layer(shape.hidden, shape.inner).to(device=device, dtype=dtype)
            for _ in range(shape.layers)
        ]
        self._head = nn.Linear(shape.hidden, shape.labels, device=device, dtype=dtype)

    def forward(self, rows: Sequence[NDArray[np.int64]]) -> Tensor:
        """Return logits (reviews, labels)."""
        lengths = torch.tensor([len(row) for row in rows])
        flat = torch.from_numpy(np.concatenate(rows) % _VOCABULARY).to(self._device)
        places = torch.cat([torch.arange(len(row)) for row in rows]).to(self._device)
        offsets = fn.pad(lengths.cumsum(0), (1, 0)).to(self._device)
        owner = torch.repeat_interleave(torch.arange(len(rows)), lengths).to(self._device)
        with torch.inference_mode(), warnings.catch_warnings():
            # On a CPU torch has no kernel for this, and warns that its substitute is a prototype.
            warnings.filterwarnings("ignore", "The PyTorch API of nested tensors")
            x = self._words(flat) + self._places(places)
            for layer in self._layers:
                x = layer(x, offsets)
            sums = torch.zeros(len(rows), x.shape[1], device=self._device, dtype=x.dtype)
            sums.index_add_(0, owner, x)
            logits: Tensor = self._head(sums / lengths.to(self._device, x.dtype).unsqueeze(1))
        return logits

    def batches(self, rows: Sequence[NDArray[np.int64]], *, tokens: int) -> Callable[[], None]:
        """Return a run over *rows* in their order, with about *tokens* tokens a call."""
        planned = list(_cut(rows, tokens))

        def run() -> None:
            for some in planned:
                self.forward(some)

        return run


def _cut(rows: Sequence[NDArray[np.int64]], tokens: int) -> Iterator[Sequence[NDArray[np.int64]]]:
    some: list[NDArray[np.int64]] = []
    size = 0
    for row in rows:
        if some and size + len(row) > tokens:
            yield some
            some, size = [], 0
        some.append(row)
        size += len(row)
    if some:
        yield some
