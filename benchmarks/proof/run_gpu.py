"""The question of `run.py` on a GPU: one script, no network, at most ten minutes.

    python -m benchmarks.proof.run_gpu --bundle DIR [--texts FILE] [--shape 8B] [--out FILE]

The bound: the card's measured matrix rate divided by the operations of a review, 22.4 MFLOP a token
at 128 tokens. First the student's fp16 graph is timed on reviews of 32, 128 and 256 tokens. Then
these take turns on the same texts: the 8B shape in bf16 with its instruction cached, the student in
fp16 in torch with variable-length attention (no padding is computed), the student's fp16 graph in
onnxruntime-gpu, and the student served over gRPC. A bundle without fp16 is refused on a GPU,
because it would run on the CPU. What could not be measured is named under `missing`.

The script also runs on a CPU with a tiny shape. This tests it, and gives no figures of a GPU.
"""

from __future__ import annotations

import argparse
import math
import random
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from statistics import median

import msgspec
import numpy as np
import torch

from benchmarks.proof.contestants import Senders, encoded, engine_run, served
from benchmarks.proof.decoder import Decoder
from benchmarks.proof.duel import large_model, large_speed
from benchmarks.proof.machine import machine
from benchmarks.proof.prompts import PROMPTS
from benchmarks.proof.race import race, ratio_of
from benchmarks.proof.record import BY_LENGTH, Proof, Scaling, Speed, write_proof
from benchmarks.proof.shapes import DECODERS, MINILM_L6
from benchmarks.proof.varlen import VarlenStudent
from benchmarks.record import RESULTS
from sentimill import Classifier
from sentimill.bundle.reader import open_bundle
from sentimill.engine.hardware import Machine
from sentimill.text.tokenizer import Encoded

_LENGTHS = (32, 128, 256)
"""The engine's rate is also reported for reviews of so many tokens."""

_CALLERS = 20
"""Callers for each process of a server; each has 256 unanswered reviews, about 45,000 tokens."""

_MOST_ROUNDS = 4
"""How often a server of many processes gets the texts in a round of the race."""

_SHORTEST, _LONGEST = 10, 220
"""Words of a made-up review; the mean is about that of the review sets, 110 tokens."""


