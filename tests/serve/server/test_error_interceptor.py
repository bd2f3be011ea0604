"""The edge of a server: no exception's text reaches a caller, whatever bytes come."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import struct_pb2
from grpc_health.v1 import health, health_pb2_grpc
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from live_server import Live, live_service
from raw_calls import classify, connected, outcomes
from sentimill.observability.metrics import Metrics
from sentimill.server.error_interceptor import CallBoundary, ErrorInterceptor

Context = grpc.aio.ServicerContext[bytes, bytes]
SECRET = "a customer's own words"


async def fail(request: bytes, context: Context) -> bytes:
    """Fail as a bug would."""
    raise ValueError(SECRET)


async def fail_late(request: bytes, context: Context) -> AsyncIterator[bytes]:
    """Fail after a first answer."""
    yield b"first"
    raise ValueError(SECRET)


async def refuse(request: bytes, context: Context) -> bytes:
    """Refuse as a handler does on purpose."""
    await context.abort(grpc.StatusCode.NOT_FOUND, "no such thing")


@asynccontextmanager
async def guarded() -> AsyncIterator[grpc.aio.Channel]:
    """Serve handlers that fail, and health, and connect to them."""
    server = grpc.aio.server(interceptors=[ErrorInterceptor(CallBoundary(Metrics(), lambda: 0.0))])
    unary, stream = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
    methods: dict[str, grpc.RpcMethodHandler[Any, bytes]] = {
        "Fail": unary(fail),
        "FailLate": stream(fail_late),
        "Refuse": unary(refuse),
        "Parse": unary(fail, struct_pb2.Struct.FromString),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test", methods),))
    health_pb2_grpc.add_HealthServicer_to_server(health.aio.HealthServicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
    finally:
        await server.stop(None)


async def error_of(channel: grpc.aio.Channel, method: str, data: bytes) -> grpc.aio.AioRpcError:
    """Return the error that a unary call ends with."""
    call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(data)
    return caught.value


async def test_a_bug_is_internal_and_its_text_is_in_the_log_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """grpc.aio would send it to the caller as UNKNOWN."""
    async with guarded() as channel:
        with caplog.at_level(logging.CRITICAL):
            error = await error_of(channel, "/test/Fail", b"")

    assert (error.code(), error.details()) == (
        grpc.StatusCode.INTERNAL,
        "internal error, see the server's log",
    )


async def test_a_stream_that_fails_late_is_internal_too(caplog: pytest.LogCaptureFixture) -> None:
    """What it gave before stays given."""
    async with guarded() as channel:
        method: grpc.aio.UnaryStreamMultiCallable[bytes, bytes]
        method = channel.unary_stream("/test/FailLate")
        call = method(b"")
        with caplog.at_level(logging.CRITICAL):
            assert await call.read() == b"first"
            assert await call.code() is grpc.StatusCode.INTERNAL

    assert SECRET not in str(await call.details())


async def test_a_refusal_on_purpose_passes(caplog: pytest.LogCaptureFixture) -> None:
    """With its own code and words, and nothing in the log."""
    async with guarded() as channel:
        error = await error_of(channel, "/test/Refuse", b"")

    assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, "no such thing")
    assert caplog.records == []


@pytest.mark.parametrize("method", ["/test/Parse", "/grpc.health.v1.Health/Check"])
async def test_a_message_that_cannot_be_read_is_the_callers_fault(method: str) -> None:
    """In health and in any other service, before its handler runs."""
    async with guarded() as channel:
        error = await error_of(channel, method, b"\xff\xff")

    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_large_request_of_health_is_refused_before_it_is_read() -> None:
    """It needs no token, and reading two million fields that it does not have takes 60 ms."""
    async with guarded() as channel:
        error = await error_of(channel, "/grpc.health.v1.Health/Check", b"\x12\x00" * 4096)

    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "8192 bytes, the limit here is 4096" in str(error.details())


async def test_health_can_be_watched_through_the_guard() -> None:
    """Its handler writes to the call itself and yields nothing."""
    async with guarded() as channel:
        method: grpc.aio.UnaryStreamMultiCallable[bytes, bytes]
        method = channel.unary_stream("/grpc.health.v1.Health/Watch")
        call = method(b"")

        assert isinstance(await call.read(), bytes)
        call.cancel()


async def send_all(live: Live, messages: list[bytes]) -> set[grpc.StatusCode]:
    """Send every message to every method and return the codes of the answers."""
    codes = set()
    async with connected(live) as channel:
        for name in ("Classify", "GetModel"):
            method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
            method = channel.unary_unary(f"/sentimill.v1.SentimentService/{name}")
            for data in messages:
                codes.add(await method(data).code())
        streams: grpc.aio.StreamStreamMultiCallable[bytes, bytes]
        streams = channel.stream_stream("/sentimill.v1.SentimentService/ClassifyStream")
        call = streams()
        for data in messages:
            await call.write(data)
            assert await call.read() is not grpc.aio.EOF
        await call.done_writing()
        codes.add(await call.code())
    return codes


async def test_any_bytes_get_an_answer_and_harm_nobody(bundle: Path) -> None:
    """Malformed calls are INVALID_ARGUMENT, and the next good one is answered."""
    messages: list[bytes] = []

    @settings(max_examples=200, database=None, suppress_health_check=list(HealthCheck))
    @given(st.binary(max_size=200))
    def collect(data: bytes) -> None:
        messages.append(data)

    collect()
    async with live_service(bundle) as live:
        codes = await send_all(live, messages)
        assert outcomes(await classify(live, "good")) == ["positive"]
        assert (live.admission.texts, live.admission.tokens) == (0, 0)

    assert len(messages) >= 200
    assert codes <= {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT}
