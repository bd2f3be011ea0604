"""What a scoring job survives: SIGKILL, a full disk, a removed folder, an input cut short."""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

__all__ = ["faults"]

FORMATS: Final = ("csv", "csv.gz", "csv.zst", "jsonl", "jsonl.gz", "parquet")
ROWS: Final = 60_000
_LONGEST_RUN_S: Final = 300
_PROGRAM: Final = """
import sys
from sentimill.cli.main import main
from sentimill.scoring import job, scorers, summary
sys.stderr.write("ready\\n")
main()
"""


def faults(folder: Path, kills: int) -> dict[str, object]:
    """Return how many outputs were whole, over all kinds of fault; anything else is an error."""
    from tiny_bundle import write_tiny_bundle

    bundle = write_tiny_bundle(folder / "tiny").path
    each = -(-kills // len(FORMATS))
    return {
        "rows": ROWS,
        "kills": {kind: killed(folder, bundle, kind, each) for kind in FORMATS},
        "disk_full": {kind: disk_full(folder, bundle, kind) for kind in ("csv", "parquet")},
        "folder_removed": folder_removed(folder, bundle),
        "input_cut": {kind: input_cut(folder, bundle, kind) for kind in ("csv", "csv.gz")},
    }


def write_input(path: Path) -> None:
    """Write reviews in the format that the suffixes of *path* name, one in fifty of them empty."""
    chance = random.Random(7)
    words = ("good", "bad", "the", "battery", "fine")
    texts = [
        " ".join(chance.choices(words, k=chance.randint(1, 60))) if i % 50 else ""
        for i in range(ROWS)
    ]
    if path.suffix == ".parquet":
        table = pa.table({"id": range(ROWS), "text": texts})
        pq.write_table(table, path, row_group_size=7_000)
        return
    if ".jsonl" in path.name:
        data = "".join(
            json.dumps({"id": i, "text": t}) + "\n" for i, t in enumerate(texts)
        ).encode()
    else:
        data = ("id,text\n" + "".join(f'{i},"{t}"\n' for i, t in enumerate(texts))).encode()
    if path.suffix == ".gz":
        data = gzip.compress(data, 1)
    elif path.suffix == ".zst":
        data = pa.Codec("zstd").compress(data, asbytes=True)
    path.write_bytes(data)


def start(source: Path, target: Path, bundle: Path, processes: int = 1) -> subprocess.Popen[bytes]:
    """Start the program as a user would, and return when it has loaded its modules."""
    arguments = ["score", source, target, "--bundle", bundle, "--threads", "1", "--strict"]
    arguments += ["--processes", str(processes)]
    process = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, *map(str, arguments)], stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    assert process.stderr.readline() == b"ready\n"
    return process


def finish(source: Path, target: Path, bundle: Path) -> tuple[int, str]:
    """Run the program to its end; return its exit code and what it said."""
    process = start(source, target, bundle)
    _, said = process.communicate(timeout=_LONGEST_RUN_S)
    return process.returncode, said.decode()


def killed(folder: Path, bundle: Path, kind: str, kills: int) -> dict[str, object]:
    """Kill a job of one or two processes at random moments until *kills* hit one, going on."""
    source, whole, target = (folder / f"{name}.{kind}" for name in ("in", "whole", "killed"))
    write_input(source)
    process = start(source, whole, bundle)
    began = time.monotonic()
    _, told = process.communicate(timeout=_LONGEST_RUN_S)
    assert process.returncode == 3, told
    run_s = time.monotonic() - began
    chance = random.Random(11)
    hits = finished = 0
    while hits < kills:
        process = start(source, target, bundle, chance.choice((1, 2)))
        try:
            _, told = process.communicate(timeout=chance.uniform(0.0, run_s))
            assert process.returncode == 3, told
            assert target.read_bytes() == whole.read_bytes()
            target.unlink()
            finished += 1
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            hits += 1
            if target.exists():  # killed after the output got its name, before the exit
                assert target.read_bytes() == whole.read_bytes()
                if not _journal(target).exists():  # only the exit was left
                    target.unlink()
    code, said = finish(source, target, bundle)
    assert code == 3, said
    assert target.read_bytes() == whole.read_bytes()
    return {"kills": hits, "runs_that_ended": finished + 1, "byte_identical": True}


def disk_full(folder: Path, bundle: Path, kind: str) -> dict[str, object]:
    """Write to a tmpfs that is too small, make it larger, and go on."""
    source, whole = folder / f"in.{kind}", folder / f"whole.{kind}"
    small = folder / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", small], check=False)
    if mounted.returncode:
        return {"skipped": "no right to mount a tmpfs"}
    try:
        target = small / f"out.{kind}"
        code, said = finish(source, target, bundle)
        assert (code, target.exists()) == (1, False), said
        subprocess.run(["mount", "-o", "remount,size=200m", small], check=True)
        again, more = finish(source, target, bundle)
        assert again == 3, more
        return {"said": said.strip().splitlines()[-1][:200], "byte_identical": same(target, whole)}
    finally:
        subprocess.run(["umount", small], check=True)
        small.rmdir()


def folder_removed(folder: Path, bundle: Path) -> dict[str, object]:
    """Remove the output's folder while the job runs."""
    out = folder / "gone"
    out.mkdir()
    process = start(folder / "in.csv", out / "out.csv", bundle)
    journal = _journal(out / "out.csv")
    while not (journal.exists() and journal.stat().st_size > 1500):
        assert process.poll() is None
    shutil.rmtree(out)
    _, said = process.communicate(timeout=_LONGEST_RUN_S)
    assert (process.returncode, out.exists()) == (1, False), said
    return {"said": said.decode().strip().splitlines()[-1][:200]}


def input_cut(folder: Path, bundle: Path, kind: str) -> dict[str, object]:
    """Cut the input in half while it is read."""
    source, target = folder / f"cut.{kind}", folder / f"cut-out.{kind}"
    shutil.copy(folder / f"in.{kind}", source)
    process = start(source, target, bundle)
    journal = _journal(target)
    while not (journal.exists() and journal.stat().st_size > 1):
        assert process.poll() is None
    os.truncate(source, source.stat().st_size // 2)
    _, said = process.communicate(timeout=_LONGEST_RUN_S)
    assert (process.returncode, target.exists()) == (4, False), said
    return {"said": said.decode().strip().splitlines()[-1][:200]}


def _journal(target: Path) -> Path:
    """Return where a job notes what it has done."""
    return target.with_name(f".{target.name}.score") / "journal.jsonl"


def same(one: Path, other: Path) -> bool:
    """Say whether two files have the same bytes; it is an error when they do not."""
    assert one.read_bytes() == other.read_bytes()
    return True
