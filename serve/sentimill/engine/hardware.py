"""What this machine offers an engine: cores, CPU flags, and the runtimes that are installed."""

from __future__ import annotations

import ctypes
import gc
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sentimill.installed_packages import package_version

__all__ = [
    "Machine",
    "cpu_flags",
    "give_memory_back",
    "gpus",
    "keep_few_heaps",
    "usable_cores",
    "usable_providers",
]

_M_ARENA_MAX: Final = -8
"""Of malloc.h: the name of what `mallopt` is to set."""

_QUOTA: Final = Path("/sys/fs/cgroup/cpu.max")


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The facts that the choice of an engine rests on.

    cpu_flags: in the names of /proc/cpuinfo. onnx_providers: what the installed ONNX Runtime was
    built with, empty where it is missing; a driver may still be absent. openvino: its version, None
    where it is missing.
    """

    cpu_flags: frozenset[str]
    onnx_providers: tuple[str, ...]
    openvino: str | None

    @classmethod
    def here(cls) -> Machine:
        """Look at the machine that this runs on."""
        try:
            import onnxruntime
        except ImportError:
            providers: tuple[str, ...] = ()
        else:
            providers = tuple(onnxruntime.get_available_providers())
        return cls(
            cpu_flags=cpu_flags(), onnx_providers=providers, openvino=package_version("openvino")
        )


def cpu_flags() -> frozenset[str]:
    """Return the processor's flags; empty where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    flags = next((line for line in lines if line.startswith("flags")), "")
    return frozenset(flags.partition(":")[2].split())


def usable_cores(quota: Path = _QUOTA) -> int:
    """Return how many cores this process may use: those it may run on, and no more than its quota.

    quota: the file that tells it, of control groups 2, as `docker run --cpus` and the CPU limits of
    Kubernetes set it. With more threads than it allows all of them stand still for a part of each
    period. A CPU *request* of Kubernetes shows nowhere: say --threads there.
    """
    may = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        allowed, period = quota.read_text().split()
        return min(may, max(1, int(allowed) // int(period)))
    except (OSError, ValueError):  # there is none: the file is missing, or says `max`
        return may


def usable_providers() -> dict[str, str]:
    """Return the version of ONNX Runtime and the providers it was built with, by name."""
    try:
        import onnxruntime
    except ImportError:
        return {}
    return {
        "onnxruntime": onnxruntime.__version__,
        "providers": ", ".join(onnxruntime.get_available_providers()),
    }


def keep_few_heaps() -> None:
    """Let the C library (glibc) keep two heaps, as many as threads of the engine often are.

    By default each new thread may get a heap of its own, and a model that one of them loaded leaves
    its pieces there: some MiB a reload, for ever. MALLOC_ARENA_MAX, where it is set, is obeyed.
    """
    if "MALLOC_ARENA_MAX" not in os.environ:
        _tell_allocator("mallopt", _M_ARENA_MAX, 2)


def give_memory_back() -> None:
    """Return to the system what was freed, where the C library can be told to (glibc).

    It keeps the pieces of a closed model for later else, hundreds of MiB after some reloads.
    """
    gc.collect()
    _tell_allocator("malloc_trim", 0)


def _tell_allocator(function: str, *numbers: int) -> None:
    """Call *function* of the C library, where it has one of that name."""
    call = getattr(ctypes.CDLL(None), function, None)
    if call is not None:
        call(*numbers)


def gpus() -> list[str]:
    """Return the GPUs that CUDA would show, each as CUDA_VISIBLE_DEVICES names it."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [one.strip() for one in named.split(",") if one.strip()]
    return [str(i) for i in range(len(list(Path("/dev").glob("nvidia[0-9]*"))))]
