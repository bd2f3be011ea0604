"""`sentimill doctor`: what this machine can run."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Annotated, Final

import typer

from sentimill.bundle.reader import open_bundle
from sentimill.bundle.reference import find_bundle
from sentimill.engine.hardware import Machine, usable_cores
from sentimill.installed_packages import package_version

CPU_FLAGS: Final = {
    "avx2": "fp32 at full width",
    "avx512f": "fp32 at twice that width",
    "avx512_vnni": "fast int8",
    "avx_vnni": "fast int8",
    "avx512_bf16": "bf16, fast on some CPUs",
    "amx_bf16": "very fast bf16",
    "amx_int8": "very fast int8",
}
"""What each flag of /proc/cpuinfo speeds up."""

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


def doctor(
    bundle: Annotated[
        Path | None,
        typer.Option(envvar="SENTIMILL_BUNDLE", help="Also print the digest of this bundle."),
    ] = None,
) -> None:
    """Print what this machine can run: versions, providers, CPU flags that matter, GPU."""
    found = report()
    if bundle is not None:
        found["bundle"] = open_bundle(find_bundle(bundle)).digest
    for name, value in found.items():
        typer.echo(f"{name:<14} {value}")


def report() -> dict[str, str]:
    """Return the name and the value of each finding, in the order in which they are printed."""
    found = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": f"{usable_cores()} usable",
    }
    machine = Machine.here()
    known = [f"{name} ({use})" for name, use in CPU_FLAGS.items() if name in machine.cpu_flags]
    found["cpu flags"] = ", ".join(known) or "none that matter, or not readable here"
    found["gpu"] = _gpu()
    for package in _PACKAGES:
        found[package] = package_version(package) or "not installed"
    found["onnxruntime"] = machine.onnxruntime or "not installed"
    found["providers"] = ", ".join(machine.onnx_providers) or "none: pip install 'sentimill[cpu]'"
    return found


def _gpu() -> str:
    driver = Path("/proc/driver/nvidia/version")
    if not driver.is_file():
        return "none found"
    return driver.read_text().splitlines()[0].partition(":")[2].strip()
