"""How much memory do endless records cost? A separate process scores each file.

The bound: at most 150 MiB more than the same job over ten short rows, whatever the file.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

__all__ = ["records"]

_MIB: Final = 1 << 20
_PROGRAM: Final = "from sentimill.cli.main import main; main()"


def records(folder: Path) -> dict[str, object]:
    """Return exit code and peak memory of a job over each kind of file."""
    from tiny_bundle import write_tiny_bundle

    bundle = write_tiny_bundle(folder / "tiny").path
    found: dict[str, dict[str, float]] = {}
    for name, write in FILES.items():
        source = folder / name
        write(source)
        found[name] = scored(source, bundle)
        source.unlink()
    idle = found["idle.csv"]["peak_mib"]
    for one in found.values():
        one["above_idle_mib"] = round(one["peak_mib"] - idle, 1)
    return {"files": found}


def scored(source: Path, bundle: Path) -> dict[str, float]:
    """Score *source* in a process of its own."""
    target = source.with_name(f"out-{source.name}")
    arguments = ["score", source, target, "--bundle", bundle, "--threads", "1", "--overwrite"]
    process = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, *map(str, arguments)], stderr=subprocess.DEVNULL
    )
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return {"exit_code": process.returncode, "peak_mib": round(used.ru_maxrss / 1024, 1)}


def _csv(*pieces: tuple[bytes, int]) -> Callable[[Path], object]:
    """Return a writer of each piece so many times; it leaves no memory for a child to inherit."""

    def write(path: Path) -> None:
        with path.open("wb") as file:
            file.write(b"id,text\n")
            for piece, times in pieces:
                for at in range(0, times, 1000):
                    file.write(piece * min(1000, times - at))

    return write


def _repeated_text(path: Path) -> None:
    """Write one long text 4,000 times, which Parquet stores once."""
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 4_000), pa.array(["good " * 20_000]))
    pq.write_table(pa.table({"text": text}), path)


FILES: Final[dict[str, Callable[[Path], object]]] = {
    "idle.csv": _csv((b"1,good\n", 10)),
    "open_quote_40_mb.csv": _csv((b'1,"', 1), (b"never closed\n", 40 * _MIB // 13)),
    "cell_of_50_mb.csv": _csv((b"1,", 1), (b"good ", 10 * _MIB), (b"\n2,bad\n", 1)),
    "cell_of_short_lines_50_mb.csv": _csv((b'1,"', 1), (b"good\n", 10 * _MIB), (b'"\n2,bad\n', 1)),
    "a_million_blank_lines.csv": _csv((b"1,good\n", 1), (b"\n", 1_000_000), (b"2,bad\n", 1)),
    "one_text_4000_times.parquet": _repeated_text,
}
