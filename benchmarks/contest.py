"""The student's race: every precision by every path, and the baselines, on the same reviews."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec
from baselines import Predict, pipeline_run
from contestants import callers, encoded, engine_run, score_run, serving, write_csv
from machine import peak_mib
from race import race
from record import Speed
from sentimill import Classifier
from sentimill.classifier import Precision
from shapes import MINILM_L6

__all__ = ["student_race"]

_CALLERS = 8


@dataclass(frozen=True, slots=True)
class _Entry:
    kind: str
    path: str
    precision: str
    run: Callable[[], object]
    note: str = ""


def student_race(
    bundle: Path, texts: Sequence[str], baselines: Mapping[str, Predict], *, rounds: int
) -> list[Speed]:
    """Time every contestant over *texts*, in turns."""
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        first = Classifier.load(bundle)
        rows = encoded(first, texts)
        entries: dict[str, _Entry] = {}
        for name in first.bundle.manifest.precisions:
            # A bundle may have precisions that this program does not know; load says so.
            one = Classifier.load(bundle, precision=msgspec.convert(name, Precision))
            entries[f"engine {name}"] = _Entry("student", "engine", name, engine_run(one, rows))
            whole = partial(one.classify, texts)
            entries[f"classify {name}"] = _Entry("student", "classify", name, whole)
        address = stack.enter_context(serving(bundle))
        served = callers(address, texts, count=_CALLERS)
        note = f"{_CALLERS} callers, 64 reviews a call, all on this machine"
        entries["gRPC"] = _Entry("student", "grpc", first.precision, served, note)
        write_csv(work / "in.csv", texts)
        score = score_run(bundle, work / "in.csv", work / "out.csv")
        entries["score"] = _Entry("student", "score", first.precision, score, "start included")
        plain = pipeline_run([row.ids for row in rows])
        entries["transformers"] = _Entry("baseline", "forward", "fp32", plain, "no sorting")
        for name, predict in baselines.items():
            entries[name] = _Entry("baseline", "classify", "fp64", partial(predict, texts))
        seconds = race({name: entry.run for name, entry in entries.items()}, rounds=rounds)
    flops = sum(MINILM_L6.flops(len(row.ids)) for row in rows) / len(rows)
    manifest = first.bundle.manifest
    size = {
        name: manifest.files[graph.file].size_bytes / 2**20
        for name, graph in manifest.precisions.items()
    }
    return [
        Speed(
            name=name,
            kind=entry.kind,
            path=entry.path,
            precision=entry.precision,
            reviews=len(texts),
            tokens=sum(len(row.ids) for row in rows),
            seconds=tuple(seconds[name]),
            flops=None if entry.precision == "fp64" else flops,
            weights_mib=size.get(entry.precision) if entry.kind == "student" else None,
            peak_mib=peak_mib() if entry.path in {"engine", "classify"} else None,
            random_weights=name == "transformers",
            note=entry.note,
        )
        for name, entry in entries.items()
    ]
