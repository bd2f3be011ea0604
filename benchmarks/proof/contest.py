"""Times the baselines, and the student in every precision, on every engine and by every path."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks.proof.contestants import callers, encoded, engine_run, score_run, served, write_csv
from benchmarks.proof.race import race
from benchmarks.proof.record import Speed
from benchmarks.proof.rivals import pipeline_run
from benchmarks.proof.shapes import MINILM_L6
from benchmarks.record import peak_mib
from sentimill import Classifier
from sentimill.engine.base import EngineName, Precision
from sentimill.errors import SentimillError
from sentimill_train.evaluation.baselines import Baseline

_CALLERS: Final = 8
_ENGINES: Final[tuple[EngineName, ...]] = ("onnx", "openvino")
_PRECISIONS: Final[tuple[Precision, ...]] = ("fp32", "bf16", "int8")


@dataclass(frozen=True, slots=True)
class _Entry:
    """A contestant. weights: the file that it loads, None where it loads none of a bundle's."""

    kind: str
    path: str
    precision: str
    run: Callable[[], object]
    note: str = ""
    weights: float | None = None


def engines_of(bundle: Path) -> Iterator[Classifier]:
    """Yield the bundle on every engine and in every precision that this machine gives it."""
    for engine in _ENGINES:
        for precision in _PRECISIONS:
            try:
                yield Classifier.load(bundle, engine=engine, precision=precision)
            except SentimillError:  # the bundle or the machine does not have this engine
                continue


def student_race(
    bundles: Sequence[Path], texts: Sequence[str], rivals: Sequence[Baseline], *, rounds: int
) -> list[Speed]:
    """Time every contestant over *texts*, in turns. The first bundle is also served and scored."""
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        first = Classifier.load(bundles[0])
        rows = encoded(first, texts)
        entries: dict[str, _Entry] = {}
        for bundle in bundles:
            for one in engines_of(bundle):
                name = f"{one.choice.engine} {one.precision}"
                entries[f"engine {name}"] = _Entry(
                    "student", "engine", one.precision, engine_run(one, rows), "", _mib(one)
                )
        whole = partial(first.classify, texts)
        mib = _mib(first)
        entries["Classifier"] = _Entry("student", "classify", first.precision, whole, "", mib)
        address = stack.enter_context(served(bundles[0]))
        calls = callers(address, texts, count=_CALLERS)
        note = f"{_CALLERS} callers, 64 reviews a call, all on this machine"
        entries["gRPC"] = _Entry("student", "grpc", first.precision, calls, note, mib)
        write_csv(work / "in.csv", texts)
        score = score_run(bundles[0], work / "in.csv", work / "out.csv")
        note = "start and loading included"
        entries["sentimill score"] = _Entry("student", "score", first.precision, score, note, mib)
        plain = pipeline_run([row.ids for row in rows])
        note = "the student's shape in torch, batches as they come"
        entries["transformers"] = _Entry("baseline", "forward", "fp32", plain, note)
        for rival in rivals:
            predict = partial(rival.probs, texts)
            entries[rival.name] = _Entry("baseline", "classify", "fp64", predict)
        seconds = race({name: entry.run for name, entry in entries.items()}, rounds=rounds)
    lengths = [len(row.ids) for row in rows]
    return [_speed(name, one, lengths, tuple(seconds[name])) for name, one in entries.items()]


def _speed(name: str, entry: _Entry, lengths: list[int], seconds: tuple[float, ...]) -> Speed:
    linear = entry.precision == "fp64"
    return Speed(
        name=name,
        kind=entry.kind,
        path=entry.path,
        precision=entry.precision,
        reviews=len(lengths),
        tokens=sum(lengths),
        seconds=seconds,
        flops=None if linear else sum(map(MINILM_L6.flops, lengths)) / len(lengths),
        weights_mib=entry.weights,
        peak_mib=None if entry.path in {"grpc", "score"} else peak_mib(),
        random_weights=name == "transformers",
        note=entry.note,
    )


def _mib(classifier: Classifier) -> float:
    manifest = classifier.bundle.manifest
    return manifest.files[manifest.precision(classifier.precision).file].size_bytes / 2**20
