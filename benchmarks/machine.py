"""The machine as it is: processor, versions, commit, and how fast it multiplies matrices."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

import torch
from record import Machine

__all__ = ["commit", "energy_joules", "machine", "matmul_flops", "peak_mib"]

_LIBRARIES: Final = (
    "numpy",
    "onnxruntime",
    "onnxruntime-gpu",
    "scikit-learn",
    "sentimill",
    "tokenizers",
    "torch",
    "transformers",
)
_RAPL: Final = Path("/sys/class/powercap")


def machine(*, size: int = 2048) -> Machine:
    """Describe this machine; the matrix rate takes a few seconds. size: of the square product."""
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    device = "cuda" if gpu else "cpu"
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16}
    if gpu:
        dtypes["fp16"] = torch.float16
    return Machine(
        processor=_processor(),
        cores=len(os.sched_getaffinity(0)),
        memory_gib=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30,
        system=platform.platform(),
        gpu=gpu,
        matmul_flops={
            name: matmul_flops(dtype, size=size, device=device) for name, dtype in dtypes.items()
        },
        versions={"python": platform.python_version(), **_versions()},
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


def commit() -> str:
    """Return the commit, with `+` where the tree differs from it; `unknown` outside git."""
    try:
        head = subprocess.check_output(["git", "rev-parse", "HEAD"], text=True).strip()
        dirty = subprocess.check_output(["git", "status", "--porcelain", "-uno"], text=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + ("+" if dirty.strip() else "")


def peak_mib() -> float:
    """Return the largest resident set of this process so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def energy_joules() -> float | None:
    """Return the processor's energy counter, None where the machine does not show it."""
    try:
        packages = sorted(_RAPL.glob("intel-rapl:?/energy_uj"))
        return sum(int(path.read_text()) for path in packages) / 1e6 if packages else None
    except OSError:
        return None


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _versions() -> dict[str, str]:
    found: dict[str, str] = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
