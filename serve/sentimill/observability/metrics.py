"""Defines every metric of the server: name, unit, labels and buckets.

Labels have few values, all known beforehand: no text, address, path or caller is ever one.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter as Tally
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    Metric,
    PlatformCollector,
    ProcessCollector,
    Summary,
    disable_created_metrics,
)
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

from sentimill.errors import SentimillError
from sentimill.types import Prediction

# The library adds a `_created` series to each counter: half as many again, and nobody reads them.
disable_created_metrics()  # type: ignore[no-untyped-call] # it has no annotations

OBJECTIVE_SECONDS: Final = 0.5
"""The latency objective: an edge of `SECONDS`, so that the histogram counts it exactly."""

SECONDS: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)
_ROWS: Final = tuple(float(2**i) for i in range(11))  # 1 to 1024
_TOKENS: Final = tuple(float(2**i) for i in range(4, 17))  # 16 to 65,536
_SCORES: Final = tuple(round(-1 + 0.2 * i, 1) for i in range(11))  # -1 to 1
_CONFIDENCES: Final = tuple(round(0.1 * i, 1) for i in range(1, 11))  # 0.1 to 1


class UnlockedHistogram(Collector):
    """A histogram without a lock, for values that only the event loop's thread observes.

    `Histogram.observe` costs several times as much, and this runs once per text. A scrape at the
    same moment may see a value in the buckets that is not yet in the sum.
    """

    def __init__(
        self, name: str, says: str, *, buckets: tuple[float, ...], registry: CollectorRegistry
    ) -> None:
        self._name = name
        self._says = says
        self._edges = buckets
        self._counts = [0] * (len(buckets) + 1)
        self._sum = 0.0
        registry.register(self)

    def observe(self, value: float) -> None:
        """Count *value*."""
        self._counts[bisect_left(self._edges, value)] += 1
        self._sum += value

    def collect(self) -> Iterator[Metric]:
        """Yield the histogram as it is now, in the form of the classic ones."""
        total = 0
        buckets = []
        for edge, count in zip((*self._edges, math.inf), self._counts, strict=True):
            total += count
            buckets.append(("+Inf" if edge == math.inf else str(edge), float(total)))
        yield HistogramMetricFamily(self._name, self._says, buckets=buckets, sum_value=self._sum)


class WorkerMetrics:
    """What the supervisor of several workers counts itself, next to the sum of their metrics."""

    def __init__(self, registry: CollectorRegistry) -> None:
        counter = partial(Counter, registry=registry)
        gauge = partial(Gauge, registry=registry)
        self.workers = gauge("sentimill_workers", "Processes that should answer calls.")
        self.ready = gauge("sentimill_ready_workers", "Processes that answer calls.")
        self.restarts = counter(
            "sentimill_worker_restarts",
            "Processes that died or hung and were replaced, by worker.",
            ["worker"],
        )
        self.texts = counter(
            "sentimill_worker_texts",
            "Texts answered by each worker, including the processes that it replaced.",
            ["worker"],
        )


class Metrics:
    """Everything that a server counts: one object per process.

    shown: the registry that the HTTP port shows, if it has more than this process' own metrics.
    """

    def __init__(self, *, shown: CollectorRegistry | None = None) -> None:
        self.registry = registry = CollectorRegistry()
        self.shown = shown or registry
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        counter = partial(Counter, registry=registry)
        gauge = partial(Gauge, registry=registry)
        histogram = partial(UnlockedHistogram, registry=registry)

        def counter_of(name: str, says: str, label: str, *values: str) -> Counter:
            """Return a counter with a series for each of *values* from the start."""
            made = counter(name, says, [label])
            for value in values:
                made.labels(value)
            return made

        self.requests = counter(
            "sentimill_requests",
            "Calls answered, by method and gRPC code; those of bulk priority as `ClassifyBulk` and"
            " `ClassifyStreamBulk`.",
            ["method", "code"],
        )
        self.in_flight = gauge("sentimill_in_flight_requests", "Calls under way.")
        self.refused = counter(
            "sentimill_refused_requests", "Calls refused, by reason.", ["reason"]
        )
        self.request_seconds = Histogram(
            "sentimill_request_seconds",
            "From a call's arrival to its answer; by method as in sentimill_requests.",
            ["method"],
            buckets=SECONDS,
            registry=registry,
        )
        self.tokenize_seconds = histogram(
            "sentimill_tokenize_seconds",
            "From a call's arrival until its texts are token ids.",
            buckets=SECONDS,
        )
        self.lookup_seconds = Summary(  # a histogram would cost 15 series more
            "sentimill_index_lookup_seconds",
            "Finding the neighbours of one request's texts.",
            registry=registry,
        )
        self.queue_seconds = histogram(
            "sentimill_queue_seconds",
            "The longest wait of a call's texts for the engine; calls of bulk priority left out.",
            buckets=SECONDS,
        )
        self.waiting_texts = gauge("sentimill_waiting_texts", "Texts that wait or run.")
        self.waiting_tokens = gauge("sentimill_waiting_tokens", "Tokens that wait or run.")
        self.max_waiting_texts = gauge(
            "sentimill_max_waiting_texts", "Calls are refused above this many waiting texts."
        )
        self.max_waiting_tokens = gauge(
            "sentimill_max_waiting_tokens", "Calls are refused above this many waiting tokens."
        )

        self.texts = counter(
            "sentimill_texts",
            "Texts answered, by label or by the reason of their error.",
            ["outcome"],
        )
        self.truncated_texts = counter(
            "sentimill_truncated_texts", "Texts longer than the model reads."
        )
        self.abstained_texts = counter_of(
            "sentimill_abstained_texts",
            "Texts whose label is a guess, by reason: the confidence is below the threshold, or the"
            " model does not know the language.",
            "reason",
            *("LOW_CONFIDENCE", "UNSUPPORTED_LANGUAGE"),
        )
        self.dropped_texts = counter(
            "sentimill_dropped_texts",
            "Waiting texts dropped before they were computed: caller gone or deadline passed.",
        )
        self.scores = histogram(
            "sentimill_score_ratio",
            "Scores of answered texts: P(positive) - P(negative).",
            buckets=_SCORES,
        )
        self.confidences = histogram(
            "sentimill_confidence_ratio",
            "The largest prob of each answered text.",
            buckets=_CONFIDENCES,
        )

        self.engine_seconds = histogram(
            "sentimill_engine_seconds", "One engine call.", buckets=SECONDS
        )
        self.engine_busy_seconds = counter(
            "sentimill_engine_busy_seconds",
            "Seconds in which at least one engine call ran.",
        )
        self.engine_failures = counter(
            "sentimill_engine_failures", "Texts on which the engine failed."
        )
        self.batch_rows = histogram(
            "sentimill_batch_rows", "Texts in one engine call.", buckets=_ROWS
        )
        self.batch_tokens = histogram(
            "sentimill_batch_tokens", "Padded tokens in one engine call.", buckets=_TOKENS
        )
        self.useful_tokens = counter(
            "sentimill_useful_tokens", "Tokens of texts given to the engine."
        )
        self.padded_tokens = counter(
            "sentimill_padded_tokens",
            "Tokens given to the engine, padding included; useful / padded is the useful share.",
        )
        self.closed_batches = counter_of(
            "sentimill_closed_batches",
            "Batches, by why they took no more texts: `drained`, none waited; `full`, the budget is"
            " used; `unlike`, those that waited would have needed too much padding.",
            "reason",
            *("drained", "full", "unlike"),
        )

        self.model = Info("sentimill_model", "The loaded model.", registry=registry)
        self.reference_label_ratio = gauge(
            "sentimill_reference_label_ratio",
            "Share of each label among the model's answers on its test split, from the bundle.",
            ["outcome"],
        )
        self.index_rows = gauge(
            "sentimill_index_rows", "Labelled reviews in all indexes that the model has."
        )
        self.ready = gauge("sentimill_ready", "1 while calls are answered, else 0.")
        self.reloads = counter_of(
            "sentimill_reloads", "Loads of another bundle, by result.", "result", "ok", "failed"
        )
        self.last_reload_successful = gauge(
            "sentimill_last_reload_successful",
            "0 if the latest load of another bundle failed, else 1.",
        )
        self.last_reload_successful.set(1)
        self.model_restarts = counter_of(
            "sentimill_model_restarts",
            "Models loaded again because their engine was broken: several batches in a row failed,"
            " or one call ran for too long.",
            "reason",
            *("failures", "timeout"),
        )
        self.loaded = gauge(
            "sentimill_model_loaded_timestamp_seconds", "When the model that answers was loaded."
        )

    def observe_answers(self, results: Sequence[Prediction | SentimillError]) -> None:
        """Count the texts of one request."""
        answers = [one for one in results if isinstance(one, Prediction)]
        outcomes = (one.label if isinstance(one, Prediction) else one.reason for one in results)
        for outcome, count in Tally(outcomes).items():
            self.texts.labels(outcome).inc(count)
        for one in answers:
            self.confidences.observe(one.confidence)
            if one.score is not None:
                self.scores.observe(one.score)
        self.truncated_texts.inc(sum(one.truncated for one in answers))
        for reason, count in Tally(one.abstain_reason for one in answers).items():
            if reason is not None:
                self.abstained_texts.labels(reason).inc(count)

    def observe_batch(
        self, rows: int, useful: int, padded: int, seconds: float, busy_seconds: float
    ) -> None:
        """Count one engine call of *rows* texts that took *seconds*.

        busy_seconds: see `call_clock.CallTime`.
        """
        self.batch_rows.observe(rows)
        self.batch_tokens.observe(padded)
        self.useful_tokens.inc(useful)
        self.padded_tokens.inc(padded)
        self.engine_seconds.observe(seconds)
        self.engine_busy_seconds.inc(busy_seconds)

    def observe_request(
        self, method: str, code: str, seconds: float, trace_id: str | None = None
    ) -> None:
        """Count one call; its *trace_id* becomes the exemplar of the bucket it falls into."""
        exemplar = None if trace_id is None else {"trace_id": trace_id}
        self.requests.labels(method, code).inc()
        self.request_seconds.labels(method).observe(seconds, exemplar)

    def observe_reload(self, *, ok: bool) -> None:
        """Count one load of another bundle."""
        self.last_reload_successful.set(ok)
        self.reloads.labels("ok" if ok else "failed").inc()

    def set_model(
        self, facts: Mapping[str, str], labels: Sequence[str], label_mix: Mapping[str, float]
    ) -> None:
        """Say which model answers from now on; *label_mix* is the share of each label, or empty."""
        self.model.info(dict(facts))
        self.loaded.set_to_current_time()
        self.reference_label_ratio.clear()
        for label in labels:
            self.texts.labels(label)  # from 0, or rate() would miss the first text of a label
        for label, share in label_mix.items():
            self.reference_label_ratio.labels(label).set(share)
