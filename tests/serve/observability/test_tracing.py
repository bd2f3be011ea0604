"""Traces of calls: what a collector gets, and that nobody gets any without asking."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import grpc
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from live_server import Live, live_service, until
from raw_calls import classify, connected, refusal, request_of
from sentimill.errors import UsageError
from sentimill.observability.tracing import OtelSpans, Spans, configured_spans
from sentimill.server import open_inference_service as open_inference
from sentimill.server.sentiment_service import SERVICE
from sentimill.v1 import open_inference_pb2
from sentimill.v1 import sentiment_pb2 as pb

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    """Return what keeps spans instead of sending them."""
    return InMemorySpanExporter()


@pytest.fixture
def spans(exporter: InMemorySpanExporter) -> Iterator[OtelSpans]:
    """Return traces that end in *exporter*."""
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    found = OtelSpans(provider)
    yield found
    found.close()


def by_name(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    """Return the spans that ended, by their name."""
    return {span.name: span for span in exporter.get_finished_spans()}


async def test_a_call_is_a_span_with_its_parts(
    bundle: Path, spans: OtelSpans, exporter: InMemorySpanExporter
) -> None:
    """Tokenising, queue and engine follow one another within it, and no text is in any."""
    before = time.time_ns()
    async with live_service(bundle, spans=spans) as live:
        await classify(live, "good battery", "bad")
        await until(lambda: "Classify" in by_name(exporter))

    found = by_name(exporter)
    call = found["Classify"]
    assert found.keys() == {"Classify", "tokenize", "queue", "engine"}
    assert call.kind is SpanKind.SERVER
    assert dict(call.attributes or {}) == {
        "rpc.system": "grpc",
        "rpc.method": "Classify",
        "rpc.response.status_code": "OK",
    }
    assert call.status.status_code is StatusCode.UNSET
    times = [before]
    for name in ("tokenize", "queue", "engine"):
        part = found[name]
        assert part.parent is not None
        assert call.context is not None
        assert part.parent.span_id == call.context.span_id
        assert part.start_time is not None
        assert part.end_time is not None
        times += [part.start_time, part.end_time]
    slack_ns = 50_000_000  # the wall clock may be set meanwhile
    assert all(a <= b + slack_ns for a, b in pairwise(times))
    assert "battery" not in "".join(span.to_json() for span in found.values())


async def send_traced(live: Live, traceparent: str) -> None:
    """Call Classify as part of somebody's trace."""
    async with connected(live) as channel:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
        call = channel.unary_unary(f"/{SERVICE}/Classify")
        data = request_of("good").SerializeToString()
        await call(data, metadata=(("traceparent", traceparent), ("x-bin", b"\x00")))


async def test_a_traceparent_makes_it_a_part_of_the_callers_trace(
    bundle: Path, spans: OtelSpans, exporter: InMemorySpanExporter
) -> None:
    """What the caller does not sample is not sampled here; nonsense starts a trace of its own."""
    async with live_service(bundle, spans=spans) as live:
        await send_traced(live, f"00-{TRACE}-{PARENT}-01")
        await until(lambda: "Classify" in by_name(exporter))
        call = by_name(exporter)["Classify"]
        exporter.clear()
        await send_traced(live, f"00-{TRACE}-{PARENT}-00")
        await send_traced(live, "nonsense")
        await until(lambda: "Classify" in by_name(exporter))

    assert call.parent is not None
    assert f"{call.parent.span_id:016x}" == PARENT
    assert call.context is not None
    assert f"{call.context.trace_id:032x}" == TRACE
    (again,) = [s for s in exporter.get_finished_spans() if s.kind is SpanKind.SERVER]
    assert again.parent is None


