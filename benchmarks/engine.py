"""How many reviews a second does each engine do, and is it the same answer in any batch?

Bound: a MiniLM-L6 does 22.5 MFLOP a token; the machine's own matrix product (numpy, fp32) is
measured beside the engines, and a rate is also given as a share of it. What is compared runs
interleaved, round by round, on the same sorted batches of real reviews; medians are reported, and
on a busy machine only the ratios between rows mean anything. `plain` is ONNX Runtime as it comes:
one session with all the threads, one call after the other.

    python benchmarks/engine.py --bundle bundles/mine [bundles/its-fp32] --data FOLDER [--out FILE]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import cast, get_args

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from record import surroundings, write_result
from reviews import read_reviews
from sentimill import Classifier
from sentimill.bundle import open_bundle
from sentimill.classifier import plan_batches
from sentimill.engine import EngineChoice, EngineInfo, EngineName, Precision
from sentimill.errors import UsageError
from sentimill.text import Encoded

Rows = list[NDArray[np.int64]]
FLOP_A_TOKEN = 22.5e6
"""A MiniLM-L6 without attention's quadratic part; design.md, issue "The serving core"."""
_ENGINES = (
    ("plain", "fp32"),
    ("plain", "int8"),
    ("onnx", "fp32"),
    ("onnx", "int8"),
    ("openvino", "fp32"),
    ("openvino", "bf16"),
)


@dataclass(frozen=True, slots=True)
class Case:
    """One way to run the same texts."""

    engine: str
    precision: str
    threads: int
    batch_tokens: int


@dataclass(frozen=True, slots=True)
class Row:
    """What one case gave; rates are medians over the rounds.

    speedup: against the first case. batch_seconds: from one batch to the next, of those that go at
    once. exact: how many of `checked` texts got the same bits alone, among mates and padded.
    """

    case: Case
    texts_per_second: float
    tokens_per_second: float
    useful_share: float
    speedup: float
    matrix_share: float
    batch_seconds: float
    exact: int
    checked: int


