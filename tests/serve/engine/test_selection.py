"""Which engine each machine gets, and what a wish that cannot be had is told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sentimill.engine.base import EngineWish
from sentimill.engine.hardware import Machine
from sentimill.engine.selection import rank_engines
from sentimill.errors import UsageError

CPU = ("CPUExecutionProvider",)
CUDA = ("CUDAExecutionProvider", *CPU)
BF16 = frozenset({"avx512f", "avx512_bf16", "avx512_vnni"})
ALL = ("fp32", "fp16", "bf16", "int8")


def machine(
    *flags: str,
    onnx: tuple[str, ...] = CPU,
    openvino: str | None = "2026.4.1",
    vendor: str = "AuthenticAMD",
) -> Machine:
    """Return a machine with these CPU flags."""
    return Machine(
        cpu_flags=frozenset(flags), cpu_vendor=vendor, onnx_providers=onnx, openvino=openvino
    )


XEON = machine(*BF16, vendor="GenuineIntel")
"""It has AVX512-BF16 without AMX, and is slow at it."""


@pytest.mark.parametrize(
    ("wish", "listed", "where", "expected"),
    [
        (EngineWish(), ALL, machine(*BF16, onnx=CUDA), ("onnx", "cuda", "fp16")),
        (EngineWish(), ("fp32",), machine(onnx=CUDA), ("onnx", "cuda", "fp32")),
        (EngineWish(), ALL, machine(*BF16), ("openvino", "cpu", "bf16")),
        (EngineWish(), ALL, machine("amx_bf16"), ("openvino", "cpu", "bf16")),
        (
            EngineWish(),
            ALL,
            machine("amx_bf16", vendor="GenuineIntel"),
            ("openvino", "cpu", "bf16"),
        ),
        (EngineWish(), ALL, XEON, ("onnx", "cpu", "int8")),
        (EngineWish(engine="openvino"), ALL, XEON, ("openvino", "cpu", "fp32")),
        (EngineWish(), ("bf16",), XEON, ("openvino", "cpu", "bf16")),
        (EngineWish(precision="bf16"), ALL, XEON, ("openvino", "cpu", "bf16")),
        (EngineWish(), ALL, machine("avx512_vnni"), ("onnx", "cpu", "int8")),
        (EngineWish(), ALL, machine(*BF16, openvino=None), ("onnx", "cpu", "int8")),
        (EngineWish(), ALL, machine("avx2"), ("onnx", "cpu", "int8")),
        (EngineWish(), ("int8",), machine(), ("onnx", "cpu", "int8")),
        (EngineWish(), ("int8",), machine(*BF16, onnx=CUDA), ("onnx", "cpu", "int8")),
        (EngineWish(), ("fp32",), machine(*BF16), ("onnx", "cpu", "fp32")),
        (EngineWish(), ("fp32",), machine(onnx=()), ("openvino", "cpu", "fp32")),
        (EngineWish(provider="cpu"), ALL, machine(*BF16, onnx=CUDA), ("openvino", "cpu", "bf16")),
        (EngineWish(precision="bf16"), ("fp32",), machine(*BF16), ("openvino", "cpu", "bf16")),
        (EngineWish(engine="openvino"), ("fp32",), machine(), ("openvino", "cpu", "fp32")),
        (EngineWish(engine="onnx"), ALL, machine("avx2"), ("onnx", "cpu", "int8")),
    ],
)
def test_the_fastest_that_the_machine_and_the_bundle_have_comes_first(
    wish: EngineWish, listed: tuple[str, ...], where: Machine, expected: tuple[str, str, str]
) -> None:
    """A table of machines, and what each should use."""
    best = rank_engines(wish, listed, where)[0]

    assert expected == (best.engine, best.provider, best.precision)
    assert best.why


@pytest.mark.parametrize(
    ("wish", "where", "message"),
    [
        (EngineWish(provider="cuda"), machine(), r"Install 'sentimill\[gpu\]'"),
        (EngineWish(engine="openvino"), machine(openvino=None), r"'sentimill\[openvino\]'"),
        (EngineWish(), machine(onnx=(), openvino=None), r"'sentimill\[cpu\]'"),
        (EngineWish(precision="bf16"), machine("avx2"), "needs a CPU with amx_bf16 or avx512_bf16"),
        (
            EngineWish(engine="openvino", provider="cuda"),
            machine(),
            "no engine runs fp32 with --engine openvino --provider cuda:"
            " leave out --engine or --provider$",
        ),
        (
            EngineWish(precision="fp16", provider="cpu"),
            machine(),
            "no engine runs fp16 with --engine auto --provider cpu:"
            " leave out --provider or --precision$",
        ),
    ],
)
def test_what_cannot_be_had_is_refused_with_the_remedy(
    wish: EngineWish, where: Machine, message: str
) -> None:
    """Nothing falls back in silence."""
    with pytest.raises(UsageError, match=message):
        rank_engines(wish, ["fp32"], where)


def test_the_options_that_an_error_names_are_those_that_help() -> None:
    """int8 has no row on CUDA, so the way out is another provider, or fp16 in the bundle."""
    wish = EngineWish(provider="cuda")

    with pytest.raises(UsageError, match=r"no engine runs int8 .*: leave out --provider$"):
        rank_engines(wish, ["int8"], machine(onnx=CUDA))

    assert rank_engines(replace(wish, provider="auto"), ["int8"], machine(onnx=CUDA))


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        (EngineWish(engine="torch"), "unknown engine 'torch': use auto, onnx or openvino"),  # type: ignore[arg-type]  # a program without mypy
        (EngineWish(precision="fp8"), "unknown precision 'fp8'"),  # type: ignore[arg-type]  # a program without mypy
    ],
)
def test_an_unknown_name_is_refused(wish: EngineWish, message: str) -> None:
    """A typo in a program is a usage error."""
    with pytest.raises(UsageError, match=message):
        rank_engines(wish, ["fp32"], machine())


def test_a_device_that_is_not_there_leaves_the_cpu_as_the_next_choice() -> None:
    """A CUDA build without a driver still serves where nobody asked for CUDA by name."""
    ranked = rank_engines(EngineWish(), ["fp32"], machine(onnx=CUDA))

    assert [choice.provider for choice in ranked][:2] == ["cuda", "cpu"]
    assert len(rank_engines(EngineWish(provider="cuda"), ["fp32"], machine(onnx=CUDA))) == 1
