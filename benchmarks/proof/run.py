"""Can a small fine-tuned model replace a large generic one, and what does it save? One run.

    python -m benchmarks.proof.run --data DIR --pseudo FILE [--quick]

The bound: at equal efficiency the ratio of speeds is the ratio of operations a review: about 44 for
a 0.5B shape and about 850 for 8B. The measurement: contestants take turns on the same reviews.
Writes results/proof-cpu.json. `readme_tables.py` makes the report, the README's tables and the rate
of `sentimill cost` from that file alone.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from benchmarks.proof.contest import student_race
from benchmarks.proof.duel import carried, duel, large_model, over_endpoint
from benchmarks.proof.endpoint import Endpoint
from benchmarks.proof.judging import cascade_points, qualities
from benchmarks.proof.machine import fastest_dtype, machine
from benchmarks.proof.prompts import PROMPTS
from benchmarks.proof.record import Machine, Proof, Ratio, Scaling, Speed, write_proof
from benchmarks.proof.reviews import sample
from benchmarks.proof.rivals import fit_rivals
from benchmarks.proof.scaling import (
    billion_a_day,
    by_callers,
    by_length,
    by_processes,
    by_rows,
    by_threads,
    by_training_rows,
)
from benchmarks.proof.settings import Settings, parse
from benchmarks.proof.shapes import DECODERS
from sentimill import Classifier
from sentimill.engine.hardware import usable_cores


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write one JSON file."""
    settings = parse(argparse.ArgumentParser(description=__doc__), arguments)
    began = time.monotonic()
    here = machine()
    classifier = Classifier.load(settings.bundle)
    texts = sample(settings.data, settings.reviews)
    _say(began, "the baselines learn")
    rivals = fit_rivals(classifier, settings.rows_of("train"), settings.rows_of("validation"))
    _say(began, "the student's race")
    speeds = student_race([settings.bundle, *settings.more], texts, rivals, rounds=settings.rounds)
    rate = max(s.rate for s in speeds if s.path in {"classify", "score"} and s.kind == "student")
    _say(began, "quality and cascade")
    judged, kept = qualities(settings, classifier, rivals)
    points = cascade_points(settings, classifier, rate)
    _say(began, "scaling")
    scaling = tuple(_scaling(settings, classifier, texts, here, rate))
    _say(began, "the duel with the large model")
    dueled, ratios = _duel(settings, classifier, texts[: settings.large_reviews], here)
    proof = Proof(
        command=shlex.join(["benchmarks/proof/run.py", *_public(arguments or sys.argv[1:])]),
        minutes=(time.monotonic() - began) / 60,
        machine=here,
        settings={**settings.shown(), "bundle_digest": classifier.bundle.digest},
        speeds=(*speeds, *dueled),
        ratios=tuple(ratios),
        qualities=tuple(judged),
        retained=kept,
        cascade=tuple(points),
        scaling=scaling,
        missing=tuple(settings.missing()),
    )
    write_proof(proof, settings.out)
    _say(began, f"written: {settings.out}")


def _public(arguments: Sequence[str]) -> list[str]:
    """Replace the folders of this machine by their names."""
    return [Path(one).name if "/" in one and "://" not in one else one for one in arguments]


def _duel(
    settings: Settings, classifier: Classifier, texts: Sequence[str], here: Machine
) -> tuple[list[Speed], list[Ratio]]:
    shape = DECODERS[settings.shape]
    loaded = large_model(classifier, shape, settings.checkpoint, precision=fastest_dtype(here))
    speeds, ratios = duel(classifier, loaded, shape, texts, rounds=settings.rounds)
    student, *larges = speeds
    for large in larges:
        ratios += carried(student, large, shape, DECODERS["8B"], here)
    if settings.endpoint is not None:
        for prompt in PROMPTS.values():
            asked = Endpoint(url=settings.endpoint, model=settings.endpoint_model, prompt=prompt)
            speed = over_endpoint(asked, texts, rounds=settings.rounds)
            speeds.append(msgspec.structs.replace(speed, name=f"{speed.name} {prompt.name}"))
    return speeds, ratios


def _scaling(
    settings: Settings, classifier: Classifier, texts: Sequence[str], here: Machine, rate: float
) -> list[Scaling]:
    peak, cores = here.matmul_flops["fp32"], usable_cores()
    each = settings.point_seconds
    size = sum(len(text.encode()) for text in texts) / len(texts)
    return [
        *by_length(classifier, peak, each),
        *by_rows(classifier, peak, each),
        *by_threads(settings.bundle, cores, peak, each),
        *by_processes(settings.bundle, cores, peak, each),
        *by_callers(settings.bundle, texts[:256], (1, 2, 4, 8, 16), each),
        *by_training_rows((10_000, 100_000, 1_000_000), each),
        *billion_a_day(
            rate, settings.usd_hour, utilisation=settings.utilisation, bytes_a_review=size
        ),
    ]


def _say(began: float, what: str) -> None:
    sys.stderr.write(f"{(time.monotonic() - began) / 60:5.1f} min  {what}\n")


if __name__ == "__main__":
    main()