class Plain:
    """An engine like any that a program makes in four lines."""

    def __init__(self, model: bytes, precision: str, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(
            model, sess_options=options, providers=["CPUExecutionProvider"]
        )
        self._info = EngineInfo(
            engine="plain", provider="cpu", precision=precision, threads=threads, exact=True
        )

    def run(
        self, ids: NDArray[np.int64], mask: NDArray[np.int64], *, beside: int = 0
    ) -> NDArray[np.float32]:
        """See `Engine.run`."""
        (logits,) = self._session.run(None, {"input_ids": ids, "attention_mask": mask})
        found: NDArray[np.float32] = logits
        return found

    def info(self) -> EngineInfo:
        """See `Engine.info`."""
        return self._info


def main() -> None:
    """Measure and print: a table on stderr, one JSON document on stdout."""
    settings = _settings()
    texts = read_reviews(settings.data, settings.texts)
    classifiers: dict[Case, Classifier] = {}
    for name in settings.cases:
        engine, precision, threads, batch_tokens = name.split(",")
        case = Case(engine, precision, int(threads), int(batch_tokens))
        try:
            classifiers[case] = _load(settings.bundle, case)
        except UsageError as error:
            print(f"left out {name}: {error}", file=sys.stderr)  # noqa: T201
    encoded = [e for e in next(iter(classifiers.values())).encoder.encode(texts)]
    rows = [e.ids for e in encoded if isinstance(e, Encoded)]
    seconds: dict[Case, list[float]] = {case: [] for case in classifiers}
    peak: list[float] = []
    for round_ in range(settings.rounds + 1):  # the first one warms up
        peak.append(_matrix_rate())
        for case, classifier in classifiers.items():
            taken = _run(classifier, rows, case.batch_tokens)
            if round_:
                seconds[case].append(taken)
    found = _rows(classifiers, rows, seconds, max(peak), settings.checked)
    for row in found:
        print(_line(row), file=sys.stderr)  # noqa: T201
    result = {
        "question": "reviews a second by engine, precision, threads and batch budget",
        "texts": len(rows),
        "mean_tokens": float(np.mean([len(row) for row in rows])),
        "rounds": settings.rounds,
        "matrix_flop_per_second": max(peak),
        "rows": [asdict(row) for row in found],
        **surroundings(),
    }
    print(write_result(settings.out, result))  # noqa: T201


def _load(bundles: Sequence[Path], case: Case) -> Classifier:
    if case.engine not in ("plain", *get_args(EngineName)) or case.precision not in get_args(
        Precision
    ):
        raise UsageError(f"unknown case {case}", reason="UNKNOWN_CASE")
    having = [b for b in bundles if case.precision in open_bundle(b).manifest.precisions]
    folder = having[0] if having else bundles[0]  # the first one says that it lacks the precision
    if case.engine == "plain" and having:
        bundle = open_bundle(folder)
        graph = bundle.read(bundle.manifest.precision(case.precision).file)
        choice = EngineChoice(engine="onnx", provider="cpu", precision=case.precision, why="plain")
        return Classifier(bundle, Plain(graph, case.precision, case.threads), choice)
    return Classifier.load(
        folder,
        engine=cast(EngineName, "onnx" if case.engine == "plain" else case.engine),
        precision=cast(Precision, case.precision),
        threads=case.threads,
    )


def _run(classifier: Classifier, rows: Rows, batch_tokens: int) -> float:
    began = time.perf_counter()
    lengths = [classifier.padded_length(len(row)) for row in rows]
    batches = [[rows[i] for i in batch] for batch in plan_batches(lengths, batch_tokens)]
    classifier.at_once(classifier.run, batches)
    return time.perf_counter() - began


def _matrix_rate() -> float:
    """Return this machine's fp32 matrix product in floating point operations a second."""
    side = 1024
    a = np.ones((side, side), dtype=np.float32)
    began = time.perf_counter()
    for _ in range(4):
        a @ a
    return 4 * 2 * side**3 / (time.perf_counter() - began)


def _rows(
    classifiers: dict[Case, Classifier],
    rows: Rows,
    seconds: dict[Case, list[float]],
    peak: float,
    checked: int,
) -> list[Row]:
    tokens = sum(map(len, rows))
    first = median(next(iter(seconds.values())))
    found = []
    for case, classifier in classifiers.items():
        taken = median(seconds[case])
        lengths = [classifier.padded_length(len(row)) for row in rows]
        batches = list(plan_batches(lengths, case.batch_tokens))
        padded = sum(len(b) * max(lengths[i] for i in b) for b in batches)
        found.append(
            Row(
                case=case,
                texts_per_second=len(rows) / taken,
                tokens_per_second=tokens / taken,
                useful_share=tokens / padded,
                speedup=first / taken,
                matrix_share=FLOP_A_TOKEN * padded / taken / peak,
                batch_seconds=taken / len(batches),
                exact=sum(_exact(classifier, rows, i) for i in range(checked)),
                checked=checked,
            )
        )
    return found


def _exact(classifier: Classifier, rows: Rows, i: int) -> bool:
    """Say whether text *i* gets the same bits alone, among 31 mates, and in a wider batch."""
    mates = [rows[(i + k) % len(rows)] for k in range(1, 32)]
    like = [mate for mate in mates if len(mate) <= len(rows[i])]
    alone: bytes = classifier.run([rows[i]])[0].tobytes()
    among: bytes = classifier.run([*like, rows[i]])[-1].tobytes()
    padded: bytes = classifier.run([rows[i], *mates])[0].tobytes()
    return alone == among == padded


def _line(row: Row) -> str:
    case = row.case
    return (
        f"{case.engine:<9}{case.precision:<5} {case.threads} threads {case.batch_tokens:>6} tokens"
        f" {row.texts_per_second:8.1f} texts/s {row.speedup:5.2f}x  useful {row.useful_share:.3f}"
        f"  batch {row.batch_seconds:.3f} s  exact {row.exact}/{row.checked}"
    )


def _settings() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--bundle", type=Path, required=True, nargs="+", help="of one student")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--texts", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--checked", type=int, default=8, help="texts checked for equal bits")
    parser.add_argument(
        "--cases",
        nargs="+",
        metavar="ENGINE,PRECISION,THREADS,BATCH_TOKENS",
        default=[
            f"{engine},{precision},2,{tokens}"
            for tokens in (4096, 1024, 512)
            for engine, precision in _ENGINES
        ],
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
