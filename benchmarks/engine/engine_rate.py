"""How many reviews a second does each engine compute, and are answers the same in any batch?

The bound: a MiniLM-L6 does 22.5 MFLOP for each token. The rate of the machine's own matrix product
(numpy, fp32) is measured too, and each engine's rate is also given as a share of it. Every engine
runs with every batch budget, on the same threads and the same sorted batches of real reviews, in
turns. The result has the medians over the rounds. On a busy machine only the ratios between rows
are meaningful. `plain` is ONNX Runtime with its defaults: one session with all the threads, one
call after the other. The time of tokenising on one thread, relative to the fastest engine, shows
what a faster tokenizer could gain.

    python -m benchmarks.engine.engine_rate --bundle bundles/mine \
        [bundles/its-fp32] --data FOLDER [--out FILE]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import cast

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from benchmarks.record import surroundings, write_result
from benchmarks.reviews import read_reviews
from sentimill import Classifier
from sentimill.bundle.reader import open_bundle
from sentimill.classifier import plan_batches
from sentimill.engine.base import EngineChoice, EngineInfo, EngineName, Precision
from sentimill.engine.hardware import usable_cores
from sentimill.errors import UsageError
from sentimill.text.tokenizer import Encoded

Rows = list[NDArray[np.int64]]
FLOP_A_TOKEN = 22.5e6
"""The matrix products of a MiniLM-L6 for one token, without attention's quadratic part."""
_PLAIN = ("plain", "fp32")
_ENGINES = (
    _PLAIN,
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
    """The result of one case; rates are medians over the rounds.

    speedup: relative to plain fp32 on the same batches; None if that did not run. batch_seconds:
    from one batch to the next, with concurrent batches. exact: how many of `checked` texts got the
    same bits each time; see `exact_texts`.
    """

    case: Case
    texts_per_second: float
    tokens_per_second: float
    useful_share: float
    speedup: float | None
    matrix_share: float
    batch_seconds: float
    exact: int
    checked: int


class Plain:
    """ONNX Runtime as a program uses it in four lines."""

    def __init__(self, model: bytes, precision: str, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(
            model, sess_options=options, providers=["CPUExecutionProvider"]
        )
        self.info = EngineInfo(engine="plain", provider="cpu", precision=precision, threads=threads)

    def run(
        self, ids: NDArray[np.int64], mask: NDArray[np.int64], *, other_calls: int = 0
    ) -> NDArray[np.float32]:
        """See `Engine.run`."""
        (logits,) = self._session.run(None, {"input_ids": ids, "attention_mask": mask})
        found: NDArray[np.float32] = logits
        return found


def main() -> None:
    """Measure and print: a table on stderr, one JSON document on stdout."""
    settings = _settings()
    texts = read_reviews(settings.data, settings.texts)
    classifiers = _classifiers(settings)
    classifier = next(iter(classifiers.values()))
    encoded = classifier.encoder.encode(texts)
    rows = [e.ids for e in encoded if isinstance(e, Encoded)]
    seconds: dict[Case, list[float]] = {
        Case(engine, precision, settings.threads, budget): []
        for budget in settings.budgets
        for engine, precision in classifiers
    }
    peak: list[float] = []
    encoding: list[float] = []
    for round_ in range(settings.rounds + 1):  # the first one warms up
        peak.append(_matrix_rate())
        encoding.append(_encoding_seconds(classifier, texts))
        for case, taken in seconds.items():
            took = _run(classifiers[case.engine, case.precision], rows, case.batch_tokens)
            if round_:
                taken.append(took)
    found = _rows(classifiers, rows, seconds, max(peak), settings.checked)
    for row in found:
        print(_line(row), file=sys.stderr)  # noqa: T201
    result = {
        "question": "reviews a second by engine, precision, threads and batch budget",
        "texts": len(rows),
        "mean_tokens": float(np.mean([len(row) for row in rows])),
        "rounds": settings.rounds,
        "matrix_flop_per_second": max(peak),
        "tokenize_by_engine": median(encoding) / min(median(each) for each in seconds.values()),
        "rows": [asdict(row) for row in found],
        **surroundings(),
    }
    print(write_result(settings.out, result))  # noqa: T201


def _classifiers(settings: argparse.Namespace) -> dict[tuple[str, str], Classifier]:
    """Load the engines that the bundles and the machine have, and say which are missing."""
    found: dict[tuple[str, str], Classifier] = {}
    for engine, precision in _ENGINES:
        try:
            found[engine, precision] = _load(settings.bundle, engine, precision, settings.threads)
        except UsageError as error:
            print(f"left out {engine} {precision}: {error}", file=sys.stderr)  # noqa: T201
    if _PLAIN not in found:
        why = "no bundle has fp32, which all are compared with: add one that has it"
        print(why, file=sys.stderr)  # noqa: T201
    return found


def _load(bundles: Sequence[Path], engine: str, precision: str, threads: int) -> Classifier:
    # bf16 needs the fp32 graph alone: the engine rounds it.
    graph = "fp32" if precision == "bf16" else precision
    having = [b for b in bundles if graph in open_bundle(b).manifest.precisions]
    folder = having[0] if having else bundles[0]  # which raises an error: it lacks the precision
    if engine == "plain" and having:
        bundle = open_bundle(folder)
        model = bundle.read(bundle.manifest.precision(precision).file)
        choice = EngineChoice(engine="onnx", provider="cpu", precision=precision, why="plain")
        return Classifier(bundle, Plain(model, precision, threads), choice)
    return Classifier.load(
        folder,
        engine=cast(EngineName, "onnx" if engine == "plain" else engine),
        precision=cast(Precision, precision),
        threads=threads,
    )


def _run(classifier: Classifier, rows: Rows, batch_tokens: int) -> float:
    began = time.perf_counter()
    # By the lengths of the texts, so that an engine that rounds them up gets the same batches.
    batches = [[rows[i] for i in batch] for batch in plan_batches([*map(len, rows)], batch_tokens)]
    classifier.at_once(classifier.run, batches)
    return time.perf_counter() - began


def _encoding_seconds(classifier: Classifier, texts: Sequence[str]) -> float:
    began = time.perf_counter()
    classifier.encoder.encode(texts)
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
    classifiers: dict[tuple[str, str], Classifier],
    rows: Rows,
    seconds: dict[Case, list[float]],
    peak: float,
    checked: int,
) -> list[Row]:
    lengths = [*map(len, rows)]
    exact = {name: exact_texts(one, rows[:checked]) for name, one in classifiers.items()}
    times = speedups(seconds)
    found = []
    for case, each in seconds.items():
        classifier = classifiers[case.engine, case.precision]
        taken = median(each)
        batches = list(plan_batches(lengths, case.batch_tokens))
        padded = sum(len(b) * classifier.padded_length(max(lengths[i] for i in b)) for b in batches)
        found.append(
            Row(
                case=case,
                texts_per_second=len(rows) / taken,
                tokens_per_second=sum(lengths) / taken,
                useful_share=sum(lengths) / padded,
                speedup=times[case],
                matrix_share=FLOP_A_TOKEN * padded / taken / peak,
                batch_seconds=taken / len(batches),
                exact=exact[case.engine, case.precision],
                checked=len(rows[:checked]),
            )
        )
    return found


def speedups(seconds: dict[Case, list[float]]) -> dict[Case, float | None]:
    """Return how many times faster each case is than plain fp32 on the same threads and batches.

    It is the median over the rounds, each compared with the same round; None if plain fp32 did not
    run.
    """
    found: dict[Case, float | None] = {}
    for case, each in seconds.items():
        plain = seconds.get(Case(*_PLAIN, case.threads, case.batch_tokens))
        ratios = plain and [slow / fast for slow, fast in zip(plain, each, strict=True)]
        found[case] = median(ratios) if ratios else None
    return found


def exact_texts(classifier: Classifier, rows: Rows) -> int:
    """Return how many of *rows* get the same bits each time they are run.

    They run alone, among others of similar length, and among seven others in their given order,
    padded to the longest. Each of these is run as the only call, and as one of as many calls as the
    engine takes, which may use another session.
    """
    bits: list[set[bytes]] = [set() for _ in rows]
    for other_calls in {0, classifier.engine.info.calls - 1}:
        for batch in _arrangements([*map(len, rows)]):
            logits = classifier.run([rows[i] for i in batch], other_calls)
            for i, one in zip(batch, logits, strict=True):
                bits[i].add(one.tobytes())
    return sum(len(each) == 1 for each in bits)


def _arrangements(lengths: Sequence[int]) -> Iterator[Sequence[int]]:
    every = range(len(lengths))
    yield from ([i] for i in every)
    yield from plan_batches(lengths, 2048)
    yield from (every[i : i + 8] for i in every[::8])


def _line(row: Row) -> str:
    case = row.case
    times = "" if row.speedup is None else f"{row.speedup:5.2f}x"
    return (
        f"{case.engine:<9}{case.precision:<5} {case.threads} threads {case.batch_tokens:>6} tokens"
        f" {row.texts_per_second:8.1f} texts/s {times}  useful {row.useful_share:.3f}"
        f"  batch {row.batch_seconds:.3f} s  exact {row.exact}/{row.checked}"
    )


def _settings() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--bundle", type=Path, required=True, nargs="+", help="of one student")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--texts", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--checked", type=int, default=48, help="texts checked for equal bits")
    parser.add_argument("--threads", type=int, default=usable_cores(), help="of every engine")
    parser.add_argument("--budgets", type=int, nargs="+", default=[512, 1024, 4096])
    return parser.parse_args()


if __name__ == "__main__":
    main()
