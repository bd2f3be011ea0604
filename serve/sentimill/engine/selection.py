"""Selects the engine for a machine from a table of all engines, best first.

benchmarks/engine/engine_rate.py measured the order. `auto` takes the first row that the machine,
the bundle and the user's wish allow; bf16 comes last on a CPU that is slow at it. If the machine
allows no row of the wish, the error names what the first of them lacks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final, get_args

from sentimill.engine.base import EngineChoice, EngineName, EngineWish, Precision, Provider
from sentimill.engine.hardware import Machine
from sentimill.errors import UsageError

_BF16: Final = frozenset({"amx_bf16", "avx512_bf16"})


_ROWS: Final = (
    EngineChoice(engine="onnx", provider="cuda", precision="fp16", why="CUDA, half precision"),
    EngineChoice(engine="onnx", provider="cuda", precision="fp32", why="CUDA"),
    EngineChoice(
        engine="openvino",
        provider="cpu",
        precision="bf16",
        flags=_BF16,
        why="the CPU has fast bf16 instructions, and answers are bit-equal in any batch",
    ),
    # It needs no int8 instructions: int8 was also faster on an AVX2 CPU without them.
    EngineChoice(
        engine="onnx",
        provider="cpu",
        precision="int8",
        why="faster than fp32 in ONNX Runtime, and answers are bit-equal in any batch",
    ),
    EngineChoice(engine="onnx", provider="cpu", precision="fp32", why="runs on every CPU"),
    # It is bit-equal too, and faster than the row above. It stays last until more than one kind of
    # CPU has been measured.
    EngineChoice(
        engine="openvino", provider="cpu", precision="fp32", why="there is no ONNX Runtime"
    ),
)


def rank_engines(
    wish: EngineWish, precisions: Sequence[str], machine: Machine
) -> list[EngineChoice]:
    """Return what can run *wish* on *machine*, best first, never empty.

    precisions: those of the bundle, which passed their gate. A precision that is asked for by name
    must be one of them, except bf16: an engine rounds the fp32 graph to it, so a bundle that was
    never gated in bf16 can be tried in it.

    Raises:
        UsageError: nothing fits; the message says what is missing and how to get it.
    """
    _check_names(wish)
    if wish.provider == "cuda" and wish.engine != "openvino" and (lack := _lack(_ROWS[0], machine)):
        raise lack  # in any precision
    rows = _rows_for(wish, precisions)
    if not rows:
        raise _no_such_engine(wish, precisions)
    lacks = [_lack(row, machine) for row in rows]
    found = [row for row, lack in zip(rows, lacks, strict=True) if lack is None]
    if not found:
        raise lacks[0] or AssertionError("a row without a lack is a choice")
    if not machine.is_fast_at_bf16:
        found.sort(key=lambda row: row.precision == "bf16")
    return found


def _rows_for(wish: EngineWish, precisions: Sequence[str]) -> list[EngineChoice]:
    wanted = precisions if wish.precision == "auto" else [wish.precision]
    return [
        row
        for row in _ROWS
        if wish.engine in ("auto", row.engine)
        and wish.provider in ("auto", row.provider)
        and row.precision in wanted
    ]


def _no_such_engine(wish: EngineWish, precisions: Sequence[str]) -> UsageError:
    """Return the error for a wish that matches no row; it names options to leave out."""
    wanted = precisions if wish.precision == "auto" else [wish.precision]
    relaxed = {
        "--engine": replace(wish, engine="auto"),
        "--provider": replace(wish, provider="auto"),
        "--precision": replace(wish, precision="auto"),
    }
    helpful = [
        option
        for option, other in relaxed.items()
        if other != wish and _rows_for(other, precisions)
    ]
    return UsageError(
        f"no engine runs {' or '.join(wanted)} with --engine {wish.engine} --provider"
        f" {wish.provider}: leave out {' or '.join(helpful) or ' and '.join(relaxed)}",
        reason="ENGINE_NOT_USABLE",
    )


def _lack(row: EngineChoice, machine: Machine) -> UsageError | None:
    """Return what keeps *row* from running on *machine*."""
    if row.engine == "openvino" and machine.openvino is None:
        return UsageError(
            "OpenVINO is not installed: pip install 'sentimill[openvino]'", reason="ENGINE_MISSING"
        )
    if row.engine == "onnx" and not machine.onnx_providers:
        return UsageError(
            "ONNX Runtime is not installed: pip install 'sentimill[cpu]', or 'sentimill[gpu]' for"
            " a CUDA machine",
            reason="ENGINE_MISSING",
        )
    if row.provider == "cuda" and "CUDAExecutionProvider" not in machine.onnx_providers:
        return UsageError(
            f"CUDA is not available: this ONNX Runtime runs on {', '.join(machine.onnx_providers)}."
            " Install 'sentimill[gpu]' on a machine with an NVIDIA GPU, or leave out --provider",
            reason="PROVIDER_NOT_INSTALLED",
        )
    if row.flags and not row.flags & machine.cpu_flags:
        return UsageError(
            f"{row.precision} needs a CPU with {' or '.join(sorted(row.flags))}: use another"
            " --precision",
            reason="PRECISION_NOT_USABLE",
        )
    return None


def _check_names(wish: EngineWish) -> None:
    kinds = (
        ("engine", wish.engine, get_args(EngineName)),
        ("provider", wish.provider, get_args(Provider)),
        ("precision", wish.precision, get_args(Precision)),
    )
    for kind, name, known in kinds:
        if name not in known:
            raise UsageError(
                f"unknown {kind} {name!r}: use {', '.join(known[:-1])} or {known[-1]}",
                reason=f"UNKNOWN_{kind.upper()}",
            )