async def test_a_refused_call_has_its_code(
    bundle: Path, spans: OtelSpans, exporter: InMemorySpanExporter
) -> None:
    """A fault of the caller is no error of the server; a server that drains says so."""
    async with live_service(bundle, spans=spans) as live:
        await refusal(live, pb.ClassifyRequest())
        live.service.drain()
        await refusal(live, request_of("good"))
        await until(lambda: len(exporter.get_finished_spans()) == 2)

    found = [
        ((span.attributes or {})["rpc.response.status_code"], span.status.status_code)
        for span in exporter.get_finished_spans()
    ]
    assert found == [("INVALID_ARGUMENT", StatusCode.UNSET), ("UNAVAILABLE", StatusCode.ERROR)]


async def test_each_request_of_a_stream_is_a_span(
    bundle: Path, spans: OtelSpans, exporter: InMemorySpanExporter
) -> None:
    """Each with its own engine span."""
    requests = [
        pb.ClassifyStreamRequest(id=i, request=request_of("good")).SerializeToString()
        for i in (1, 2)
    ]
    async with live_service(bundle, spans=spans) as live, connected(live) as channel:
        call: grpc.aio.StreamStreamMultiCallable[bytes, bytes]
        call = channel.stream_stream(f"/{SERVICE}/ClassifyStream")
        answers = [answer async for answer in call(iter(requests))]
        await until(lambda: len(exporter.get_finished_spans()) == 8)

    names = [span.name for span in exporter.get_finished_spans()]
    assert len(answers) == 2
    assert (names.count("ClassifyStream"), names.count("engine")) == (2, 2)


async def test_a_call_of_the_open_inference_protocol_is_a_span_too(
    bundle: Path, spans: OtelSpans, exporter: InMemorySpanExporter
) -> None:
    """With the same parts: the desk makes them, whatever the messages look like."""
    tensor = open_inference_pb2.ModelInferRequest.InferInputTensor(
        name="text",
        datatype="BYTES",
        shape=[1],
        contents=open_inference_pb2.InferTensorContents(bytes_contents=[b"good"]),
    )
    request = open_inference_pb2.ModelInferRequest(model_name="tiny", inputs=[tensor])
    async with live_service(bundle, spans=spans) as live, connected(live) as channel:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
        call = channel.unary_unary(f"/{open_inference.SERVICE}/ModelInfer")
        await call(request.SerializeToString())
        await until(lambda: "ModelInfer" in by_name(exporter))

    found = by_name(exporter)
    assert found.keys() == {"ModelInfer", "tokenize", "queue", "engine"}
    assert (found["ModelInfer"].attributes or {})["rpc.response.status_code"] == "OK"


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_SERVICE_NAME": "mine"},
        {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"},
        {"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"},
    ],
)
def test_nothing_is_traced_unless_it_is_asked_for(environment: dict[str, str]) -> None:
    """A name alone asks for nothing."""
    assert type(configured_spans(environment)) is Spans


@pytest.mark.parametrize(
    "environment",
    [
        {"OTEL_TRACES_EXPORTER": "zipkin"},
        {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"},
    ],
)
def test_what_cannot_be_sent_is_said(environment: dict[str, str]) -> None:
    """A server that is silently not traced would be found out in the night."""
    with pytest.raises(UsageError, match="OTEL_TRACES_EXPORTER") as caught:
        configured_spans(environment)

    assert caught.value.reason == "OTEL_UNSUPPORTED"


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that installs it."""
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)

    with pytest.raises(UsageError, match=r"pip install 'sentimill\[otel\]'") as caught:
        configured_spans({"OTEL_TRACES_EXPORTER": "console"})

    assert caught.value.reason == "EXTRA_MISSING"


def test_the_console_gets_spans_under_our_name(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On stderr, when the server closes at the latest."""
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")

    made = configured_spans({"OTEL_TRACES_EXPORTER": "console"})
    with made.call("GetModel", ()):
        made.end("OK")
    made.close()

    said = capsys.readouterr()
    assert said.out == ""
    assert '"service.name": "sentimill"' in said.err
    assert '"name": "GetModel"' in said.err