@dataclass(slots=True)
class _Field:
    """The contestants of a race. missing: those that this machine cannot run."""

    speeds: dict[str, Speed] = field(default_factory=dict)
    runs: dict[str, Callable[[], object]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    def add(self, speed: Speed, run: Callable[[], object]) -> None:
        """Add a contestant. Its seconds are filled in after the race."""
        self.speeds[speed.name], self.runs[speed.name] = speed, run


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write one JSON file."""
    given = _options().parse_args(arguments)
    began = time.monotonic()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        check_half(given.bundle)
    here = machine(size=8192 if device == "cuda" else 256)
    on_gpu = device == "cuda" and "CUDAExecutionProvider" in Machine.here().onnx_providers
    if on_gpu:
        classifier = Classifier.load(given.bundle, precision="fp16", provider="cuda")
    else:
        classifier = Classifier.load(given.bundle, engine="onnx", provider="cpu")
    texts = _again(given.texts, given.reviews) if given.texts else synthetic(given.reviews)
    entered = _Field()
    if device == "cpu":
        entered.missing.append("GPU: torch sees none, so these are a CPU's figures")
    rows = encoded(classifier, texts)
    _enter_torch(entered, given, rows, device)
    few = texts[: given.large_reviews]
    _enter_large(entered, given, classifier, few, device)
    scaling: list[Scaling] = []
    senders: list[Senders] = []
    with ExitStack() as stack:
        if device == "cuda" and not on_gpu:
            entered.missing.append(
                "the bundle's graph, alone and served: this ONNX Runtime has no CUDA, install"
                " onnxruntime-gpu"
            )
        else:
            _enter_engine(entered, given, classifier, rows)
            senders = [
                _enter_served(entered, stack, given, texts, rows, workers)
                for workers in given.workers
            ]
            rate = here.matmul_flops["fp16" if device == "cuda" else "fp32"]
            scaling = [*_by_length(classifier, given, rate), *_by_batch(classifier, given, rate)]
        waiting = {name: _synced(run, device) for name, run in entered.runs.items()}
        seconds = race(waiting, rounds=given.rounds)
        for one in senders:
            one.check()
    measured = [
        msgspec.structs.replace(entered.speeds[name], seconds=tuple(times))
        for name, times in seconds.items()
    ]
    best = max((s for s in measured if s.kind == "student"), key=lambda speed: speed.rate)
    proof = Proof(
        command=shlex.join(["benchmarks/proof/run_gpu.py", *(arguments or sys.argv[1:])]),
        minutes=(time.monotonic() - began) / 60,
        machine=here,
        settings={
            "shape": given.shape,
            "reviews": len(texts),
            "large_reviews": len(few),
            "made_up_texts": given.texts is None,
            "bundle_digest": classifier.bundle.digest,
        },
        speeds=tuple(measured),
        ratios=tuple(ratio_of(best, large) for large in measured if large.kind == "large"),
        scaling=tuple(scaling),
        missing=tuple(entered.missing),
    )
    write_proof(proof, given.out)
    for speed in measured:
        sys.stderr.write(f"{speed.name:<28}{speed.rate:>12,.1f} reviews/s\n")
    for point in scaling:
        share = point.reviews_per_second / (point.bound or math.inf)
        sys.stderr.write(
            f"engine, {point.value:.0f} {point.axis} {point.reviews_per_second:>16,.1f} reviews/s,"
            f" {share:.0%} of the matrix rate\n"
        )
    rate = here.matmul_flops["bf16"]
    sys.stderr.write(f"bf16 matrix rate {rate:.3g} operations/s; {given.out}\n")


def check_half(bundle: Path) -> None:
    """Raise SystemExit where *bundle* has no fp16, because it would not run on the GPU."""
    precisions = list(open_bundle(bundle).manifest.precisions)
    if "fp16" not in precisions:
        raise SystemExit(
            f"{bundle} has {', '.join(precisions)} and no fp16, so it would run on the CPU: make"
            " another of a bundle that has fp32, with `sentimill export FP32 OUT --on FILE"
            " --precision fp16`"
        )


def synthetic(count: int) -> list[str]:
    """Make texts as long as those of the review sets, for machines that lack the sets."""
    draw = random.Random(0)
    words = tuple("abcdefghijklmnop")  # the content of a review does not matter to speed
    sizes = (draw.randint(_SHORTEST, _LONGEST) for _ in range(count))
    return [" ".join(draw.choices(words, k=size)) for size in sizes]


def _again(file: Path, count: int) -> list[str]:
    """Return *count* reviews of *file*, repeating them where it has fewer."""
    lines = file.read_text(encoding="utf-8").split("\n")[:-1]
    return [*islice(cycle(lines), count)]


def _enter_torch(
    entered: _Field, given: argparse.Namespace, rows: Sequence[Encoded], device: str
) -> None:
    """Add the shape in torch without padding to the race."""
    half = torch.float16 if device == "cuda" else torch.float32
    plain = VarlenStudent(dtype=half, device=device)
    run = plain.batches([row.ids for row in rows], tokens=given.batch_tokens)
    note = "torch, variable-length attention, random weights"
    precision = "fp16" if device == "cuda" else "fp32"
    entered.add(_student("student torch varlen", "forward", precision, rows, note), run)


def _enter_engine(
    entered: _Field, given: argparse.Namespace, graph: Classifier, rows: Sequence[Encoded]
) -> None:
    """Add the bundle's own graph to the race."""
    name = f"student onnxruntime {graph.engine.info.provider}"
    run = engine_run(graph, rows, batch_tokens=given.batch_tokens)
    entered.add(_student(name, "engine", graph.precision, rows), run)


def _enter_served(
    entered: _Field,
    stack: ExitStack,
    given: argparse.Namespace,
    texts: Sequence[str],
    rows: Sequence[Encoded],
    workers: int,
) -> Senders:
    """Start a server with this many processes, and add it to the race."""
    options = {"workers": workers, "batch_tokens": given.batch_tokens}
    address = stack.enter_context(served(given.bundle, **options))
    # The queue of a process holds a million tokens, which is 23 calls.
    callers = min(given.callers, _CALLERS * workers)
    one = Senders(address, texts, callers=callers, times=min(workers, _MOST_ROUNDS))
    name = f"student gRPC, {workers} processes"
    note = f"{callers} callers, {one.items} reviews a call"
    made = _student(name, "grpc", "as served", rows, note)
    tokens = made.tokens * one.reviews // made.reviews
    entered.add(msgspec.structs.replace(made, reviews=one.reviews, tokens=tokens), one.run)
    return one


def _by_length(graph: Classifier, given: argparse.Namespace, flops: float) -> list[Scaling]:
    """Return the engine's rate on reviews of one length, and the rate that *flops* allow."""
    longest = graph.bundle.manifest.max_tokens
    lengths = sorted({min(tokens, longest) for tokens in _LENGTHS})
    cases = {tokens: (tokens, given.batch_tokens) for tokens in lengths}
    return _scaling(graph, given, flops, BY_LENGTH, cases)


def _by_batch(graph: Classifier, given: argparse.Namespace, flops: float) -> list[Scaling]:
    """Return the engine's rate on reviews of 128 tokens, by the number of tokens in a call."""
    tokens = min(128, graph.bundle.manifest.max_tokens)
    sizes = [part * given.batch_tokens // 8 for part in (1, 2, 4, 8, 16)]
    cases = {size: (tokens, size) for size in sizes}
    return _scaling(graph, given, flops, "tokens a call", cases)


def _scaling(
    graph: Classifier,
    given: argparse.Namespace,
    flops: float,
    axis: str,
    cases: Mapping[int, tuple[int, int]],
) -> list[Scaling]:
    """Race the engine along *axis*: at each value of it, tokens a review and tokens a call."""
    runs = {}
    for value, (tokens, batch_tokens) in cases.items():
        # The content of a review does not matter to speed.
        one = Encoded(np.full(tokens, graph.bundle.manifest.pad_id, dtype=np.int64), False)
        run = engine_run(graph, [one] * given.reviews, batch_tokens=batch_tokens)
        runs[str(value)] = run
    seconds = race(runs, rounds=given.rounds)
    return [
        Scaling(
            axis=axis,
            value=value,
            reviews_per_second=given.reviews / median(seconds[str(value)]),
            bound=flops / MINILM_L6.flops(tokens),
        )
        for value, (tokens, _) in cases.items()
    ]


def _enter_large(
    entered: _Field,
    given: argparse.Namespace,
    classifier: Classifier,
    texts: Sequence[str],
    device: str,
) -> None:
    shape = DECODERS[given.shape]
    precision = "bf16" if device == "cuda" else "fp32"
    loaded = large_model(classifier, shape, given.checkpoint, precision=precision, device=device)
    for prompt in PROMPTS.values():
        decoder = Decoder(loaded, prompt, batch_tokens=given.large_tokens)
        name = f"{shape.name} {prompt.name}"
        speed = large_speed(name, "forward", decoder, shape, texts)
        entered.add(speed, partial(decoder.classify, texts))


def _student(
    name: str, path: str, precision: str, rows: Sequence[Encoded], note: str = ""
) -> Speed:
    lengths = [len(row.ids) for row in rows]
    return Speed(
        name=name,
        kind="student",
        path=path,
        precision=precision,
        reviews=len(rows),
        tokens=sum(lengths),
        seconds=(),
        flops=sum(map(MINILM_L6.flops, lengths)) / len(lengths),
        note=note,
    )


def _synced(run: Callable[[], object], device: str) -> Callable[[], object]:
    """Wait for the GPU inside the timed span, because it answers before it has finished."""

    def synced() -> None:
        run()
        if device == "cuda":
            torch.cuda.synchronize()

    return synced


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--bundle", type=Path, required=True, help="the student, with fp16 on a GPU")
    add("--texts", type=Path, help="one review a line; without it, made-up ones of like length")
    add("--checkpoint", type=Path, help="folder of a real large model")
    add("--shape", default="8B", help="large model where there is no checkpoint")
    add("--reviews", type=int, default=32_768, help="reviews timed for the student")
    add("--large-reviews", type=int, default=512, help="reviews timed for the large model")
    add("--rounds", type=int, default=3, help="rounds of the race")
    add("--batch-tokens", type=int, default=32_768, help="tokens in one call of the student")
    add("--large-tokens", type=int, default=32_768, help="padded tokens in one call of the large")
    add("--callers", type=int, default=96, help="connections to the gRPC service")
    add("--workers", type=int, nargs="+", default=[1, 8, 12], help="processes of each server")
    default = RESULTS / "proof-gpu.json"
    add("--out", type=Path, default=default, help="JSON file to write")
    return parser


if __name__ == "__main__":
    main()
