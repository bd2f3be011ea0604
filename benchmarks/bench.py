"""Does a small fine-tuned model replace a large generic one, and what does it save? One run.

    python benchmarks/bench.py --bundle bundles/reference

The bound first: at equal efficiency the ratio of speeds is the ratio of operations a review, some
hundreds for a 0.5B shape and some thousands for 8B. Then the measurement: contestants take turns
on the same reviews. Writes benchmarks/results/proof-cpu.json; benchmarks/page.py makes the report
and the README's tables from that file and from nothing else.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec
from baselines import Predict, static_embeddings, tfidf
from contest import student_race
from duel import carried, duel, large_model, over_endpoint
from endpoint import Endpoint
from judging import cascade_points, qualities
from machine import commit, machine
from prompts import PROMPTS
from record import Machine, Proof, Ratio, Scaling, Speed, write_proof
from reviews import Review, sample
from scaling import (
    billion_a_day,
    by_callers,
    by_length,
    by_processes,
    by_rows,
    by_threads,
    by_training_rows,
)
from sentimill import Classifier
from settings import Settings, parse
from shapes import DECODERS

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write one JSON file."""
    settings = parse(argparse.ArgumentParser(description=__doc__), arguments)
    began = time.monotonic()
    here = machine()
    classifier = Classifier.load(settings.bundle)
    many = sample(settings.data, settings.reviews)
    rivals = _rivals(settings, classifier)
    _say(began, "the student's race")
    texts = [review.text for review in many]
    speeds = student_race(settings.bundle, texts, rivals, rounds=settings.rounds)
    _say(began, "quality and cascade")
    judged = tuple(qualities(settings, classifier, rivals))
    rate = _fastest(speeds).rate
    points = tuple(cascade_points(settings, classifier, rate))
    _say(began, "scaling")
    scaling = tuple(_scaling(settings, classifier, many, here, rate))
    _say(began, "the duel with the large model")
    dueled, ratios = _duel(settings, classifier, texts[: settings.large_reviews], here)
    proof = Proof(
        schema=1,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        commit=commit(),
        command=shlex.join(["benchmarks/bench.py", *(arguments or sys.argv[1:])]),
        minutes=(time.monotonic() - began) / 60,
        machine=here,
        settings={**settings.shown(), "bundle_digest": classifier.bundle.digest},
        speeds=(*speeds, *dueled),
        ratios=tuple(ratios),
        qualities=judged,
        cascade=points,
        scaling=scaling,
        missing=tuple(settings.missing()),
    )
    write_proof(proof, settings.out)
    _say(began, f"written: {settings.out}")


def _rivals(settings: Settings, classifier: Classifier) -> dict[str, Predict]:
    train = settings.training_rows()
    found = {"TF-IDF": tfidf(train)}
    static = static_embeddings(train, classifier)
    return found if static is None else {**found, "static embeddings": static}


def _duel(
    settings: Settings, classifier: Classifier, texts: Sequence[str], here: Machine
) -> tuple[list[Speed], list[Ratio]]:
    shape = DECODERS[settings.shape]
    loaded = large_model(classifier, shape, settings.checkpoint)
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
    settings: Settings,
    classifier: Classifier,
    many: Sequence[Review],
    here: Machine,
    rate: float,
) -> list[Scaling]:
    peak = here.matmul_flops["fp32"]
    each = settings.point_seconds
    texts = [review.text for review in many[:512]]
    size = sum(len(text.encode()) for text in texts) / len(texts)
    return [
        *by_length(classifier, peak, each),
        *by_rows(classifier, peak, each),
        *by_threads(settings.bundle, here.cores, peak, each),
        *by_processes(settings.bundle, here.cores, peak, each),
        *by_callers(settings.bundle, texts, (1, 2, 4, 8, 16, 32), each),
        *by_training_rows((10_000, 60_000, 250_000), each),
        *billion_a_day(
            rate, settings.usd_hour, utilisation=settings.utilisation, bytes_a_review=size
        ),
    ]


def _fastest(speeds: Sequence[Speed]) -> Speed:
    """Return the student's fastest way that takes text: what a job would use."""
    whole = [s for s in speeds if s.kind == "student" and s.path in {"classify", "score"}]
    return max(whole, key=lambda speed: speed.rate)


def _say(began: float, what: str) -> None:
    sys.stderr.write(f"{(time.monotonic() - began) / 60:5.1f} min  {what}\n")


if __name__ == "__main__":
    main()
