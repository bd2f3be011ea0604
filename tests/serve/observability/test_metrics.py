"""What the server counts."""

from __future__ import annotations

import re
from pathlib import Path

import grpc
import pytest
from prometheus_client import CollectorRegistry, Histogram, Metric
from prometheus_client.exposition import choose_encoder

from live_server import live_service
from metric_families import LABELS, SERIES, answer, full
from sentimill.errors import TextError
from sentimill.observability.metrics import (
    OBJECTIVE_SECONDS,
    SECONDS,
    Metrics,
    UnlockedHistogram,
    WorkerMetrics,
)
from sentimill.server.access.auth import TokenAuth, new_token

BASE_UNITS = (
    "seconds",
    "tokens",
    "texts",
    "rows",
    "requests",
    "failures",
    "ratio",
    "batches",
    "restarts",
)
WITHOUT_UNIT = ("sentimill_ready", "sentimill_reloads", "sentimill_last_reload_successful")
"""Events, and states that are 0 or 1."""


def ours() -> list[Metric]:
    """Return the families that Sentimill defines, each with a sample where it has labels."""
    families = full().registry.collect()
    return [found for found in families if not found.name.startswith(("process_", "python_"))]


@pytest.mark.parametrize("family", ours(), ids=lambda family: family.name)
def test_a_name_has_our_prefix_and_a_base_unit(family: Metric) -> None:
    """A reader of a dashboard needs no second page to know what a number is."""
    assert re.fullmatch(r"sentimill_[a-z_]+", family.name)
    plain = family.type == "info" or family.name in WITHOUT_UNIT
    assert plain or family.name.endswith(BASE_UNITS)
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
        if sample.name.endswith("_bucket") and sample.labels.get("method", "Classify") == "Classify"
    ]

    assert edges == sorted(set(edges))
    assert len(edges) <= 20


def test_a_server_costs_prometheus_a_bounded_number_of_series() -> None:
    """Every method has met every code we give, every label was given, every refusal named."""
    series = [sample for family in full().registry.collect() for sample in family.samples]

    assert 200 < len(series) <= SERIES
    assert not [sample.name for sample in series if sample.name.endswith("_created")]


def test_each_worker_costs_two_series_more() -> None:
    """Beside the two of them all: what they count themselves is added up."""
    registry = CollectorRegistry()
    workers = WorkerMetrics(registry)
    for place in map(str, range(8)):
        workers.restarts.labels(place)
        workers.texts.labels(place)

    assert sum(len(family.samples) for family in registry.collect()) == 2 + 2 * 8


def test_two_servers_in_one_process_do_not_share_counts() -> None:
    """There is no global registry behind the metrics."""
    one, two = Metrics(), Metrics()
    one.truncated_texts.inc()

    assert one.registry.get_sample_value("sentimill_truncated_texts_total") == 1
    assert two.registry.get_sample_value("sentimill_truncated_texts_total") == 0


def test_a_batch_is_counted_in_rows_tokens_and_seconds() -> None:
    """Useful over padded tokens is the useful share."""
    metrics = Metrics()

    metrics.observe_batch(rows=3, useful=20, padded=30, seconds=0.5, busy_seconds=0.4)

    value = metrics.registry.get_sample_value
    assert value("sentimill_batch_rows_sum") == 3
    assert value("sentimill_batch_tokens_sum") == 30
    assert value("sentimill_useful_tokens_total") == 20
    assert value("sentimill_padded_tokens_total") == 30
    assert value("sentimill_engine_seconds_sum") == 0.5
    assert value("sentimill_engine_busy_seconds_total") == 0.4


def test_the_texts_of_a_request_are_counted_together() -> None:
    """By label or reason, and how sure the model was; a score only where there is one."""
    metrics = Metrics()

    metrics.observe_answers(
        [
            answer(),
            answer(truncated=True),
            answer("neutral", None, 0.4, abstain_reason="LOW_CONFIDENCE"),
            TextError("the text is empty", reason="EMPTY_TEXT"),
        ]
    )

    value = metrics.registry.get_sample_value
    assert value("sentimill_texts_total", {"outcome": "positive"}) == 2
    assert value("sentimill_texts_total", {"outcome": "neutral"}) == 1
    assert value("sentimill_texts_total", {"outcome": "EMPTY_TEXT"}) == 1
    assert value("sentimill_truncated_texts_total") == 1
    assert value("sentimill_abstained_texts_total", {"reason": "LOW_CONFIDENCE"}) == 1
    assert value("sentimill_confidence_ratio_bucket", {"le": "0.4"}) == 1
    assert value("sentimill_confidence_ratio_count") == 3
    assert value("sentimill_score_ratio_bucket", {"le": "0.4"}) == 0
    assert value("sentimill_score_ratio_bucket", {"le": "+Inf"}) == 2


