"""Times the student and the large model in turns, in one run, on the same machine and reviews."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import msgspec
import torch
from tokenizers import Tokenizer

from benchmarks.proof.decoder import Decoder, Encode, Loaded, load_checkpoint, make_random
from benchmarks.proof.endpoint import Endpoint
from benchmarks.proof.machine import energy_joules
from benchmarks.proof.prompts import PROMPTS
from benchmarks.proof.race import race, ratio_of
from benchmarks.proof.record import Machine, Ratio, Speed
from benchmarks.proof.shapes import MINILM_L6, DecoderShape
from benchmarks.record import peak_mib
from sentimill import Classifier, Prediction

_STUDENT_SECONDS = 1.0
"""A round of the student repeats the same call for about so long, to be measurable."""


def large_model(
    classifier: Classifier,
    shape: DecoderShape,
    checkpoint: Path | None,
    *,
    precision: str,
    device: str = "cpu",
) -> Loaded:
    """Load the checkpoint, or build the shape with random weights. precision: fp32 or bf16.

    A model with random weights gets the student's tokenizer, because its own is not available here.
    Only the number of tokens matters for its speed, and the report gives that number.
    """
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    if checkpoint is not None:
        return load_checkpoint(checkpoint, dtype=dtype, device=device)
    return make_random(shape, _wordpiece(classifier), dtype=dtype, device=device)


def duel(
    classifier: Classifier,
    loaded: Loaded,
    shape: DecoderShape,
    texts: Sequence[str],
    *,
    rounds: int,
) -> tuple[list[Speed], list[Ratio]]:
    """Race the student against every prompt of the large model on *texts*."""
    decoders = {name: Decoder(loaded, prompt) for name, prompt in PROMPTS.items()}
    repeats = _repeats(classifier, texts)

    def student() -> None:
        for _ in range(repeats):
            classifier.classify(texts)

    runs: dict[str, Callable[[], object]] = {"student": student}
    for name, decoder in decoders.items():
        runs[name] = partial(decoder.classify, texts)
    before = energy_joules()
    seconds = race(runs, rounds=rounds)
    after = energy_joules()
    tokens = [
        answer.tokens for answer in classifier.classify(texts) if isinstance(answer, Prediction)
    ]
    one = Speed(
        name=f"student {classifier.precision}",
        kind="student",
        path="duel",
        precision=classifier.precision,
        reviews=len(texts) * repeats,
        tokens=sum(tokens) * repeats,
        seconds=tuple(seconds["student"]),
        flops=sum(map(MINILM_L6.flops, tokens)) / len(tokens),
        note=f"the same {len(texts)} reviews, {repeats} times a round",
    )
    larges = [
        msgspec.structs.replace(
            large_speed(f"{shape.name} {name}", "duel", decoder, shape, texts),
            seconds=tuple(seconds[name]),
            peak_mib=peak_mib(),
            note="instruction cached, one forward pass, label token's log-probabilities",
        )
        for name, decoder in decoders.items()
    ]
    if before is not None and after is not None:
        # The counter covers the whole race. The large model gets its share by time.
        share = {name: sum(s) / sum(map(sum, seconds.values())) for name, s in seconds.items()}
        larges = [
            msgspec.structs.replace(
                large,
                joules=(after - before) * share[name] / (len(texts) * (rounds + 1)),
            )
            for large, name in zip(larges, decoders, strict=True)
        ]
    return [one, *larges], [ratio_of(one, large) for large in larges]


def carried(
    student: Speed, large: Speed, shape: DecoderShape, to: DecoderShape, here: Machine
) -> Iterator[Ratio]:
    """Estimate the ratio of a bigger shape from a measured one, in two ways.

    By operations: the bigger shape is as efficient as the smaller one. At the machine's whole
    matrix rate: the bigger shape loses nothing at all, which no real run achieves, and the student
    keeps its measured rate.
    """
    cached = large.prompt_tokens
    tokens = large.tokens / large.reviews
    factor = _mean_flops(to, cached, tokens) / _mean_flops(shape, cached, tokens)
    name = large.name.replace(shape.name, to.name)
    bigger = msgspec.structs.replace(large, name=name)
    basis = f"by operations, {factor:.1f} times those of {shape.name}"
    yield ratio_of(student, bigger, factor=factor, basis=basis)
    peak = here.matmul_flops[large.precision] / _mean_flops(to, cached, tokens)
    perfect = tuple(bigger.reviews / peak for _ in bigger.seconds)
    at_peak = msgspec.structs.replace(bigger, seconds=perfect)
    yield ratio_of(student, at_peak, basis=f"at the whole {large.precision} matrix rate")


def over_endpoint(endpoint: Endpoint, texts: Sequence[str], *, rounds: int) -> Speed:
    """Time an endpoint. Its tokens are counted in words, because its tokenizer is not known."""
    seconds = race({"endpoint": lambda: endpoint.classify(texts)}, rounds=rounds)["endpoint"]
    return Speed(
        name=f"endpoint {endpoint.model}",
        kind="large",
        path="endpoint",
        precision="unknown",
        reviews=len(texts),
        tokens=sum(len(text.split()) for text in texts),
        seconds=tuple(seconds),
        note=f"{endpoint.callers} requests at once; tokens are words",
    )


def large_speed(
    name: str, path: str, decoder: Decoder, shape: DecoderShape, texts: Sequence[str]
) -> Speed:
    """Return the record of the large model before it has run, so without any seconds."""
    rows = decoder.rows(texts)
    cached = decoder.cached_tokens
    return Speed(
        name=name,
        kind="large",
        path=path,
        precision=decoder.precision,
        reviews=len(texts),
        tokens=sum(map(len, rows)),
        prompt_tokens=cached,
        seconds=(),
        flops=sum(shape.flops(cached=cached, tokens=len(row)) for row in rows) / len(rows),
        weights_mib=decoder.weights_mib(),
        random_weights=decoder.random,
    )


def _mean_flops(shape: DecoderShape, cached: int, tokens: float) -> float:
    return shape.flops(cached=cached, tokens=round(tokens))


def _repeats(classifier: Classifier, texts: Sequence[str]) -> int:
    classifier.classify(texts)
    seconds = race({"once": lambda: classifier.classify(texts)}, rounds=1)["once"][0]
    return max(1, round(_STUDENT_SECONDS / seconds))


def _wordpiece(classifier: Classifier) -> Encode:
    tokenizer = Tokenizer.from_buffer(classifier.bundle.read("tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def encode(text: str) -> list[int]:
        ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    return encode
