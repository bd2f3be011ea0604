"""Chooses how training computes matrix products: in bfloat16 or not, with which attention."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Final

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

_SHORT_ROW_TOKENS: Final = 128

_LEAST_SPEEDUP: Final = 1.1
"""bfloat16 is less exact, so it must be clearly faster. No CPU tried is near this limit."""


def fast_dtype(device: torch.device) -> torch.dtype | None:
    """Return bfloat16 where the hardware multiplies it faster than float32, else None.

    A CPU needs AVX512-BF16 or AMX for it; without them bfloat16 is emulated. Even with them it may
    be slower, so both types are timed once in each process, which takes a tenth of a second. At
    (1024, 384) x (384, 1536), an EPYC with AVX512-BF16 does 383 GFLOP/s in bfloat16 and 122 in
    float32. A Xeon (Emerald Rapids) whose AMX is hidden by the virtual machine does 74 and 226.
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else None
    if device.type != "cpu":
        return None
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    has_bf16 = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    return torch.bfloat16 if has_bf16 and bfloat16_speedup() > _LEAST_SPEEDUP else None


@cache
def bfloat16_speedup() -> float:
    """Measure how many times faster this CPU multiplies bfloat16 than float32."""
    kinds = (torch.float32, torch.bfloat16)
    pairs = [
        (torch.ones(1024, 384, dtype=kind), torch.ones(384, 1536, dtype=kind)) for kind in kinds
    ]
    seconds: list[list[float]] = [[], []]
    for _ in range(6):  # alternating, so that a busy moment slows both; the first round warms up
        for (left, right), found in zip(pairs, seconds, strict=True):
            began = time.perf_counter()
            torch.mm(left, right)
            found.append(time.perf_counter() - began)
    single, half = (min(found[1:]) for found in seconds)
    return single / half


def autocast(device: torch.device, dtype: torch.dtype | None) -> torch.autocast:
    """Return the context in which matrix products run in *dtype*; None leaves float32."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)


def training_attention(
    device: torch.device, dtype: torch.dtype | None, tokens: int
) -> AbstractContextManager[None]:
    """Return the context for a forward pass with the fastest attention for rows of *tokens*.

    In bfloat16 on a CPU, the backward pass of PyTorch's fused attention is slow, so plain matrix
    products are used up to 128 tokens. With them, forward and backward of MiniLM are 1.24 times as
    fast at 25 tokens a row, 1.15 times at 71 (`benchmarks/results/token_rate.json`), 1.14 times at
    128, and 0.85 times at 256. In float32 they are slower at every length (0.99 times at 25 tokens,
    0.91 at 128).
    """
    if device.type == "cpu" and dtype is torch.bfloat16 and tokens <= _SHORT_ROW_TOKENS:
        return sdpa_kernel(SDPBackend.MATH)
    return nullcontext()
