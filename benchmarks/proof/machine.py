"""What `record.surroundings` leaves out: the machine's matrix rate and its energy counter."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path
from typing import Final, cast

import torch

from benchmarks.proof.record import Around, Machine
from benchmarks.record import surroundings
from sentimill.installed_packages import package_version

_MORE: Final = ("torch", "transformers", "scikit-learn")
_RAPL: Final = Path("/sys/class/powercap")


def machine(*, size: int = 512) -> Machine:
    """Describe this machine. size: of the square matrices that are multiplied.

    They are small, because a processor without bf16 instructions takes minutes for large ones.
    """
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    device = "cuda" if gpu else "cpu"
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16}
    if gpu:
        dtypes["fp16"] = torch.float16
    return Machine(
        around={
            **cast("Around", surroundings()),
            "memory_gib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30,
            "system": platform.system(),
            **{name: package_version(name) for name in _MORE},
        },
        gpu=gpu,
        matmul_flops={
            name: matmul_flops(dtype, size=size, device=device) for name, dtype in dtypes.items()
        },
    )


def matmul_flops(dtype: torch.dtype, *, size: int, device: str, repeats: int = 5) -> float:
    """Return the best of *repeats* rates of a square product, in operations a second."""
    torch.manual_seed(0)
    a = torch.randn(size, size, device=device).to(dtype)
    b = torch.randn(size, size, device=device).to(dtype)
    best = 0.0
    for _ in range(repeats + 1):  # the first is the warm-up, and never the best
        began = time.perf_counter()
        torch.matmul(a, b)
        if device == "cuda":
            torch.cuda.synchronize()
        best = max(best, 2 * size**3 / (time.perf_counter() - began))
    return best


def fastest_dtype(here: Machine) -> str:
    """Return fp32 or bf16, whichever this machine multiplies faster. The large model runs in it."""
    return max(("fp32", "bf16"), key=here.matmul_flops.__getitem__)


def energy_joules() -> float | None:
    """Return the processor's energy counter, None where the machine does not show it."""
    try:
        packages = sorted(_RAPL.glob("intel-rapl:?/energy_uj"))
        return sum(int(path.read_text()) for path in packages) / 1e6 if packages else None
    except OSError:
        return None
