"""How matrix products are computed in training: in bfloat16, without a fused kernel."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Final

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

_SHORT_ROW_TOKENS: Final = 128


def fast_dtype(device: torch.device) -> torch.dtype | None:
    """Return bfloat16 where the hardware multiplies it faster than float32, else None.

    On a CPU that means AVX512-BF16 or AMX; without them it is emulated, and slower. Measured on an
    EPYC with AVX512-BF16: 383 against 122 GFLOP/s at (1024, 384) x (384, 1536).
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else None
    if device.type != "cpu":
        return None
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    fast = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    return torch.bfloat16 if fast else None


def autocast(device: torch.device, dtype: torch.dtype | None) -> torch.autocast:
    """Return the context in which matrix products run in *dtype*; None leaves float32."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)


def training_attention(
    device: torch.device, dtype: torch.dtype | None, tokens: int
) -> AbstractContextManager[None]:
    """Return the context of a forward pass whose rows have *tokens*, so that training is fastest.

    In bfloat16 on a CPU, PyTorch's fused attention is slow backward. Plain products take up to 128
    tokens there: forward and backward of MiniLM are 1.24 times as fast at 25 tokens a row, 1.15
    times at 71 (`benchmarks/results/token_rate.json`) and 1.14 times at 128; at 256 they lose
    (0.85). In float32 they lose at every length (0.99 at 25 tokens, 0.91 at 128).
    """
    if device.type == "cpu" and dtype is torch.bfloat16 and tokens <= _SHORT_ROW_TOKENS:
        return sdpa_kernel(SDPBackend.MATH)
    return nullcontext()
