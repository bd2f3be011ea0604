"""Model shapes by name, and the floating-point operations that one review costs in each.

A multiply-add is two operations. Through the matrices a token costs two a weight (Kaplan et al.,
"Scaling Laws for Neural Language Models", 2020, section 2.1). In attention a token at position p
compares itself with p + 1 keys and sums as many values, each 2d operations a layer: 4d(p + 1).
tests/benchmarks/test_model_shapes.py compares both with torch's own counter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderShape:
    """A decoder of the Llama family. family: the architecture's name in transformers."""

    name: str
    family: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    inner: int
    vocabulary: int
    tied: bool
    source: str

    @property
    def layer_weights(self) -> int:
        """The weights of all layers that a token is multiplied with, without norms and biases."""
        kv = self.hidden // self.heads * self.kv_heads
        attention = 2 * self.hidden * self.hidden + 2 * self.hidden * kv
        return self.layers * (attention + 3 * self.hidden * self.inner)

    @property
    def weights(self) -> int:
        """The weights of all matrices, embeddings included."""
        embeddings = self.hidden * self.vocabulary * (1 if self.tied else 2)
        return self.layer_weights + embeddings

    def flops(self, *, cached: int, tokens: int, answers: int = 1) -> float:
        """Return the operations of *tokens* after *cached* ones, with *answers* output tokens."""
        positions = tokens * cached + tokens * (tokens + 1) / 2
        attention = 4.0 * self.layers * self.hidden * positions
        head = 2.0 * self.hidden * self.vocabulary * answers
        return 2.0 * self.layer_weights * tokens + attention + head


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderShape:
    """A BERT-like encoder with a small head."""

    name: str
    hidden: int
    layers: int
    inner: int
    labels: int = 3

    def flops(self, tokens: float) -> float:
        """Return the operations for one review of *tokens*, without padding."""
        weights = self.layers * (4 * self.hidden * self.hidden + 2 * self.hidden * self.inner)
        attention = 4.0 * self.layers * self.hidden * tokens * tokens
        return 2.0 * weights * tokens + attention + 2.0 * self.hidden * self.labels


MINILM_L6: Final = EncoderShape(name="MiniLM-L6", hidden=384, layers=6, inner=1536)

DECODERS: Final = {
    shape.name: shape
    for shape in (
        DecoderShape(
            name="tiny",
            family="qwen2",
            hidden=64,
            layers=2,
            heads=4,
            kv_heads=2,
            inner=128,
            vocabulary=512,
            tied=True,
            source="ours, for tests",
        ),
        DecoderShape(
            name="0.5B",
            family="qwen2",
            hidden=896,
            layers=24,
            heads=14,
            kv_heads=2,
            inner=4864,
            vocabulary=151_936,
            tied=True,
            source="config.json of Qwen/Qwen2.5-0.5B",
        ),
        DecoderShape(
            name="1.5B",
            family="qwen2",
            hidden=1536,
            layers=28,
            heads=12,
            kv_heads=2,
            inner=8960,
            vocabulary=151_936,
            tied=True,
            source="config.json of Qwen/Qwen2.5-1.5B",
        ),
        DecoderShape(
            name="8B",
            family="llama",
            hidden=4096,
            layers=32,
            heads=32,
            kv_heads=8,
            inner=14_336,
            vocabulary=128_256,
            tied=False,
            source="config.json of meta-llama/Llama-3.1-8B",
        ),
    )
}
