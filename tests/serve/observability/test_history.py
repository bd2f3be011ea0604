"""The last minutes of a server: samples, rates, percentiles, drift."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentimill.observability.history import KEPT, History, Sample, population_stability, quantile
from sentimill.observability.metrics import SECONDS, Metrics

BUCKETS = len(SECONDS) + 1


def test_a_sample_has_what_was_counted() -> None:
    """Sums over labels that do not matter here; buckets of calls that are waited for."""
    metrics = Metrics()
    metrics.observe_request("Classify", "OK", 0.002)
    metrics.observe_request("ClassifyStream", "OK", 0.002)
    metrics.observe_request("Classify", "UNAVAILABLE", 99.0)
    metrics.observe_request("ModelInfer", "OK", 0.002)
    for method in ("GetModel", "ModelReady", "ClassifyBulk", "ClassifyStreamBulk"):
        metrics.observe_request(method, "OK", 0.002)
    metrics.waiting_texts.set(7)

    sample = Sample.take(1.0, metrics)

    assert sample.at == 1.0
    assert sample.values["sentimill_waiting_texts"] == 7
    assert sample.by_label["sentimill_requests_total"] == {"OK": 7, "UNAVAILABLE": 1}
    assert sample.buckets[SECONDS.index(0.0025)] == 3
    assert sample.buckets[-1] == 1
    assert sum(sample.buckets) == 4
    assert sample.timed == {"OK": 3, "UNAVAILABLE": 1}
    assert sample.objective[SECONDS.index(0.0025)] == 1
    assert sample.objective[-1] == 2


def sample(at: float) -> Sample:
    """Return a sample with nothing in it."""
    return Sample(at, {}, {}, (), {}, ())


def test_old_samples_are_forgotten() -> None:
    """Memory is bounded however long a server runs."""
    history = History()
    for at in range(KEPT + 50):
        history.add(sample(at))

    assert len(history.samples) == KEPT
    assert history.samples[0].at == 50


@pytest.mark.parametrize(
    ("times", "seconds", "expected"),
    [
        ([0], 60, None),
        ([0, 2], 60, (0, 2)),
        ([0, 2, 100], 60, (2, 100)),
        ([0, 40, 80, 100], 60, (40, 100)),
        ([0, 40, 80, 100], math.inf, (0, 100)),
    ],
)
def test_a_span_is_from_the_oldest_sample_in_it(
    times: list[float], seconds: float, expected: tuple[float, float] | None
) -> None:
    """After a pause the gap before the newest sample is all that can be told."""
    history = History()
    for at in times:
        history.add(sample(at))

    found = history.since(seconds)

    assert (found and (found[0].at, found[1].at)) == expected


def counts(**by_edge: float) -> list[float]:
    """Return counts by bucket, given as e_<place>=count."""
    made = [0.0] * BUCKETS
    for name, count in by_edge.items():
        made[int(name.removeprefix("e_"))] = count
    return made


@pytest.mark.parametrize(
    ("q", "made", "expected"),
    [
        (0.5, counts(), None),
        (0.5, counts(e_0=10), 0.0005),
        (1.0, counts(e_0=10), 0.001),
        (0.5, counts(e_0=5, e_8=5), 0.001),
        (0.75, counts(e_0=5, e_8=5), 0.375),
        (0.99, counts(e_14=1), 30.0),
    ],
)
def test_a_percentile_is_linear_inside_its_bucket(
    q: float, made: list[float], expected: float | None
) -> None:
    """As Prometheus counts it, so that page and dashboard agree."""
    assert quantile(q, made) == (None if expected is None else pytest.approx(expected))


@given(st.lists(st.integers(0, 1000), min_size=BUCKETS, max_size=BUCKETS).filter(any))
def test_percentiles_rise(made: list[int]) -> None:
    """The 99th is never quicker than the median, and both are inside the buckets."""
    found = [quantile(q, made) for q in (0.01, 0.5, 0.95, 0.99)]
    known = [each for each in found if each is not None]

    assert len(known) == 4
    assert known == sorted(known)
    assert known[0] >= 0
    assert known[-1] <= SECONDS[-1]


@pytest.mark.parametrize(
    ("counted", "expected"),
    [
        ({}, 0.0),
        ({"a": 50, "b": 50}, 0.0),
        ({"a": 50, "b": 50, "EMPTY_TEXT": 900}, 0.0),
        ({"a": 75, "b": 25}, 0.25 * math.log(1.5) - 0.25 * math.log(0.5)),
        ({"b": 100}, -0.499 * math.log(0.002) + 0.5 * math.log(2)),
    ],
)
def test_drift_is_the_population_stability_index(
    counted: dict[str, float], expected: float
) -> None:
    """Errors are no label, no traffic is no drift, and a label that vanished is a finite shift."""
    assert population_stability({"a": 0.5, "b": 0.5}, counted) == pytest.approx(expected)
