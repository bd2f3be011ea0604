"""The metrics of several processes, added up."""

from __future__ import annotations

import msgspec
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import generate_latest

from sentimill.observability.metrics import Metrics
from sentimill.observability.metrics_aggregation import (
    AggregatedMetrics,
    Family,
    lasting,
    merged,
    snapshot,
    total,
)

MIX = {"negative": 0.25, "positive": 0.75}
FACTS = {"name": "tiny", "digest": "d"}
TRACE = "0af7651916cd43dd8448eb211c80319c"


def counted(calls: int, *, waiting: int = 0, trace: str | None = None) -> Metrics:
    """Return the metrics of a worker that answered *calls*."""
    metrics = Metrics()
    metrics.set_model(FACTS, tuple(MIX), MIX)
    metrics.waiting_texts.set(waiting)
    for _ in range(calls):
        metrics.observe_request("Classify", "OK", 0.002, trace)
        metrics.observe_batch(2, 10, 12, 0.003, 0.003)
    return metrics


def sent(metrics: Metrics) -> list[Family]:
    """Return a snapshot as it arrives at the other end of a pipe."""
    data = msgspec.msgpack.encode(snapshot(metrics.registry))
    return msgspec.msgpack.decode(data, type=list[Family])


def shown(*members: list[Family]) -> CollectorRegistry:
    """Return a registry that shows the sum."""
    return AggregatedMetrics(lambda: merged(members)).registry


def test_what_is_counted_adds_up() -> None:
    """Counters, histograms bucket by bucket, and gauges of what waits."""
    made = shown(snapshot(Metrics().registry), sent(counted(3, waiting=2)), sent(counted(4)))
    value = made.get_sample_value

    assert value("sentimill_requests_total", {"method": "Classify", "code": "OK"}) == 7
    assert value("sentimill_request_seconds_bucket", {"method": "Classify", "le": "0.001"}) == 0
    assert value("sentimill_request_seconds_bucket", {"method": "Classify", "le": "0.0025"}) == 7
    assert value("sentimill_batch_rows_bucket", {"le": "2.0"}) == 7
    assert value("sentimill_engine_seconds_sum") == pytest.approx(0.021)
    assert value("sentimill_waiting_texts") == 2


def test_what_is_the_same_in_all_is_shown_once() -> None:
    """The model and its mix of labels; a parent that has none is passed over."""
    made = shown(snapshot(Metrics().registry), sent(counted(1)), sent(counted(1)))

    assert made.get_sample_value("sentimill_model_info", FACTS) == 1
    assert made.get_sample_value("sentimill_model_info", {}) is None
    assert made.get_sample_value("sentimill_reference_label_ratio", {"outcome": "positive"}) == 0.75
    assert made.get_sample_value("python_info", _python(made)) == 1


def _python(registry: CollectorRegistry) -> dict[str, str]:
    (family,) = [family for family in registry.collect() if family.name == "python_info"]
    (sample,) = family.samples
    return sample.labels


def test_the_first_has_the_last_word_on_readiness() -> None:
    """It knows the others; what they say of themselves is no sum."""
    parent, worker = Metrics(), counted(1)
    worker.ready.set(1)

    made = shown(snapshot(parent.registry), sent(worker), sent(worker))

    assert made.get_sample_value("sentimill_ready") == 0


def test_counts_outlast_their_process_and_gauges_do_not() -> None:
    """Nothing that Prometheus takes for ever growing falls when a worker dies."""
    last = lasting(sent(counted(3, waiting=2)))
    made = shown(snapshot(Metrics().registry), last, sent(counted(1)))

    assert total(last, "sentimill_requests_total") == 3
    assert made.get_sample_value("sentimill_batch_rows_count") == 4
    assert made.get_sample_value("sentimill_waiting_texts") == 0


def test_the_sum_is_valid_openmetrics_with_its_exemplars() -> None:
    """A caller's trace comes through the pipe."""
    made = shown(snapshot(Metrics().registry), sent(counted(1)), sent(counted(1, trace=TRACE)))

    page = generate_latest(made).decode()  # type: ignore[no-untyped-call] # it has no annotations
    assert page.count(TRACE) == 1
    assert page.endswith("# EOF\n")


def test_one_worker_whose_reload_failed_is_enough() -> None:
    """The others may have the new bundle; the server as a whole has not."""
    parent, good, bad = Metrics(), counted(1), counted(1)
    bad.observe_reload(ok=False)

    made = shown(snapshot(parent.registry), sent(good), sent(bad))

    assert made.get_sample_value("sentimill_last_reload_successful") == 0
