"""What the server counts, and the port that shows it."""

from __future__ import annotations

import re
import socket
import urllib.request

import pytest
from prometheus_client import Metric
from sentimill.errors import UsageError
from sentimill.metrics import Metrics, MetricsPort

BASE_UNITS = ("seconds", "tokens", "texts", "rows", "requests", "failures")
# Every value that each label may have is known before the first request.
LABELS = {
    "sentimill_requests": {"method", "code"},
    "sentimill_request_seconds": {"method"},
    "sentimill_texts": {"outcome"},
    "sentimill_refused_requests": {"reason"},
    "sentimill_model": {"name", "version", "digest", "precision", "provider"},
}


def ours() -> list[Metric]:
    """Return the families that Sentimill defines, each with a sample where it has labels."""
    metrics = Metrics()
    metrics.requests.labels("Classify", "OK")
    metrics.request_seconds.labels("Classify")
    metrics.texts.labels("positive")
    metrics.refused.labels("QUEUE_FULL")
    metrics.model.info(dict.fromkeys(LABELS["sentimill_model"], "x"))
    families = metrics.registry.collect()
    return [found for found in families if not found.name.startswith(("process_", "python_"))]


@pytest.mark.parametrize("family", ours(), ids=lambda family: family.name)
def test_a_name_has_our_prefix_and_a_base_unit(family: Metric) -> None:
    """A reader of a dashboard needs no second page to know what a number is."""
    assert re.fullmatch(r"sentimill_[a-z_]+", family.name)
    assert family.type == "info" or family.name.endswith(BASE_UNITS)
    assert family.documentation.endswith(".")


@pytest.mark.parametrize("family", ours(), ids=lambda family: family.name)
def test_labels_are_those_of_small_known_size(family: Metric) -> None:
    """No label holds a text, an address or anything else that callers choose."""
    labels = {name for sample in family.samples for name in sample.labels} - {"le"}

    assert labels == LABELS.get(family.name, set())


@pytest.mark.parametrize("family", ours(), ids=lambda family: family.name)
def test_buckets_are_few_and_rise(family: Metric) -> None:
    """A histogram costs a series a bucket."""
    edges = [
        float(sample.labels["le"])
        for sample in family.samples
        if sample.name.endswith("_bucket") and sample.labels.get("method", "Classify")
    ]

    assert edges == sorted(set(edges))
    assert len(edges) <= 20


def test_two_servers_in_one_process_do_not_share_counts() -> None:
    """There is no global registry behind the metrics."""
    one, two = Metrics(), Metrics()
    one.truncated_texts.inc()

    assert one.registry.get_sample_value("sentimill_truncated_texts_total") == 1
    assert two.registry.get_sample_value("sentimill_truncated_texts_total") == 0


def test_a_batch_is_counted_in_rows_tokens_and_seconds() -> None:
    """Useful over padded tokens is the useful share."""
    metrics = Metrics()

    metrics.observe_batch(rows=3, useful=20, padded=30, seconds=0.5)

    value = metrics.registry.get_sample_value
    assert value("sentimill_batch_rows_sum") == 3
    assert value("sentimill_useful_tokens_total") == 20
    assert value("sentimill_padded_tokens_total") == 30
    assert value("sentimill_engine_seconds_sum") == 0.5


def test_the_port_shows_the_metrics_until_it_is_closed() -> None:
    """A free port is taken, answers, and is free again afterwards."""
    port = MetricsPort(Metrics(), "127.0.0.1", 0)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port.port}/metrics", timeout=10) as page:
            text = page.read().decode()
    finally:
        port.close()

    assert "sentimill_waiting_texts 0.0" in text
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port.port), timeout=10)


def test_a_busy_port_is_a_usage_error() -> None:
    """The message names the port and the option."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        with pytest.raises(UsageError, match=f"127.0.0.1:{port} cannot be opened .*--metrics-port"):
            MetricsPort(Metrics(), "127.0.0.1", port)