@pytest.mark.parametrize("value", [-1.0, 0.0, 0.001, 0.0011, 0.5, 29.0, 30.0, 31.0])
def test_a_spread_counts_as_the_librarys_histogram_does(value: float) -> None:
    """The same buckets, cumulated, the same sum and the same count."""
    one, other = CollectorRegistry(), CollectorRegistry()
    UnlockedHistogram("x_seconds", "X.", buckets=SECONDS, registry=one).observe(value)
    Histogram("x_seconds", "X.", buckets=SECONDS, registry=other).observe(value)

    def plain(registry: CollectorRegistry) -> set[tuple[str, str, float]]:
        (family,) = registry.collect()
        return {(each.name, each.labels.get("le", ""), each.value) for each in family.samples}

    expected = plain(other)
    # A histogram that saw a negative value has no sum in OpenMetrics; ours has none such.
    assert plain(one) - {("x_seconds_sum", "", value)} == expected - {("x_seconds_sum", "", value)}


def test_the_objective_is_an_edge_of_the_buckets() -> None:
    """Otherwise the share of quick calls would be a guess."""
    assert OBJECTIVE_SECONDS in SECONDS


def test_a_reload_forgets_the_labels_of_the_model_before() -> None:
    """Drift is counted against the model that answers."""
    metrics = Metrics()
    facts = dict.fromkeys(LABELS["sentimill_model"], "x")
    metrics.set_model(facts, ["good", "bad"], {"good": 0.5, "bad": 0.5})

    metrics.set_model(facts, ["positive"], {"positive": 1.0})

    value = metrics.registry.get_sample_value
    assert value("sentimill_reference_label_ratio", {"outcome": "good"}) is None
    assert value("sentimill_reference_label_ratio", {"outcome": "positive"}) == 1.0


TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.mark.parametrize(
    ("header", "shown"),
    [(f"00-{TRACE}-00f067aa0ba902b7-01", True), (f"{TRACE}", False), ("00-secret", False)],
)
async def test_a_callers_trace_is_the_exemplar_of_its_time(
    bundle: Path, header: str, shown: bool
) -> None:
    """A slow bucket leads to a trace; what is no trace id is not repeated."""
    async with (
        live_service(bundle) as live,
        grpc.aio.insecure_channel(live.address) as channel,
    ):
        method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
        method = channel.unary_unary("/sentimill.v1.SentimentService/GetModel")
        await method(b"", metadata=(("traceparent", header),))
        encode, _ = choose_encoder("application/openmetrics-text")
        page = encode(live.metrics.registry).decode()

    assert (f'# {{trace_id="{TRACE}"}}' in page) == shown
    assert "secret" not in page


async def test_a_stream_without_a_token_is_a_call_and_a_refusal(
    bundle: Path, tmp_path: Path
) -> None:
    """It ends before its first request, and is counted nevertheless."""
    tokens = tmp_path / "tokens"
    tokens.write_text(new_token("web", None)[1])
    async with (
        live_service(bundle, auth=TokenAuth(tokens)) as live,
        grpc.aio.insecure_channel(live.address) as channel,
    ):
        method: grpc.aio.StreamStreamMultiCallable[bytes, bytes]
        method = channel.stream_stream("/sentimill.v1.SentimentService/ClassifyStream")
        assert await method().code() is grpc.StatusCode.UNAUTHENTICATED

        labels = {"method": "ClassifyStream", "code": "UNAUTHENTICATED"}
        assert live.value("sentimill_requests_total", **labels) == 1
        assert live.value("sentimill_refused_requests_total", reason="TOKEN_MISSING") == 1
