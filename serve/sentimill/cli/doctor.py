"""What this machine can run: versions, providers, CPU flags that matter, GPU."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Final

from sentimill.engine.base import usable_providers
from sentimill.engine.hardware import cpu_flags, usable_cores
from sentimill.installed_packages import package_version

__all__ = ["CPU_FLAGS", "report"]

CPU_FLAGS: Final = {
    "avx2": "fp32 at full width",
    "avx512f": "fp32 at twice that width",
    "avx512_vnni": "fast int8",
    "avx_vnni": "fast int8",
    "avx512_bf16": "fast bf16",
    "amx_bf16": "very fast bf16",
    "amx_int8": "very fast int8",
}
"""What each flag buys, in the names of /proc/cpuinfo."""

_PACKAGES: Final = (
    "sentimill",
    "numpy",
    "openvino",
    "tokenizers",
    "tokie",
    "grpcio",
    "protobuf",
    "torch",
    "transformers",
)


def report() -> dict[str, str]:
    """Return name and finding pairs, in the order in which a person reads them."""
    found = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": f"{usable_cores()} usable",
    }
    flags = cpu_flags()
    known = [f"{name} ({use})" for name, use in CPU_FLAGS.items() if name in flags]
    found["cpu flags"] = ", ".join(known) or "none that matter, or not readable here"
    found["gpu"] = _gpu()
    for package in _PACKAGES:
        found[package] = package_version(package) or "not installed"
    providers = usable_providers()
    found["onnxruntime"] = providers.get("onnxruntime", "not installed")
    found["providers"] = providers.get("providers", "none: pip install 'sentimill[cpu]'")
    return found


def _gpu() -> str:
    driver = Path("/proc/driver/nvidia/version")
    if not driver.is_file():
        return "none found"
    return driver.read_text().splitlines()[0].partition(":")[2].strip()
