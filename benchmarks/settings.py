"""What a run may be told: which bundle, which reviews, how many, how often."""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from reviews import QUALITY_SETS, SPEED_SETS, Review, load, teacher_rows

__all__ = ["Settings", "parse"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One run's settings; the defaults take about 25 minutes on two cores.

    reviews: timed for students and baselines; large_reviews: for the large model, which is slow.
    rounds: of each race. shape: of the large model where there is no checkpoint. teacher_parts:
    reading parts of the teacher's labels that the student was trained without. training_cap: rows
    a set that the baselines learn from. judged_cap: rows a set that are judged. point_seconds: how
    long each point of the scaling section is timed.
    """

    bundle: Path
    data: Path
    pseudo: Path
    out: Path
    reviews: int
    large_reviews: int
    rounds: int
    shape: str
    checkpoint: Path | None
    endpoint: str | None
    endpoint_model: str
    teacher_parts: tuple[int, ...]
    training_cap: int
    judged_cap: int
    point_seconds: float
    usd_hour: float
    utilisation: float

    def shown(self) -> dict[str, str | int | float | bool | None]:
        """Return the settings for the record, folders by their names alone."""
        found: dict[str, str | int | float | bool | None] = {}
        for name, value in asdict(self).items():
            if isinstance(value, Path):
                found[name] = value.name
            elif isinstance(value, tuple):
                found[name] = " ".join(map(str, value))
            else:
                found[name] = value
        return found

    def training_rows(self) -> list[Review]:
        """Draw the baselines' rows from train splits, without the rows that are judged."""
        held = self._held_out()
        draw = random.Random(0)
        found: list[Review] = []
        for dataset in sorted({*QUALITY_SETS, *SPEED_SETS}):
            rows = [row for row in load(self.data, dataset, "train") if row.id not in held]
            found += draw.sample(rows, min(len(rows), self.training_cap))
        return found

    def missing(self) -> Iterator[str]:
        """Say what this run does not measure."""
        yield "GPU: `make bench-gpu` measures it on a GPU machine"
        if self.checkpoint is None:
            yield (
                f"quality of the large model that is timed: its {self.shape} weights are random;"
                " the teacher's labels stand for a frontier model's quality"
            )
        if self.endpoint is None:
            yield "a hosted or local endpoint: none was given with --endpoint"

    def _held_out(self) -> set[str]:
        parts = frozenset(self.teacher_parts)
        return {row.id for row in teacher_rows(self.data, self.pseudo, parts)}


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> Settings:
    """Read the command line."""
    results = Path(__file__).parent / "results"
    shared = Path(__file__).parents[2] / "shared"
    add = parser.add_argument
    add("--bundle", type=Path, required=True, help="the student")
    add("--data", type=Path, default=shared / "data", help="folder of review sets")
    add("--pseudo", type=Path, default=shared / "pseudo" / "frontier-labels.jsonl")
    add("--out", type=Path, default=results / "proof-cpu.json", help="JSON file to write")
    add("--reviews", type=int, default=2000, help="reviews timed for the student")
    add("--large-reviews", type=int, default=24, help="reviews timed for the large model")
    add("--rounds", type=int, default=6, help="rounds of each race")
    add("--shape", default="0.5B", help="large model where there is no checkpoint")
    add("--checkpoint", type=Path, help="folder of a real large model")
    add("--endpoint", help="OpenAI-compatible base URL up to /v1")
    add("--endpoint-model", default="", help="model name at that endpoint")
    add("--teacher-parts", type=int, nargs="+", default=[7, 8], help="held out from the student")
    add("--training-cap", type=int, default=4000, help="rows a set for the baselines")
    add("--judged-cap", type=int, default=1000, help="rows a set that are judged")
    add("--point-seconds", type=float, default=1.0, help="time of one scaling point")
    add("--usd-hour", type=float, default=0.08925, help="price of this machine")
    add("--utilisation", type=float, default=0.5, help="of the measured rate that a job keeps")
    given = vars(parser.parse_args(arguments))
    given["teacher_parts"] = tuple(given["teacher_parts"])
    return Settings(**given)
