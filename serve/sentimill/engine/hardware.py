"""Finds what this machine offers an engine: cores, CPU flags, and installed runtimes."""

from __future__ import annotations

import ctypes
import gc
import os
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sentimill.installed_packages import package_version

_M_ARENA_MAX: Final = -8
"""The parameter of `mallopt` that limits the number of heaps, from malloc.h."""

_QUOTA: Final = Path("/sys/fs/cgroup/cpu.max")


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The facts that decide which engine is chosen.

    cpu_flags: as /proc/cpuinfo names them; empty if the system does not show them.
    cpu_vendor: as /proc/cpuinfo names it, such as AuthenticAMD; empty likewise.
    onnxruntime: its version, None where it is not installed. onnx_providers: those that it was
    built with; their driver may still be missing. openvino: its version, or None.
    """

    cpu_flags: frozenset[str]
    onnx_providers: tuple[str, ...]
    openvino: str | None
    onnxruntime: str | None = None
    cpu_vendor: str = ""

    @property
    def is_fast_at_bf16(self) -> bool:
        """Tell whether bf16 beats fp32 and int8 on this CPU, as far as CPUs were measured.

        With AMX it does, and with AVX512-BF16 on an EPYC. A Xeon (Emerald Rapids) with AVX512-BF16,
        whose AMX the virtual machine hides, classified reviews at 0.34 times the rate of int8 and
        0.56 times that of fp32.
        """
        return "amx_bf16" in self.cpu_flags or self.cpu_vendor == "AuthenticAMD"

    @classmethod
    def here(cls) -> Machine:
        """Look at the machine that this runs on."""
        providers: tuple[str, ...] = ()
        version = None
        with suppress(ImportError):
            import onnxruntime

            providers = tuple(onnxruntime.get_available_providers())
            version = onnxruntime.__version__
        return cls(
            cpu_flags=frozenset(_cpu_fact("flags").split()),
            cpu_vendor=_cpu_fact("vendor_id").strip(),
            onnx_providers=providers,
            openvino=package_version("openvino"),
            onnxruntime=version,
        )


def _cpu_fact(name: str) -> str:
    """Return a line of the first core in /proc/cpuinfo, empty where the system has none."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.startswith(name)), "").partition(":")[2]


def usable_cores(quota: Path = _QUOTA) -> int:
    """Return how many cores this process may use: those it may run on, within its CPU quota.

    quota: the file with the quota of control groups 2, which `docker run --cpus` and the CPU limits
    of Kubernetes set. With more threads than the quota allows, all of them pause for a part of each
    period. A CPU *request* of Kubernetes is not visible here: use --threads.
    """
    may = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        allowed, period = quota.read_text().split()
        return min(may, max(1, int(allowed) // int(period)))
    except (OSError, ValueError):  # no quota: the file is missing, or says `max`
        return may


def keep_few_heaps() -> None:
    """Limit the C library (glibc) to two heaps, about as many as the engine has threads.

    By default each new thread may get a heap of its own, and a closed model leaves fragments in the
    heap of the thread that loaded it: some MiB for each reload. MALLOC_ARENA_MAX takes precedence.
    """
    if "MALLOC_ARENA_MAX" not in os.environ:
        _tell_allocator("mallopt", _M_ARENA_MAX, 2)


def give_memory_back() -> None:
    """Return freed memory to the system, where the C library supports it (glibc).

    Otherwise glibc keeps the freed memory of a closed model for reuse: hundreds of MiB after some
    reloads.
    """
    gc.collect()
    _tell_allocator("malloc_trim", 0)


def _tell_allocator(function: str, *numbers: int) -> None:
    """Call *function* of the C library, if it has one of that name."""
    call = getattr(ctypes.CDLL(None), function, None)
    if call is not None:
        call(*numbers)


def gpus() -> list[str]:
    """Return the GPUs that CUDA can use, each by its name in CUDA_VISIBLE_DEVICES."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [one.strip() for one in named.split(",") if one.strip()]
    return [str(i) for i in range(len(list(Path("/dev").glob("nvidia[0-9]*"))))]


def free_gpu_mib() -> int:
    """Return the free memory of the first GPU that CUDA can use, in MiB; 0 if it is unknown."""
    asked = ["nvidia-smi", "--query-gpu=memory.free", "--format=csv,noheader,nounits"]
    try:
        return int(subprocess.check_output([*asked, "-i", gpus()[0]], timeout=30))
    except (IndexError, OSError, ValueError, subprocess.SubprocessError):
        return 0
