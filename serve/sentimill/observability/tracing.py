"""Traces of calls with OpenTelemetry, turned on by its own OTEL_ variables.

A call is one span of kind server, a child of the caller's `traceparent`. It has three children:
tokenizing, waiting and the engine. No span holds a text. Without the variables no OpenTelemetry
package is loaded, and tracing costs one function call per call.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Final

from sentimill.errors import UsageError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter


Metadata = Iterable[tuple[str, str | bytes]]

_FAULTS: Final = {"UNKNOWN", "DEADLINE_EXCEEDED", "INTERNAL", "UNAVAILABLE"}
"""Codes that make a server's span an error; the other codes are the caller's fault (OpenTelemetry
semantic conventions, gRPC, status of a server span)."""

_NOTHING: Final = nullcontext()
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")


class Spans:
    """Traces nothing, which is the default. Call all methods in the event loop's thread."""

    def call(self, method: str, metadata: Metadata) -> AbstractContextManager[None]:
        """Trace what happens inside as one call of *method*."""
        return _NOTHING

    def end(self, code: str) -> None:
        """Set the gRPC code with which the running call ends."""

    def parts(self, arrived: float, tokenized: float, queue_s: float, engine_s: float) -> None:
        """Record how the running call spent its time.

        arrived, tokenized: on the clock of `time.monotonic`. queue_s: until its last batch was
        taken. engine_s: its longest batch.
        """

    def close(self) -> None:
        """Send the spans that are left."""


class OtelSpans(Spans):
    """Traces through its own OpenTelemetry provider; sets nothing global."""

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("sentimill")
        self._trace = trace
        self._propagator = TraceContextTextMapPropagator()

    @contextmanager
    def call(self, method: str, metadata: Metadata) -> Iterator[None]:
        """See `Spans.call`."""
        headers = {key: value for key, value in metadata if isinstance(value, str)}
        with self._tracer.start_as_current_span(
            method,
            context=self._propagator.extract(headers),
            kind=self._trace.SpanKind.SERVER,
            attributes={"rpc.system": "grpc", "rpc.method": method},
            record_exception=False,  # `end` sets the status
            set_status_on_exception=False,
        ):
            yield

    def end(self, code: str) -> None:
        """See `Spans.end`."""
        span = self._trace.get_current_span()
        span.set_attribute("rpc.response.status_code", code)
        if code in _FAULTS:
            span.set_status(self._trace.StatusCode.ERROR)

    def parts(self, arrived: float, tokenized: float, queue_s: float, engine_s: float) -> None:
        """See `Spans.parts`."""
        taken = tokenized + queue_s
        parts = {
            "tokenize": (arrived, tokenized),
            "queue": (tokenized, taken),
            "engine": (taken, taken + engine_s),
        }
        offset_ns = time.time_ns() - time.monotonic_ns()
        for name, (began, ended) in parts.items():
            span = self._tracer.start_span(name, start_time=round(began * 1e9) + offset_ns)
            span.end(round(ended * 1e9) + offset_ns)

    def close(self) -> None:
        """See `Spans.close`."""
        self._provider.shutdown()


def configured_spans(environment: Mapping[str, str]) -> Spans:
    """Return the tracing that the OTEL_ variables of *environment* ask for: none by default.

    OTEL_TRACES_EXPORTER (`otlp`, `console`, `none`) or an OTLP endpoint turns traces on; the SDK
    reads the rest by itself: sampler, batching, service name, headers. (OpenTelemetry
    specification, "Environment Variable Specification".)

    Raises:
        UsageError: EXTRA_MISSING, or OTEL_UNSUPPORTED for any other exporter.
    """
    name = _exporter_name(environment)
    if name == "none":
        return Spans()
    try:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter

        if name == "console":
            exporter: SpanExporter = ConsoleSpanExporter(out=sys.stderr)
        else:
            from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

            exporter = OTLPSpanExporter()
    except ImportError as error:
        raise UsageError(
            f"OTEL_ variables ask for traces, and {error.name} is not installed: pip install"
            " 'sentimill[otel]', or set OTEL_TRACES_EXPORTER=none",
            reason="EXTRA_MISSING",
        ) from error
    resource = Resource.create()
    if str(resource.attributes.get("service.name", "")).startswith("unknown_service"):
        resource = resource.merge(Resource({"service.name": "sentimill"}))
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return OtelSpans(provider)


def trace_id(metadata: Metadata) -> str | None:
    """Return the trace id of a caller's `traceparent` (W3C Trace Context, section 3.2)."""
    for key, value in metadata:
        if key == "traceparent" and isinstance(value, str):
            found = _TRACEPARENT.fullmatch(value)
            return found and found[1]
    return None


def _exporter_name(environment: Mapping[str, str]) -> str:
    """Return "otlp", "console" or "none"."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return "none"
    endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    default = "otlp" if any(environment.get(name) for name in endpoints) else "none"
    name = environment.get("OTEL_TRACES_EXPORTER", "").strip() or default
    protocol = environment.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environment.get(
        "OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"
    )
    if name not in ("otlp", "console", "none") or (name == "otlp" and protocol != "grpc"):
        raise UsageError(
            f"the exporter {name!r} over {protocol!r} is not supported: set OTEL_TRACES_EXPORTER to"
            " otlp (with OTEL_EXPORTER_OTLP_PROTOCOL=grpc), console or none",
            reason="OTEL_UNSUPPORTED",
        )
    return name
