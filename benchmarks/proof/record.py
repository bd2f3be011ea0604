"""What a run records: the raw samples, with the machine, the commit and the settings.

Every figure in the report and in the README is computed from these records alone.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Final, TypeAlias

import msgspec

from sentimill_train.metrics.intervals import Figure

BY_LENGTH: Final = "tokens a review"
"""An axis of `Scaling`."""

Around: TypeAlias = dict[str, str | int | float | list[str] | None]
"""What `record.surroundings` says."""


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """The machine of a run. around: the facts of `record.surroundings`, and a few more.

    matmul_flops: floating-point operations a second, by precision, measured on the product of two
    large square matrices in torch. It is the practical ceiling of everything here.
    """

    around: Around
    gpu: str | None
    matmul_flops: dict[str, float]

    @property
    def name(self) -> str:
        """The name of the GPU, or of the processor with its cores."""
        return self.gpu or f"{self.around['cores']} cores of {self.around['cpu']}"


class Speed(msgspec.Struct, frozen=True, kw_only=True):
    """The timings of one contestant.

    kind: student, large or baseline. path: forward, engine, classify, grpc, score, endpoint, duel.
    reviews: their number in one round. tokens: the number computed for them. prompt_tokens: those
    of the instruction, which are kept in the KV cache. seconds: one entry a round; the contestants
    take turns. flops: operations a review, by formula. weights_mib: the memory of the model.
    peak_mib: the peak of the process so far, with every contestant before. joules: energy a review,
    where the machine shows it. random_weights: the speed is real and the answers mean nothing.
    """

    name: str
    kind: str
    path: str
    precision: str
    reviews: int
    tokens: int
    seconds: tuple[float, ...]
    prompt_tokens: int = 0
    flops: float | None = None
    weights_mib: float | None = None
    peak_mib: float | None = None
    joules: float | None = None
    random_weights: bool = False
    note: str = ""

    @property
    def rate(self) -> float:
        """Reviews a second, the median of the rounds."""
        return self.reviews / statistics.median(self.seconds)

    @property
    def rates(self) -> tuple[float, ...]:
        """Reviews a second, round by round."""
        return tuple(self.reviews / seconds for seconds in self.seconds)

    @property
    def token_rate(self) -> float:
        """Computed tokens a second, the median of the rounds."""
        return self.tokens / statistics.median(self.seconds)


class Ratio(msgspec.Struct, frozen=True, kw_only=True):
    """How many times faster *student* is than *large*, round against round.

    halves: the ratio of the medians in the first and in the second half of the rounds, which show
    whether it repeats. basis: `measured`, or how it was estimated for another shape.
    """

    student: str
    large: str
    basis: str
    value: float
    low: float
    high: float
    halves: tuple[float, float]

    @property
    def repeats(self) -> bool:
        """Whether the two halves are within 10 % of one another."""
        return max(self.halves) <= 1.1 * min(self.halves)


class Quality(msgspec.Struct, frozen=True, kw_only=True):
    """Agreement of one model with one set's labels. classes: 2 leaves neutral rows out."""

    name: str
    dataset: str
    classes: int
    accuracy: Figure


class CascadePoint(msgspec.Struct, frozen=True, kw_only=True):
    """One threshold. handed_over: the share of reviews that the large model answers, 0 to 1.

    accuracy: on the rows that the threshold was not chosen on.
    """

    threshold: float
    handed_over: float
    accuracy: Figure
    usd_million: float
    best: bool = False


class Scaling(msgspec.Struct, frozen=True, kw_only=True):
    """Throughput over one quantity. bound: the reviews a second that the matrix rate allows."""

    axis: str
    value: float
    reviews_per_second: float
    bound: float | None = None
    note: str = ""


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """One run. retained: the student's share of the teacher's two-class accuracy, on the same rows.

    missing: what could not be measured here, and why.
    """

    command: str
    minutes: float
    machine: Machine
    settings: dict[str, str | int | float | bool | None]
    speeds: tuple[Speed, ...]
    ratios: tuple[Ratio, ...]
    qualities: tuple[Quality, ...] = ()
    retained: Figure | None = None
    cascade: tuple[CascadePoint, ...] = ()
    scaling: tuple[Scaling, ...] = ()
    missing: tuple[str, ...] = ()


def write_proof(proof: Proof, path: Path) -> None:
    """Write a run as JSON that people can read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(proof), indent=1) + b"\n")


def read_proof(path: Path) -> Proof:
    """Read a run; raises msgspec.ValidationError for a file of another shape."""
    return msgspec.json.decode(path.read_bytes(), type=Proof)
