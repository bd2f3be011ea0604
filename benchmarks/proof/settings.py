"""The options of a run: which bundle, which reviews, how many, how often."""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

from benchmarks.proof.reviews import QUALITY_SETS, SPEED_SETS, load
from benchmarks.record import RESULTS
from sentimill.bundle.reference import reference_bundle
from sentimill_train.data.schema import Example

_QUICK: Final[dict[str, Any]] = {
    "reviews": 16,
    "large_reviews": 3,
    "rounds": 2,
    "shape": "tiny",
    "training": 20,
    "judged": 12,
    "point_seconds": 0.01,
}
"""For a test, and to see that all is there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of one run. The defaults take about 25 minutes on two cores.

    more: other bundles of the same student, such as its fp32. reviews: how many are timed for
    students and baselines; large_reviews: how many for the large model, which is slow. rounds: the
    rounds of each race. shape: the large model's shape where there is no checkpoint. teacher_set:
    the set with a teacher's labels from which the student learnt nothing. training: how many rows
    of each set the baselines learn from. judged: how many rows of each set are judged.
    point_seconds: how long each point of the scaling section is timed. usd_hour: the price of a
    machine like this one.
    """

    bundle: Path
    more: tuple[Path, ...]
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
    teacher_set: str
    training: int
    judged: int
    point_seconds: float
    usd_hour: float
    utilisation: float

    def shown(self) -> dict[str, str | int | float | bool | None]:
        """Return the settings for the record, with the names of folders in place of their paths."""
        found: dict[str, str | int | float | bool | None] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, tuple):
                value = " ".join(path.name for path in value)
            found[field.name] = value.name if isinstance(value, Path) else value
        return found

    def rows_of(self, split: str) -> list[Example]:
        """Draw the baselines' rows from one split of every set."""
        draw = random.Random(0)
        found: list[Example] = []
        for dataset in sorted({*QUALITY_SETS, *SPEED_SETS}):
            rows = load(self.data, dataset, split)
            found += draw.sample(rows, min(len(rows), self.training))
        return found

    def missing(self) -> Iterator[str]:
        """Say what this run does not measure."""
        yield "a GPU: `make bench-gpu` measures it on a GPU machine"
        if self.checkpoint is None:
            yield (
                f"quality of the large model that is timed: its {self.shape} weights are random;"
                " the teacher's labels stand for a frontier model's quality"
            )
        if self.endpoint is None:
            yield "a hosted or local endpoint: none was given with --endpoint"


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> Settings:
    """Read the command line."""
    add = parser.add_argument
    add("--bundle", type=Path, help="the student; the reference student where none is named")
    add("--more", type=Path, nargs="*", default=[], help="its other bundles, such as fp32")
    add("--data", type=Path, required=True, help="folder of review sets")
    add("--pseudo", type=Path, required=True, help="JSON lines of a teacher's shares")
    default = RESULTS / "proof-cpu.json"
    add("--out", type=Path, default=default, help="JSON file to write")
    add("--reviews", type=int, default=400, help="reviews timed for the student")
    add("--large-reviews", type=int, default=12, help="reviews timed for the large model")
    add("--rounds", type=int, default=6, help="rounds of each race")
    add("--shape", default="0.5B", help="large model where there is no checkpoint")
    add("--checkpoint", type=Path, help="folder of a real large model")
    add("--endpoint", help="OpenAI-compatible base URL up to /v1")
    add("--endpoint-model", default="", help="model name at that endpoint")
    add("--teacher-set", default="yelp_augpe", help="set with a teacher's labels, not learnt")
    add("--training", type=int, default=2000, help="rows a set for the baselines")
    add("--judged", type=int, default=500, help="rows a set that are judged")
    add("--point-seconds", type=float, default=1.0, help="time of one scaling point")
    add("--usd-hour", type=float, default=0.1027, help="price of a machine like this one")
    add("--utilisation", type=float, default=0.5, help="of the measured rate that a job keeps")
    add("--quick", action="store_true", help="tiny sizes: to see that it runs, for no figure")
    given = vars(parser.parse_args(arguments))
    if given.pop("quick"):
        given |= _QUICK
    given["more"] = tuple(given["more"])
    given["bundle"] = given["bundle"] or reference_bundle()
    return Settings(**given)
